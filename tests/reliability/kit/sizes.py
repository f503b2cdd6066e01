"""How many cases a test of a promise takes: few in the default run, the full number in the slow one, more overnight."""

from __future__ import annotations

import os

import pytest
from _pytest.mark import ParameterSet

SOAK_SHARE = float(os.environ.get("STANHOP_SOAK") or 0.0)
"""The share of a night that the slow tests take as in `make soak`; 0 gives them the sizes of CI."""
IS_SOAK = SOAK_SHARE > 0


def soaked(*, full: int, soak: int) -> int:
    """``full`` in CI; of a night its share of ``soak``, but one at least."""
    return max(1, round(SOAK_SHARE * soak)) if IS_SOAK else full


def sizes(*, default: int | None = None, full: int, soak: int) -> list[ParameterSet]:
    """Values for ``parametrize``: ``default`` (if there is one) in the default run, and in the slow run the other."""
    slow = soaked(full=full, soak=soak)
    quick = [] if default is None else [pytest.param(default, id=str(default))]
    return [
        *quick,
        pytest.param(slow, id=str(slow), marks=[pytest.mark.slow, pytest.mark.timeout(0 if IS_SOAK else 900)]),
    ]
