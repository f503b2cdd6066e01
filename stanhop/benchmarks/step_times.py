"""Seconds that a training step takes, several trained networks in turns."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from itertools import cycle, islice
from pathlib import Path

import torch
from torch import Tensor, nn

from stanhop.benchmarks import timing
from stanhop.benchmarks.timing import Timing
from stanhop.config import RunConfig
from stanhop.forecasting.bundle import bundle_digest, load_bundle
from stanhop.series.datamodule import SeriesDataModule
from stanhop.series.frame import SeriesSet
from stanhop.storage import write_text
from stanhop.training.lightning_module import ForecastingModule

NUM_ROUNDS = 30
NUM_BATCHES = 5
"""Different batches that the steps go through; in a step of a learned alpha, what is in a batch may matter."""


def step_timings(
    models: Mapping[str, Path],
    series_set: SeriesSet,
    *,
    file: Path,
    report: Callable[[str], None] = lambda _line: None,
) -> dict[str, Timing]:
    """Seconds of a training step on a CPU of each model directory in ``models``, from its weights on.

    A step is forward pass, backward pass, clipping and optimiser on a batch of training windows; loading the batch,
    validation and checkpoints are not in it. What ``file`` holds about the same models is not measured again.

    Args:
        models: Model directories by name.
        series_set: Their data.
        file: Where the timings are kept.
        report: Told what begins.
    """
    bundles = {name: load_bundle(path) for name, path in models.items()}
    key = {name: bundle_digest(bundle) for name, bundle in bundles.items()}
    kept = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    if kept.get("models") != key:
        report("timing training steps, all networks in turns")
        steps = {name: _step(bundle.config, bundle.network, series_set) for name, bundle in bundles.items()}
        clock = timing.WallClock()
        samplers = {name: clock.sampler([step]) for name, step in steps.items()}
        samples = timing.in_turns(samplers, num_rounds=NUM_ROUNDS, limit=float("inf"))
        seconds = {name: asdict(timing.timing(values)) for name, values in samples.items()}
        kept = {"models": key, "seconds": seconds}
        write_text(file, json.dumps(kept, indent=2) + "\n")
    return {name: Timing(**plain) for name, plain in kept["seconds"].items()}


def _step(config: RunConfig, network: nn.Module, series_set: SeriesSet) -> Callable[[], Tensor]:
    """One training step after another, as ``stanhop train`` takes them."""
    module = ForecastingModule(config, series_set.channels)
    module.network.load_state_dict(network.state_dict())
    module.train()
    train = config.train
    optimizer = torch.optim.AdamW(module.parameters(), lr=train.learning_rate, weight_decay=train.weight_decay)
    loader = SeriesDataModule(series_set, config).train_dataloader()
    batches = cycle(list(islice(loader, NUM_BATCHES)))

    def step() -> Tensor:
        loss = module.training_step(next(batches), 0)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), train.gradient_clip)
        optimizer.step()
        return loss.detach()

    return step
