"""An exponential moving average of a network's weights: what is validated and kept in place of those of one step."""

from __future__ import annotations

import copy

import torch
from torch import nn


class MovingAverage(nn.Module):
    """A network whose weights follow those of another one that is being trained.

    Unlike ``torch.optim.swa_utils.AveragedModel`` it does not look at a counter on the device at every step, which
    would have a GPU wait, and it forgets its first weights at once, so that short trainings gain as well.

    Args:
        network: The network to follow; the average begins with its weights.
        decay: Share of the average that a step keeps once it has seen many: about ``1 / (1 - decay)`` steps count.

    Source: Polyak & Juditsky 1992; the decay that rises with the steps, TensorFlow's ``ExponentialMovingAverage``.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).requires_grad_(False)
        self._decay = decay

    @torch.no_grad()
    def update(self, network: nn.Module, *, num_steps: int) -> None:
        """Follow ``network``, which has taken ``num_steps`` steps (from 1)."""
        decay = min(self._decay, num_steps / (9 + num_steps))
        own, current = tuple(self.network.parameters()), tuple(network.parameters())
        torch._foreach_lerp_(own, current, 1 - decay)
        for kept, latest in zip(self.network.buffers(), network.buffers(), strict=True):
            kept.copy_(latest)
