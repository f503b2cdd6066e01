"""Where the files that come with the program are found."""

from __future__ import annotations

from pathlib import Path

import pytest

from stanhop import resources
from stanhop.resources import preset_paths, resource


def test_a_checkout_holds_no_bundled_copy_that_would_shadow_its_files() -> None:
    if (resources.PACKAGE.parent / "pyproject.toml").is_file():
        assert not resources.BUNDLED.exists()


def test_a_wheel_s_own_files_come_before_what_lies_beside_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundled = tmp_path / "stanhop" / "_bundled"
    (bundled / "configs").mkdir(parents=True)
    (bundled / "configs" / "mine.yaml").write_text("# mine\n")
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "other.yaml").write_text("# other\n")
    monkeypatch.setattr(resources, "BUNDLED", bundled)
    monkeypatch.setattr(resources, "PACKAGE", bundled.parent)
    assert preset_paths() == {"mine": bundled / "configs" / "mine.yaml"}


def test_without_bundled_files_the_checkout_s_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "BUNDLED", tmp_path / "stanhop" / "_bundled")
    monkeypatch.setattr(resources, "PACKAGE", tmp_path / "stanhop")
    assert resource("data", "catalog.yaml") == tmp_path / "data" / "catalog.yaml"
    assert preset_paths() == {}


def test_presets_are_sorted_and_only_yaml_files_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configs = tmp_path / "configs"
    configs.mkdir()
    for name in ("wth.yaml", "etth1.yaml", "README.md"):
        (configs / name).write_text("")
    monkeypatch.setattr(resources, "BUNDLED", tmp_path / "none")
    monkeypatch.setattr(resources, "PACKAGE", tmp_path / "stanhop")
    assert list(preset_paths()) == ["etth1", "wth"]
