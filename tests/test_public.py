"""The names that ``import stanhop`` offers."""

from __future__ import annotations

import subprocess
import sys

import pytest

import stanhop


@pytest.mark.parametrize("name", stanhop.PUBLIC)
def test_a_public_name_is_what_its_module_defines(name: str) -> None:
    thing = getattr(stanhop, name)
    assert thing.__name__ == name
    assert thing.__module__ == stanhop.PUBLIC[name]
    assert name in dir(stanhop)


def test_a_name_that_is_not_public_is_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'forecats'"):
        _ = stanhop.forecats


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import stanhop, sys; print([name for name in ('torch', 'pandas', 'pydantic') if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
