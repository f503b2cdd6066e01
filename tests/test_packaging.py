"""Wheel, editable install and bare checkout: the same program, the same presets and data sets."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

import stanhop

ROOT = Path(stanhop.__file__).parent.parent

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ROOT / "pyproject.toml").exists(), reason="needs a checkout"),
]


def call(command: Sequence[str | Path], *, cwd: Path) -> str:
    """Standard output of a command that runs in ``cwd`` and knows nothing of the checkout."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def environment_with(folder: Path, *what: str | Path) -> Path:
    """The ``bin`` folder of a new environment with ``what`` installed; it sees our dependencies, but not us."""
    venv.create(folder, with_pip=False)
    scripts = folder / "bin"
    (packages,) = folder.glob("lib/python*/site-packages")
    # a path written so is searched for packages, but what is installed there as editable is not followed
    (packages / "dependencies.pth").write_text(f"{sysconfig.get_paths()['purelib']}\n")
    install = ["install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--force-reinstall"]
    call([sys.executable, "-m", "pip", "--python", scripts / "python", *install, *what], cwd=folder)
    return scripts


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", folder]
    call([sys.executable, "-m", "pip", "wheel", *options, ROOT], cwd=folder)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environment_with(tmp_path_factory.mktemp("installed"), wheel)


@pytest.fixture(scope="module")
def editable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environment_with(tmp_path_factory.mktemp("editable"), "-e", ROOT)


def test_the_wheel_holds_the_package_its_presets_and_its_catalogue_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"stanhop", f"stanhop-{stanhop.__version__}.dist-info"}
    bundled = {name.removeprefix("stanhop/_bundled/") for name in names if "/_bundled/" in name}
    presets = {f"configs/{path.name}" for path in (ROOT / "configs").iterdir()}
    assert bundled == {*presets, "data/catalog.yaml", "data/literature.yaml"}
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_source_distribution_holds_what_the_wheel_is_built_from(tmp_path: Path) -> None:
    call([sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", tmp_path], cwd=ROOT)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as contents:
        names = {name.partition("/")[2] for name in contents.getnames()}
    assert {"data/catalog.yaml", "cli.py", "constraints.txt", "LICENSE", "README.md", "pyproject.toml"} <= names
    assert {f"configs/{path.name}" for path in (ROOT / "configs").iterdir()} <= names
    assert not [name for name in names if name.startswith("data/raw")]


def test_wheel_editable_install_and_checkout_answer_alike(installed: Path, editable: Path, tmp_path: Path) -> None:
    for arguments in (["config", "list"], ["data", "list"], ["config", "show", "--data", "ETTh1"], ["--version"]):
        answers = {
            call([installed / "stanhop", *arguments], cwd=tmp_path),
            call([installed / "python", "-m", "stanhop", *arguments], cwd=tmp_path),
            call([editable / "stanhop", *arguments], cwd=tmp_path),
            call([sys.executable, ROOT / "cli.py", *arguments], cwd=tmp_path),
        }
        assert len(answers) == 1


def test_the_installed_program_is_not_the_checkout_s(installed: Path, editable: Path, tmp_path: Path) -> None:
    where = ["-c", "import stanhop; print(stanhop.__file__)"]
    assert str(installed.parent) in call([installed / "python", *where], cwd=tmp_path)
    assert str(ROOT) in call([editable / "python", *where], cwd=tmp_path)


def test_the_installed_program_trains_and_forecasts(installed: Path, tmp_path: Path) -> None:
    rows = [f"2021-01-{1 + hour // 24:02} {hour % 24:02}:00:00,{math.sin(hour / 4)},{hour % 7}" for hour in range(211)]
    (tmp_path / "toy.csv").write_text("\n".join(["date,a,b", *rows, ""]))
    size = ["model.patch_length=6", "model.model_dim=4", "model.feedforward_dim=4"]
    call(
        [
            *(installed / "stanhop", "train", "--data", "toy.csv", "--epochs", "1", "--no-tracking", "--no-progress"),
            *("--context-length", "24", "--prediction-length", "5", *(word for key in size for word in ("--set", key))),
        ],
        cwd=tmp_path,
    )
    call(
        [
            installed / "stanhop",
            "forecast",
            "--model",
            "runs/toy-1/model",
            "--input",
            "toy.csv",
            "--output",
            "next.csv",
        ],
        cwd=tmp_path,
    )
    assert len((tmp_path / "next.csv").read_text().splitlines()) == 6
