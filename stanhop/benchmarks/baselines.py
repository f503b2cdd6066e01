"""The forecasters of sktime that a network has to beat, measured on the very windows it is measured on."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from pytorch_lightning.utilities.seed import isolate_rng

from stanhop.benchmarks.measurement import Measurement
from stanhop.config import DataConfig
from stanhop.errors import Code, ConfigError, MachineError, quoted
from stanhop.forecasting import metrics
from stanhop.forecasting.calendar import season_length
from stanhop.series.frame import Series
from stanhop.series.scaling import Scaler
from stanhop.series.windows import borders, split_origins

Values = NDArray[np.float64]
Forecasts = Callable[[Values], Values]
"""Maps contexts ``(windows, context_length, channels)`` to forecasts ``(windows, prediction_length, channels)``."""

LOCAL_SEASONS = 14
"""Seasons of history, if there are as many, that a forecaster gets which is fitted to each window anew."""
NO_SEASON = 1
"""Steps of a season where nothing but the last value is expected to return."""
LINEAR_CONTEXT = 336
"""Context of DLinear and NLinear in the tables of Zeng et al. 2023, arXiv:2205.13504."""
LINEAR_TRAINING: Mapping[str, Any] = {"num_epochs": 10, "batch_size": 32, "lr": 1e-3}
"""How they are trained: Adam and MSE as sktime has them, the epochs of Zeng et al.; tuned on nothing."""
BATCH = 256


@dataclass(frozen=True)
class Sizes:
    """What a baseline is made for: steps in a season, of context and of the horizon, and channels."""

    season: int
    context_length: int
    prediction_length: int
    num_channels: int


@dataclass(frozen=True)
class Baseline:
    """A forecaster of sktime.

    Args:
        name: As the command line and the table call it.
        is_trained: Whether it is trained once, on the training rows, with a seed; otherwise it is fitted to the
            context of each window anew, which takes so long that only each n-th window is measured.
        make: Makes the forecaster for ``Sizes``.
        num_seasons: Seasons of history that it takes to see one; 0 if it looks for none.
    """

    name: str
    is_trained: bool
    make: Callable[[Sizes], Any]
    num_seasons: int = 0


def _naive(sizes: Sizes) -> Any:
    from sktime.forecasting.naive import NaiveForecaster

    return NaiveForecaster(strategy="last")


def _seasonal_naive(sizes: Sizes) -> Any:
    from sktime.forecasting.naive import NaiveForecaster

    return NaiveForecaster(strategy="last", sp=sizes.season)


def _theta(sizes: Sizes) -> Any:
    from sktime.forecasting.theta import ThetaForecaster

    # Values are centred at 0, so the season is taken out by hand, additively: Theta's own way multiplies.
    from sktime.transformations.detrend import Deseasonalizer

    theta = ThetaForecaster(deseasonalize=False)
    return Deseasonalizer(sp=sizes.season, model="additive") * theta if sizes.season > 1 else theta


def _dlinear(sizes: Sizes) -> Any:
    from sktime.forecasting.ltsf import LTSFDLinearForecaster

    return LTSFDLinearForecaster(
        sizes.context_length, sizes.prediction_length, in_channels=sizes.num_channels, **LINEAR_TRAINING
    )


def _nlinear(sizes: Sizes) -> Any:
    from sktime.forecasting.ltsf import LTSFNLinearForecaster

    return LTSFNLinearForecaster(
        sizes.context_length, sizes.prediction_length, in_channels=sizes.num_channels, **LINEAR_TRAINING
    )


BASELINES = {
    baseline.name: baseline
    for baseline in (
        Baseline("naive", False, _naive),
        Baseline("seasonal_naive", False, _seasonal_naive, num_seasons=1),
        Baseline("theta", False, _theta, num_seasons=2),
        Baseline("dlinear", True, _dlinear),
        Baseline("nlinear", True, _nlinear),
    )
}


def find_baseline(name: str) -> Baseline:
    """The baseline called ``name``.

    Raises:
        ConfigError: there is none.
    """
    if name not in BASELINES:
        fix = f"choose from {', '.join(BASELINES)}, or none"
        raise ConfigError(Code.CONFIG, f"no baseline is called {quoted(name)}", fix=fix)
    return BASELINES[name]


def season_of(baseline: Baseline, frequency: str, *, num_rows: int) -> int:
    """Steps in the season that ``baseline`` looks for; ``NO_SEASON`` where ``num_rows``, all it knows, are too few."""
    season = season_length(frequency)
    return season if num_rows >= baseline.num_seasons * season else NO_SEASON


def season_note(season: int, frequency: str) -> str:
    """What to tell who waits where ``season``, that of ``season_of``, had to give way; empty where it did not."""
    usual = season_length(frequency)
    return "" if season == usual else f", without a season, since rows are too few for one of {usual:,} steps"


def baseline_settings(
    baseline: Baseline, series: Series, data: DataConfig, *, prediction_length: int, fingerprint: str, stride: int
) -> dict[str, Any]:
    """What decides the outcome of ``measure_baseline`` beside data set, horizon and seed."""
    split = {part: float(size) for part, size in data.split.model_dump().items()}
    rows = borders(len(series), data.split)
    known = len(rows.train) if baseline.is_trained else rows.test.start
    season = season_of(baseline, series.frequency, num_rows=known)
    length = context_length_of(baseline, season=season, num_rows=known, prediction_length=prediction_length)
    own = LINEAR_TRAINING if baseline.is_trained else {"season": season, "stride": stride}
    return {"data_sha256": fingerprint, "split": split, "context_length": length, **own}


def measure_baseline(
    baseline: Baseline,
    series: Series,
    data: DataConfig,
    *,
    prediction_length: int,
    seed: int | None,
    stride: int,
    settings: Mapping[str, Any],
) -> Measurement:
    """Measure ``baseline`` over the test windows of ``series``, scaled by the training rows.

    Args:
        baseline: Which forecaster.
        series: The series.
        data: Its name and its split.
        prediction_length: Steps to forecast.
        seed: Seed of the training, for one that is trained.
        stride: Measure each ``stride``-th window, for one that is fitted to each window anew.
        settings: Those of ``baseline_settings``.

    Raises:
        DataError: the series is too short.
        MachineError: a package that the forecaster needs is not installed.
    """
    rows = borders(len(series), data.split).train
    values = Scaler.fit(series.values[rows.start : rows.stop]).transform(series.values)
    length = int(settings["context_length"])
    origins = split_origins(len(series), data.split, "test", context_length=length, prediction_length=prediction_length)
    stride = 1 if baseline.is_trained else stride
    windows = sliding_window_view(values, length + prediction_length, axis=0)  # (windows, channels, steps), a view
    chosen = windows[origins.start - length : origins.stop - length : stride].swapaxes(1, 2)
    season = int(settings.get("season", NO_SEASON))  # those that are trained look for none
    sizes = Sizes(season, length, prediction_length, series.values.shape[1])
    with quiet_sktime(), isolate_rng():
        began_s = time.monotonic()
        forecaster, forecasts = prepared(baseline, values[rows.start : rows.stop], sizes, seed=seed)
        trained_s = time.monotonic() - began_s
        errors = _errors(forecasts, chosen, length)
        seconds = trained_s if baseline.is_trained else time.monotonic() - began_s
    return Measurement(
        data=Path(data.source).name,
        prediction_length=prediction_length,
        model=f"{baseline.name} (sktime)",
        seed=seed if baseline.is_trained else None,
        mse=errors[0],
        mae=errors[1],
        num_windows=len(chosen),
        stride=stride,
        seconds=seconds,
        num_parameters=_num_parameters(forecaster) if baseline.is_trained else None,
        settings=dict(settings),
    )


def context_length_of(baseline: Baseline, *, season: int, num_rows: int, prediction_length: int) -> int:
    """The context that ``baseline`` gets where ``num_rows`` are known.

    One that is trained has at least as many rows to learn from as its context has.
    """
    if baseline.is_trained:
        return min(LINEAR_CONTEXT, (num_rows - prediction_length) // 2)
    return min(LOCAL_SEASONS * season, num_rows)


def prepared(baseline: Baseline, values: Values, sizes: Sizes, *, seed: int | None) -> tuple[Any, Forecasts]:
    """The forecaster of sktime, trained if it is one that is, and what maps contexts to forecasts.

    To be called, and the result used, inside ``quiet_sktime``.

    Args:
        baseline: Which one.
        values: Training rows, scaled, ``(steps, channels)``.
        sizes: Season, context and horizon.
        seed: Of its training.

    Raises:
        MachineError: a package that the forecaster needs is not installed.
    """
    forecaster = _made(baseline, sizes)
    if not baseline.is_trained:
        return forecaster, _fitted_anew(forecaster, sizes.prediction_length)
    torch.manual_seed(0 if seed is None else seed)
    return forecaster, _trained(forecaster, values, sizes.prediction_length)


def _made(baseline: Baseline, sizes: Sizes) -> Any:
    try:
        return baseline.make(sizes)
    except ModuleNotFoundError as error:
        problem = f"the baseline {baseline.name} cannot be made: {str(error).splitlines()[0]}"
        fix = "pip install 'stanhop[benchmarks]', or leave it out with --baselines"
        raise MachineError(Code.ENVIRONMENT, problem, fix=fix) from error


def _fitted_anew(forecaster: Any, steps: int) -> Forecasts:
    horizon = np.arange(1, steps + 1)

    def forecast(contexts: Values) -> Values:
        forecasts = [forecaster.clone().fit(pd.DataFrame(context), fh=horizon).predict() for context in contexts]
        return np.stack([np.asarray(each, dtype=np.float64) for each in forecasts])

    return forecast


def _trained(forecaster: Any, values: Values, steps: int) -> Forecasts:
    """Train on ``values``; sktime forecasts from the end of its data alone, so its network is asked for each window."""
    forecaster.fit(pd.DataFrame(values), fh=np.arange(1, steps + 1))
    network = forecaster.network.eval()

    def forecast(contexts: Values) -> Values:
        with torch.inference_mode():
            forecasts: Values = network(torch.from_numpy(contexts).float()).double().numpy()
        return forecasts

    return forecast


def _errors(forecasts: Forecasts, windows: Values, length: int) -> tuple[float, float]:
    """MSE and MAE over ``windows``, ``(windows, length + prediction_length, channels)``, some at a time."""
    sums = np.zeros(2)
    for batch in _batches(windows):
        forecast, target = forecasts(np.ascontiguousarray(batch[:, :length])), batch[:, length:]
        sums += len(batch) * np.array([metrics.mse(forecast, target), metrics.mae(forecast, target)])
    mse, mae = sums / len(windows)
    return float(mse), float(mae)


def _batches(windows: Values) -> Iterator[Values]:
    return (windows[first : first + BATCH] for first in range(0, len(windows), BATCH))


def _num_parameters(forecaster: Any) -> int:
    return sum(weight.numel() for weight in forecaster.network.parameters())


@contextmanager
def quiet_sktime() -> Iterator[None]:
    """Without warnings of options that change in the next release and of optimisers that stop early.

    They are recorded and dropped: sktime puts filters of its own over any that is set here.
    """
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("ignore")
        yield
