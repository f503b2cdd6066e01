"""Which rows of a series in memory train, which validate, and how long a context they allow."""

from __future__ import annotations

import math

from stanhop.series.windows import Borders

LARGEST_SHARE_TO_VALIDATE = 1 / 3
"""Of a series so short that one horizon is more than this, all rows train."""
SHARE_OF_CONTEXT = 2 / 3
"""Of the training rows but one horizon, at most; the rest makes windows."""


def borders_for(length: int, *, horizon: int, validation: float) -> Borders:
    """All ``length`` rows as train and validation; nothing is held out for a test.

    Args:
        length: Rows of the series.
        horizon: Steps to forecast.
        validation: Share of the rows that validate; they are at least one horizon.
    """
    num_validation = max(math.ceil(validation * length), horizon) if validation > 0 else 0
    if num_validation > LARGEST_SHARE_TO_VALIDATE * length:
        num_validation = 0
    edge = length - num_validation
    return Borders(train=range(edge), validation=range(edge, length), test=range(length, length))


def longest_context(num_rows: int, *, horizon: int) -> int:
    """The longest context that leaves some training windows in ``num_rows``; at least 1."""
    return max(1, int(SHARE_OF_CONTEXT * (num_rows - horizon)))
