"""From a history to its forecast: a model directory applied to series, in their own units and calendar."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd
import torch
from torch import nn

from stanhop.errors import Code, DataError, MachineError, UsageError, quoted
from stanhop.forecasting.bundle import Bundle
from stanhop.forecasting.calendar import future_times, is_same_step
from stanhop.forecasting.intervals import Intervals, Prediction
from stanhop.model.int8 import Int8Linear
from stanhop.model.network import Outputs, with_head
from stanhop.model.onnx import OnnxNetwork
from stanhop.series.frame import Series
from stanhop.series.scaling import Scaler
from stanhop.series.time_features import with_time_features

DEFAULT_BATCH_SIZE = 32
"""Series computed together; a shorter table is padded to it, so more would cost a table of few series more."""
Device = Literal["auto", "cpu", "cuda"]
NO_BOUNDS = np.empty((0, 0, 0))


@dataclass(frozen=True, eq=False)
class Forecast:
    """What follows a series.

    Args:
        id: The series' id.
        times: Time stamps of the forecast, ``(prediction_length,)``; they go on from the last one of the history.
        values: In original units, ``(prediction_length, channels)``, finite.
        channels: Names, in the order of the history's.
        batch_size: Series computed together; less than asked for if memory did not suffice.
        levels: Prediction intervals, in percent, ascending.
        lower: Their lower bounds, in original units, ``(levels, prediction_length, channels)``.
        upper: Their upper bounds.
    """

    id: str
    times: pd.DatetimeIndex
    values: np.ndarray
    channels: tuple[str, ...]
    batch_size: int = 1
    levels: tuple[float, ...] = ()
    lower: np.ndarray = field(default_factory=lambda: NO_BOUNDS)
    upper: np.ndarray = field(default_factory=lambda: NO_BOUNDS)


class Forecaster:
    """A bundle ready to forecast.

    What others hold does not change the forecast of a series: ``forecast`` computes it alone, ``forecast_all`` in
    batches that always have the same size.  Its place in a batch can change the rounding, and nothing else.

    Args:
        bundle: The model; it is not changed.
        device: Where to compute; ``auto`` takes CUDA where there is one.
        batch_size: Series that ``forecast_all`` computes together.
        is_compiled: Whether torch compiles the network at its first use, for minutes, to be faster afterwards.
        levels: Prediction intervals that forecasts come with, in percent.

    Raises:
        UsageError: CUDA is asked for and not there, or compiling for a network that ONNX Runtime computes, or the model
            has no interval of such a level.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: Device = "auto",
        batch_size: int = DEFAULT_BATCH_SIZE,
        is_compiled: bool = False,
        levels: Sequence[float] = (),
    ) -> None:
        if is_compiled and isinstance(bundle.network, OnnxNetwork):
            problem = "--compile: the model is computed by ONNX Runtime, which torch cannot compile"
            raise UsageError(Code.USAGE, problem, fix="leave --compile out; it is fast as it is")
        self.bundle = bundle
        self.device = choose_device(device)
        self.batch_size = batch_size
        self.is_compiled = is_compiled
        self.intervals = _intervals_of(bundle, levels)
        network = copy.deepcopy(bundle.network).eval().to(self.device)
        network = with_head(network)
        self._network: Callable[[torch.Tensor], Outputs] = compiled(network) if is_compiled else network

    def forecast(self, series: Series) -> Forecast:
        """Forecast the steps after ``series``.

        Raises:
            DataError: its channels, frequency or length are not what the model needs, its calendar ends, or the
                forecast is not finite.
            MachineError: memory does not suffice.
        """
        return self._forecast_batches([series], batch_size=1)[0]

    def forecast_all(self, series: Sequence[Series]) -> list[Forecast]:
        """Forecast every one of ``series``, in their order; errors as ``forecast``, naming the series."""
        return self._forecast_batches(series, batch_size=self.batch_size)

    def predict(self, contexts: np.ndarray) -> np.ndarray:
        """Map scaled contexts ``(batch, context_length, columns)`` to ``(batch, prediction_length, channels)``.

        Both are float64, in scaled units and in the model's order of channels, behind which a context has its time
        features (``as_seen``). The network standardises a context before it takes it to its own precision, so a small
        change on a large level is not rounded away.
        """
        return self.predict_all(contexts).forecast

    def predict_all(self, contexts: np.ndarray) -> Prediction:
        """As ``predict``, with the bounds that the network itself forecasts, if it has a quantile head."""
        with torch.inference_mode():
            outputs = self._network(torch.from_numpy(np.require(contexts, requirements=("C", "W"))).to(self.device))
        if isinstance(outputs, torch.Tensor):
            return Prediction(_numbers(outputs))
        forecast, lower, upper = map(_numbers, outputs)
        levels = enumerate(self.bundle.config.model.levels)
        return Prediction(forecast, {level: (lower[:, place], upper[:, place]) for place, level in levels})

    def as_seen(self, anomalies: np.ndarray, times: pd.DatetimeIndex) -> np.ndarray:
        """``anomalies`` ``(steps, channels)`` at ``times``, and the model's time features, ``(steps, columns)``."""
        return with_time_features(anomalies, times, self.bundle.config.model.time_features or ())

    def scaler_of(self, series: Series, *, rows: slice = slice(None)) -> Scaler:
        """The model's scaler for ``series``; for an id it has not seen, one fitted on ``rows`` of its history."""
        known = self.bundle.scalers.get(series.id)
        if known is not None:
            return known
        values, model = self.in_model_order(series)[rows], self.bundle.config.model
        if all(scaler.profile is None for scaler in self.bundle.scalers.values()):
            return Scaler.fit(values)
        lengths = {"context_length": model.context_length, "prediction_length": model.prediction_length}
        return Scaler.with_profile(values, series.times[rows], **lengths)

    def in_model_order(self, series: Series) -> np.ndarray:
        """Values of ``series`` ``(steps, channels)``, channels in the model's order."""
        order = [series.channels.index(name) for name in self.bundle.channels]
        return np.ascontiguousarray(series.values[:, order])  # rounding depends on the layout in memory

    def check_fits(self, series: Series) -> None:
        """Refuse a series whose channels or frequency are not the model's.

        Raises:
            DataError: naming the channels, or both frequencies.
        """
        whose = _named(series)
        missing = [name for name in self.bundle.channels if name not in series.channels]
        unknown = [name for name in series.channels if name not in self.bundle.channels]
        if missing or unknown:
            differences = [
                f"{verb} {', '.join(quoted(name) for name in names)}"
                for verb, names in (("lacks", missing), ("also has", unknown))
                if names
            ]
            problem = f"{whose} {' and '.join(differences)}; the model was trained on {', '.join(self.bundle.channels)}"
            raise DataError(Code.CHANNELS, problem, fix="name the columns to use with --target-columns")
        if not is_same_step(series.frequency, self.bundle.frequency):
            problem = f"{whose} has frequency {series.frequency}, the model was trained on {self.bundle.frequency}"
            raise DataError(Code.FREQUENCY, problem, fix="resample the data, or train a model at its frequency")

    def _forecast_batches(self, series: Sequence[Series], *, batch_size: int) -> list[Forecast]:
        """Forecasts of ``series``, computed ``batch_size`` at a time; fewer when memory does not suffice."""
        forecasts: list[Forecast] = []
        while len(forecasts) < len(series):
            batch = series[len(forecasts) : len(forecasts) + batch_size]
            contexts, scalers = zip(*(self._context(each) for each in batch), strict=True)
            padded = _padded(contexts, to=batch_size)
            predicted = self._predicted_if_memory_suffices(padded)
            if predicted is not None:
                lower, upper = self._bounds(predicted, padded)
                for place, (each, scaler) in enumerate(zip(batch, scalers, strict=True)):  # the rest is padding
                    scaled = np.concatenate([predicted.forecast[None, place], lower[:, place], upper[:, place]])
                    forecasts.append(self._in_original_units(each, scaler, scaled, batch_size=batch_size))
            elif batch_size > 1:
                batch_size //= 2
            else:
                problem = f"memory does not suffice to forecast {_named(batch[0])}"
                raise MachineError(Code.ENVIRONMENT, problem, fix="use a machine or device with more memory")
        return forecasts

    def _bounds(self, predicted: Prediction, contexts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper bounds, ``(levels, batch, prediction_length, channels)``; no levels if none are asked for."""
        if self.intervals is None:
            none = predicted.forecast[None][:0]
            return none, none
        return self.intervals.around(predicted, contexts[..., : self.bundle.num_channels])

    def _predicted_if_memory_suffices(self, contexts: np.ndarray) -> Prediction | None:
        # The caller tries again outside of the except block: inside, the error still holds what the failed attempt
        # had allocated (pytorch#18853).
        try:
            return self.predict_all(contexts)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            return None

    def _in_original_units(self, series: Series, scaler: Scaler, scaled: np.ndarray, *, batch_size: int) -> Forecast:
        """The forecast of ``series`` from ``scaled`` ones: itself, lower and upper bounds.

        Args:
            series: The series.
            scaler: Its scaler.
            scaled: ``(1 + 2 levels, prediction_length, channels)``.
            batch_size: Series computed together.
        """
        times = future_times(series, steps=scaled.shape[1])
        values = scaler.restored(scaled, times)[..., [self.bundle.channels.index(name) for name in series.channels]]
        if not np.isfinite(values).all():
            problem = f"the forecast of {_named(series)} holds NaN or infinite values"
            raise DataError(Code.VALUE, problem, fix="look for values far outside those of the training data")
        levels = () if self.intervals is None else self.intervals.levels
        return Forecast(
            id=series.id,
            times=times,
            values=values[0],
            channels=series.channels,
            batch_size=batch_size,
            levels=levels,
            lower=values[1 : 1 + len(levels)],
            upper=values[1 + len(levels) :],
        )

    def _context(self, series: Series) -> tuple[np.ndarray, Scaler]:
        """The scaled context ``(context_length, columns)`` of ``series`` and its scaler."""
        self.check_fits(series)
        needed, found = self.bundle.config.model.context_length, len(series.values)
        if found < needed:
            problem = f"{_named(series)} needs {needed} points, has {found}"
            raise DataError(Code.LENGTH, problem, fix="give a longer history, or train with a shorter context_length")
        scaler = self.scaler_of(series)
        times = series.times[-needed:]
        return self.as_seen(scaler.anomalies(self.in_model_order(series)[-needed:], times), times), scaler


def compiled(network: nn.Module) -> Callable[[torch.Tensor], Outputs]:
    """``network`` as compiled by torch, its weights taken for constants; int8 products become oneDNN's kernels.

    Compiling happens at the first call with each shape and needs a C++ compiler; a call raises ``MachineError`` where
    it fails.
    """
    import torch._inductor.config as inductor  # torch's compiler takes seconds to import
    import torch.ao.quantization.fx._decomposed  # registers the operations that int8 layers compile to
    from torch._inductor.exc import InductorError

    for module in network.modules():
        if isinstance(module, Int8Linear):
            module.settle()
    compile_network = torch.compile(network, dynamic=False)  # a forecast has one size; one graph for all is slower

    def call(contexts: torch.Tensor) -> Outputs:
        try:
            with inductor.patch(freezing=True), torch.no_grad():
                outputs: Outputs = compile_network(contexts)
        except InductorError as error:
            problem = f"torch cannot compile the network: {str(error).strip().splitlines()[0][:200]}"
            raise MachineError(
                Code.ENVIRONMENT, problem, fix="install a C++ compiler, or leave --compile out"
            ) from None
        return outputs

    return call


def choose_device(device: Device) -> torch.device:
    """The torch device for ``device``.

    Raises:
        UsageError: CUDA is asked for and not there.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError(Code.USAGE, "--device cuda: this machine has no CUDA device", fix="use --device cpu")
    is_cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    return torch.device("cuda" if is_cuda else "cpu")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that memory ran out, on a device or on the host."""
    is_typed = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return is_typed or "DefaultCPUAllocator" in str(error)  # torch raises a bare RuntimeError on the CPU


def _intervals_of(bundle: Bundle, levels: Sequence[float]) -> Intervals | None:
    """The intervals of ``levels``; None where none is asked for."""
    if not levels:
        return None
    if bundle.intervals is None:
        problem = "the model has no prediction intervals: it was trained without, or by an earlier version"
        raise UsageError(Code.USAGE, problem, fix="train again with --levels")
    return bundle.intervals.only(levels)


def _numbers(outputs: torch.Tensor) -> np.ndarray:
    values: np.ndarray = outputs.double().cpu().numpy()
    return values


def _padded(batch: Sequence[np.ndarray], *, to: int) -> np.ndarray:
    """``batch`` stacked and filled up ``to`` that many rows, so that every call computes the same shapes."""
    return np.stack([*batch, *[batch[0]] * (to - len(batch))])


def _named(series: Series) -> str:
    return f"series {quoted(series.id)}" if series.id else "the series"
