"""What a training leaves behind: model directory, metrics, errors by window, plots; and its summary, read back."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stanhop.errors import DataError
from stanhop.forecasting.bundle import Bundle, load_bundle, save_bundle
from stanhop.forecasting.calibration import calibrate
from stanhop.forecasting.evaluation import Evaluation, evaluate
from stanhop.forecasting.forecaster import Forecaster
from stanhop.forecasting.plots import forecast_plot, loss_plot
from stanhop.series.frame import SeriesSet
from stanhop.storage import remove_file, write_bytes, write_text
from stanhop.tracking.names import WINDOW_ERRORS
from stanhop.training.journal import Journal
from stanhop.training.stacking import Stacking

logger = logging.getLogger(__name__)

CONFIG, METRICS, MODEL, CHECKPOINTS, LOCK = "config.yaml", "metrics.json", "model", "checkpoints", ".lock"
FORECAST_PLOT, LOSS_PLOT = "forecast.png", "loss.png"
OUR_NAMES = {CONFIG, METRICS, MODEL, CHECKPOINTS, LOCK, FORECAST_PLOT, LOSS_PLOT, WINDOW_ERRORS}
"""Everything that may stand in the folder of a run."""


@dataclass(frozen=True)
class FitResult:
    """What a training left behind.

    Args:
        run_path: Its folder.
        model_path: The model directory in it.
        metrics: ``test/…`` of what is kept, ``val/best_loss`` and ``val/best_epoch`` of the training,
            ``val/network_share`` and ``val/stacked_loss`` of its combination with the ridge regression, times, sizes.
        num_epochs: Epochs trained.
        best_epoch: The one whose weights are in the model, from 1.
        run_id: MLflow's id of the run, if it was recorded.
        was_complete: Whether the run had been finished before, so that nothing was done.
    """

    run_path: Path
    model_path: Path
    metrics: Mapping[str, float]
    num_epochs: int
    best_epoch: int
    run_id: str | None
    was_complete: bool


def write_outcome(
    run_path: Path,
    bundle: Bundle,
    series_set: SeriesSet,
    journal: Journal,
    stacking: Stacking | None,
    *,
    stop_if_asked: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Calibrate and save ``bundle``, measure it on the test split, if any, draw plots, and write ``metrics.json`` last.

    Before each of these steps ``stop_if_asked`` may raise; a resumed run then takes them again.

    Returns:
        The metrics by the names they are recorded under.

    Raises:
        ModelError: a weight is not finite.
        MachineError: the disk is full or the folder not writable.
    """
    train, levels = bundle.config.train, bundle.config.model.levels
    if levels:
        intervals = calibrate(bundle, series_set, levels=levels, device=train.device, batch_size=train.batch_size)
        bundle = dataclasses.replace(bundle, intervals=intervals)
    stop_if_asked()
    save_bundle(run_path / MODEL, bundle, overwrite=True)
    bundle = load_bundle(run_path / MODEL)  # what is measured is what is deployed
    stop_if_asked()
    began_s = time.monotonic()
    evaluation = None
    if bundle.config.data.split.has_test:
        evaluation = evaluate(bundle, series_set, device=train.device, batch_size=train.batch_size, levels=levels)
    metrics = {
        **_test_metrics(evaluation, seconds=time.monotonic() - began_s),
        "val/best_loss": journal.best.validation_loss,
        "val/best_epoch": float(journal.best.epoch),
        **_stacking_metrics(stacking),
        "time/train_s": sum(epoch.seconds for epoch in journal.epochs),
        "size/num_parameters": float(sum(weight.numel() for weight in bundle.network.parameters())),
        "size/model_bytes": float(sum(file.stat().st_size for file in (run_path / MODEL).iterdir())),
    }
    stop_if_asked()
    _write_plots(run_path, bundle, series_set, journal)
    if evaluation is None:
        remove_file(run_path / WINDOW_ERRORS)
    else:
        write_bytes(run_path / WINDOW_ERRORS, evaluation.windows.to_bytes())
    stop_if_asked()
    document = {
        "metrics": metrics,
        "best_epoch": journal.best.epoch,
        "per_channel": evaluation.per_channel if evaluation else {},
        "per_step": evaluation.per_step if evaluation else {},
        "epochs": [asdict(epoch) for epoch in journal.epochs],
    }
    write_text(run_path / METRICS, json.dumps(_json_numbers(document), indent=2, allow_nan=False) + "\n")
    return metrics


def _test_metrics(evaluation: Evaluation | None, *, seconds: float) -> dict[str, float]:
    if evaluation is None:
        return {}
    return {**{f"test/{name}": value for name, value in evaluation.metrics.items()}, "time/evaluate_s": seconds}


def _stacking_metrics(stacking: Stacking | None) -> dict[str, float]:
    if stacking is None:
        return {}
    return {"val/network_share": stacking.share, "val/stacked_loss": stacking.validation_loss}


def read_outcome(run_path: Path, *, run_id: str | None) -> FitResult | None:
    """The result of the run in ``run_path`` if it is complete."""
    path = run_path / METRICS
    if not path.exists():
        return None
    document = json.loads(path.read_text(encoding="utf-8"))
    return FitResult(
        run_path=run_path,
        model_path=run_path / MODEL,
        metrics={name: math.nan if value is None else float(value) for name, value in document["metrics"].items()},
        num_epochs=len(document["epochs"]),
        best_epoch=document["best_epoch"],
        run_id=run_id,
        was_complete=True,
    )


def _write_plots(run_path: Path, bundle: Bundle, series_set: SeriesSet, journal: Journal) -> None:
    losses = ([epoch.training_loss for epoch in journal.epochs], [epoch.validation_loss for epoch in journal.epochs])
    write_bytes(run_path / LOSS_PLOT, loss_plot(*losses, loss=f"{bundle.config.train.loss}, scaled"))
    history = series_set.series[0]
    try:
        config = bundle.config
        forecast = Forecaster(bundle, device=config.train.device, levels=config.model.levels).forecast(history)
    except DataError as error:  # the last rows may be extreme, or the last the calendar has; the model is fine
        logger.warning("no plot of a forecast: %s", error.message)
        return
    write_bytes(run_path / FORECAST_PLOT, forecast_plot(history, forecast))


def _json_numbers(value: Any) -> Any:  # plain data of any shape
    """``value`` with None for every number that JSON does not have."""
    if isinstance(value, Mapping):
        return {key: _json_numbers(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json_numbers(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
