"""How many cases a test of a promise takes: few in the default run, the full number in the slow one, more overnight."""

from __future__ import annotations

import os

import pytest
from _pytest.mark import ParameterSet

IS_SOAK = os.environ.get("STANHOP_SOAK", "") not in ("", "0")
"""Whether the slow tests take the sizes of `make soak`."""


def sizes(*, default: int | None = None, full: int, soak: int) -> list[ParameterSet]:
    """Values for ``parametrize``: ``default`` (if there is one) in the default run, and in the slow run the other."""
    slow = soak if IS_SOAK else full
    quick = [] if default is None else [pytest.param(default, id=str(default))]
    return [
        *quick,
        pytest.param(slow, id=str(slow), marks=[pytest.mark.slow, pytest.mark.timeout(0 if IS_SOAK else 900)]),
    ]
