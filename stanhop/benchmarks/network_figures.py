"""What a table says of a network beside its errors: the outliers of its outputs, and the time of a training step."""

from __future__ import annotations

import json
from collections.abc import Mapping

import torch
from pytorch_lightning.utilities.seed import isolate_rng
from torch import nn

from stanhop.benchmarks import timing
from stanhop.config import RunConfig, Section
from stanhop.forecasting.bundle import Bundle, bundle_digest
from stanhop.forecasting.forecaster import choose_device
from stanhop.quantization.outliers import measure_outliers
from stanhop.quantization.windows import split_contexts
from stanhop.series.datamodule import SeriesDataModule
from stanhop.series.frame import SeriesSet
from stanhop.storage import sha256_of
from stanhop.training.joint_path import with_joint_path
from stanhop.training.lightning_module import ForecastingModule

NUM_ROUNDS, MOST_SECONDS = 30, 60.0
"""Steps of each network that are timed, and how long that may take."""
PRECISIONS = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


class Outliers(Section):
    """Outliers over the test windows, as ``stanhop outliers`` measures them."""

    model_sha256: str
    """Of the model they are about."""
    figures: dict[str, float]
    """Kurtosis and inf-norm by selection of outputs, by the names that MLflow has."""


class StepTime(Section):
    """Seconds of a training step."""

    low: float
    """Quantile 20 %."""
    median: float
    high: float
    """Quantile 80 %."""


class StepTimes(Section):
    """Times of several networks that were taken in turns."""

    key: dict[str, str]
    """What they depend on: number of threads, and configuration of each network."""
    seconds: dict[str, StepTime]
    """By network."""

    def are_of(self, configs: Mapping[str, RunConfig]) -> bool:
        """Whether they are those of ``configs`` with the threads there are now."""
        return self.key == _key(configs)


def outliers_of(bundle: Bundle, series_set: SeriesSet) -> Outliers:
    """The outliers of ``bundle`` over every test window of ``series_set``.

    Raises:
        DataError: the data are not the model's.
    """
    report = measure_outliers(bundle.network, split_contexts(bundle, series_set, "test"))
    return Outliers(model_sha256=bundle_digest(bundle), figures=report.metrics())


def time_steps(configs: Mapping[str, RunConfig], series_set: SeriesSet) -> StepTimes:
    """Time training steps of ``configs`` in turns, each on a batch of training windows, from its first weights on.

    Forward pass, loss, backward pass, clipping and optimiser are those of a training; handing over batches and
    averaging weights are left out. What one training took by itself says less: the machine may have had other work.

    Args:
        configs: Configurations by the name of their network.
        series_set: The data of them all.
    """
    with isolate_rng():
        samplers = {name: _sampler(config, series_set) for name, config in configs.items()}
        samples = timing.in_turns(samplers, num_rounds=NUM_ROUNDS, limit=MOST_SECONDS)
    quantiles = {name: timing.quantiles(values) for name, values in samples.items()}
    seconds = {name: StepTime(low=low, median=median, high=high) for name, (low, median, high) in quantiles.items()}
    return StepTimes(key=_key(configs), seconds=seconds)


def _sampler(config: RunConfig, series_set: SeriesSet) -> timing.Sampler:
    train = config.train
    device = choose_device(train.device)
    datamodule = SeriesDataModule(series_set, config)
    config = with_joint_path(config, datamodule)
    torch.manual_seed(train.seed)
    module = ForecastingModule(config, series_set.channels).to(device).train()
    optimizer = torch.optim.AdamW(module.network.parameters(), lr=train.learning_rate, weight_decay=train.weight_decay)
    context, target = next(iter(datamodule.train_dataloader()))
    batch = (context.to(device), target.to(device))

    def step() -> None:
        with torch.autocast(device.type, dtype=PRECISIONS.get(train.precision), enabled=train.precision in PRECISIONS):
            loss = module.training_step(batch, 0)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(module.network.parameters(), train.gradient_clip)
        optimizer.step()

    return timing.WallClock(torch.cuda.synchronize if device.type == "cuda" else None).sampler([step])


def _key(configs: Mapping[str, RunConfig]) -> dict[str, str]:
    plain = {name: json.dumps(config.model_dump(mode="json", exclude={"tracking"})) for name, config in configs.items()}
    return {"num_threads": str(torch.get_num_threads())} | {
        name: sha256_of(text.encode()) for name, text in plain.items()
    }
