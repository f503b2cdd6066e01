"""A whole training step of a published STanHop network, retrieval by retrieval ours or by bisection, in turns."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from stanhop.benchmarks import timing
from stanhop.benchmarks.bisection import bisecting
from stanhop.benchmarks.gpu_training import captured
from stanhop.model.published import PublishedSTanHopNet
from stanhop.model.published_config import PublishedConfig

NUM_CHANNELS, CONTEXT_LENGTH, PREDICTION_LENGTH, PATCH_LENGTH = 7, 168, 24, 12
"""ETTh1's channels, a week of context, a day ahead; 14 patches."""
PERIOD = 24
LEARNING_RATE = 1e-3
OURS, BISECTION, GRAPH = "ours", "bisection", "ours, CUDA graph"
WAYS: dict[str, Callable[[], AbstractContextManager[None]]] = {OURS: nullcontext, BISECTION: bisecting}

Batch = tuple[Tensor, Tensor]


def published_config(*, model_dim: int = 64, num_levels: int = 2, merge_size: int = 4) -> PublishedConfig:
    """GSH on ETTh1, 168 -> 24: patches, levels and merging of the one configuration that the published code ships."""
    return PublishedConfig(
        variant="stanhop",
        num_channels=NUM_CHANNELS,
        context_length=CONTEXT_LENGTH,
        prediction_length=PREDICTION_LENGTH,
        patch_length=PATCH_LENGTH,
        merge_size=merge_size,
        model_dim=model_dim,
        feedforward_dim=2 * model_dim,
        num_heads=4,
        num_levels=num_levels,
    )


def batches(count: int, *, batch_size: int, device: torch.device, seed: int = 0) -> list[Batch]:
    """``count`` batches of windows: a day's wave of random height and phase a channel, and noise; scaled."""
    generator = torch.Generator().manual_seed(seed)
    steps = torch.arange(CONTEXT_LENGTH + PREDICTION_LENGTH)
    found = []
    for _ in range(count):
        height, phase = torch.rand(2, batch_size, 1, NUM_CHANNELS, generator=generator)
        wave = (2 * torch.pi * (steps[None, :, None] / PERIOD + phase)).sin() * (0.5 + height)
        windows = wave + 0.3 * torch.randn(wave.shape, generator=generator)
        context, target = windows.to(device).split([CONTEXT_LENGTH, PREDICTION_LENGTH], dim=1)
        found.append((context, target))
    return found


@dataclass
class Training:
    """A network with its optimiser, one step at a time.

    Args:
        network: The network.
        optimizer: Its optimiser.
        way: A key of ``WAYS``.
    """

    network: PublishedSTanHopNet
    optimizer: torch.optim.Optimizer
    way: str

    @classmethod
    def start(cls, config: PublishedConfig, way: str, device: torch.device, *, seed: int = 0) -> Training:
        """The network as ``seed`` makes it, the same for every way."""
        torch.manual_seed(seed)
        network = PublishedSTanHopNet(config).to(device)
        is_cuda = device.type == "cuda"
        return cls(network, torch.optim.Adam(network.parameters(), lr=LEARNING_RATE, capturable=is_cuda), way)

    def step(self, batch: Batch) -> Tensor:
        """Forward, backward, optimiser; returns the loss, still on its device."""
        context, target = batch
        with WAYS[self.way]():
            loss = functional.mse_loss(self.network(context), target)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
        self.optimizer.step()
        return loss.detach()


def compare(
    config: PublishedConfig,
    *,
    device: torch.device,
    batch_size: int,
    num_steps: int,
    num_rounds: int,
    limit: float,
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Train both ways from the same weights on the same batches, then time their steps in turns.

    Returns:
        Loss curves and how far apart they are at most, relative to the loss; seconds a step with quantiles, and how
        many times as long as ours bisection takes, round by round; on CUDA also as ours in a CUDA graph.
    """
    data = batches(num_steps, batch_size=batch_size, device=device)
    trainings = {way: Training.start(config, way, device) for way in WAYS}
    losses: dict[str, list[Tensor]] = {way: [] for way in WAYS}
    for number, batch in enumerate(data, start=1):
        for way, training in trainings.items():
            losses[way].append(training.step(batch))
        if number % 10 == 0:
            report(f"step {number} of {num_steps}")
    curves = {way: [float(loss) for loss in values] for way, values in losses.items()}
    report("timing")
    samples = _timed(trainings, data, device, num_rounds=num_rounds, limit=limit)
    ratios = {way: timing.ratio(samples[BISECTION], values) for way, values in samples.items() if way != BISECTION}
    return {
        "config": config.model_dump(mode="json"),
        "batch_size": batch_size,
        "num_parameters": sum(each.numel() for each in trainings[OURS].network.parameters()),
        "losses": curves,
        "largest_difference": largest_difference(curves[OURS], curves[BISECTION]),
        "seconds": {way: vars(timing.timing(values)) for way, values in samples.items()},
        "bisection_over_ours": _named(ratios[OURS]),
        **({"bisection_over_graph": _named(ratios[GRAPH])} if GRAPH in ratios else {}),
    }


def _named(quantiles: tuple[float, float, float]) -> dict[str, float]:
    return dict(zip(("low", "median", "high"), quantiles, strict=True))


def largest_difference(one: list[float], other: list[float]) -> float:
    """The largest difference of two curves, relative to the second."""
    return max(abs(a - b) / abs(b) for a, b in zip(one, other, strict=True))


def _timed(
    trainings: dict[str, Training], data: list[Batch], device: torch.device, *, num_rounds: int, limit: float
) -> dict[str, list[float]]:
    synchronize = torch.cuda.synchronize if device.type == "cuda" else None
    clock = timing.WallClock(synchronize)
    samplers = {
        way: clock.sampler([lambda training=training: training.step(data[0])])  # type: ignore[misc]  # mypy does not see the default
        for way, training in trainings.items()
    }
    if device.type == "cuda":
        samplers[GRAPH] = clock.sampler([captured(lambda: trainings[OURS].step(data[0]))])
    return timing.in_turns(samplers, num_rounds=num_rounds, limit=limit)
