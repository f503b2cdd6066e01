"""The tested versions: every dependency is pinned, inside its range, and no file names a package index."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import stanhop

ROOT = Path(stanhop.__file__).parent.parent
PROJECT = ROOT / "pyproject.toml"

pytestmark = pytest.mark.skipif(not PROJECT.exists(), reason="needs a checkout")


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def test_every_dependency_is_pinned_inside_its_range() -> None:
    project = tomllib.loads(PROJECT.read_text())["project"]
    wanted = map(Requirement, [*project["dependencies"], *project["optional-dependencies"]["dev"]])
    pinned = pins()
    outside = [str(one) for one in wanted if not one.specifier.contains(pinned.get(canonicalize_name(one.name), "0"))]
    assert not outside


def test_what_the_dependencies_need_in_turn_is_pinned_too() -> None:
    project = tomllib.loads(PROJECT.read_text())["project"]
    to_do = list(map(Requirement, [*project["dependencies"], *project["optional-dependencies"]["dev"]]))
    needed: set[str] = set()
    while to_do:
        one = to_do.pop()
        name = canonicalize_name(one.name)
        if name not in needed:
            needed.add(name)
            inner = map(Requirement, distribution(name).requires or [])
            to_do += [each for each in inner if each.marker is None or each.marker.evaluate({"extra": ""})]
    assert needed <= set(pins())


def test_pins_are_sorted_plain_and_exact() -> None:
    names = list(pins())
    assert names == sorted(names)
    assert names == [canonicalize_name(name) for name in names]
    assert not [version for version in pins().values() if not re.fullmatch(r"[0-9][0-9a-z.]*", version)]


def test_lightning_under_its_other_name_is_not_among_them() -> None:
    # two releases of it were malicious, and it is the same code as pytorch-lightning
    assert "lightning" not in pins()


@pytest.mark.parametrize("name", ["Makefile", "pyproject.toml", "constraints.txt", ".ci/run"])
def test_no_package_index_is_named(name: str) -> None:
    text = (ROOT / name).read_text()
    assert not re.search(r"index-url|find-links|https?://[^ ]*(pypi|pytorch|simple)", text)
