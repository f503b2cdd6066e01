"""A model directory that others could have changed is used, with a warning."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from stanhop.forecasting.bundle import load_bundle


@pytest.fixture
def model(bundle_path: Path, tmp_path: Path) -> Path:
    """A model directory of this user's, whatever the umask."""
    path = Path(shutil.copytree(bundle_path, tmp_path / "model"))
    for each in (path, *path.iterdir()):
        each.chmod(0o755)
    return path


def test_one_s_own_is_used_without_a_word(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    load_bundle(model)
    assert not caplog.text


@pytest.mark.parametrize("name", ["", "model.safetensors", "manifest.json"])
def test_what_everyone_may_write_is_named(model: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    (model / name).chmod(0o777)
    load_bundle(model)
    assert f"{model / name} can be changed by every user of this machine; chmod -R o-w it" in caplog.text


def test_what_belongs_to_somebody_else_is_named(
    model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if os.geteuid() == 0:  # what root owns is trusted, so somebody else must own it
        os.chown(model / "config.json", 65_534, 65_534)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 65_534)
    load_bundle(model)
    assert "belongs to another user, who can change the model" in caplog.text
