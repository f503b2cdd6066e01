"""Whether the validation windows are clearly for a change, or as likely by chance.

Windows that overlap or follow one another err alike: thousands of them are not thousands of witnesses. What a change
takes off their errors is therefore averaged over long stretches of time first, and how far these means lie apart tells
how far their own mean can be trusted.

Source: batch means, Schmeiser 1982, Operations Research 30(3); judged by standard errors, Breiman et al. 1984,
Classification and Regression Trees, 3.4.3.
"""

from __future__ import annotations

from torch import Tensor

NUM_STRETCHES, FEWEST_STRETCHES = 8, 4
CLEAR = 2.0
"""Standard errors above 0."""


def standard_errors_above_zero(gains: Tensor, *, shortest: int) -> float | None:
    """How many standard errors the mean of ``gains`` lies above 0.

    Args:
        gains: What a change takes off the error of each window, ``(windows,)``, in order of time.
        shortest: Windows that a stretch has at least: as many steps as one forecasts, by which windows overlap.

    Returns:
        None where there are too few windows to tell, or they do not differ.
    """
    num_stretches = min(NUM_STRETCHES, len(gains) // shortest)
    if num_stretches < FEWEST_STRETCHES:
        return None
    means = gains.tensor_split(num_stretches)
    of_stretches = gains.new_tensor([float(each.mean()) for each in means])
    error = float(of_stretches.std()) / num_stretches**0.5
    return float(of_stretches.mean()) / error if error > 0 else None


def is_clear(gains: Tensor, *, shortest: int) -> bool:
    """Whether ``gains`` are more than ``CLEAR`` standard errors above 0; where that cannot be told, they are not."""
    found = standard_errors_above_zero(gains, shortest=shortest)
    return found is not None and found > CLEAR
