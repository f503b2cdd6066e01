"""From a history to its forecast: original units, the history's calendar, one series apart from the others."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from stanhop.errors import Code, DataError, MachineError, UsageError
from stanhop.forecasting.bundle import Bundle
from stanhop.forecasting.forecaster import Forecast, Forecaster
from stanhop.model import int8
from stanhop.model.network import STanHopNet
from stanhop.quantization.int8 import quantize_bundle
from stanhop.series.frame import Series
from stanhop.series.scaling import Scaler

CONTEXT, STEPS = 37, 11


@pytest.fixture(scope="module")
def forecast_by_seed(bundle: Bundle, make_series: Callable[..., Series]) -> Callable[..., list[Forecast]]:
    """Forecasts of the series with the given seeds and scales; their ids are the seeds."""

    def run(seeds: Sequence[int], scales: Sequence[float], *, batch_size: int) -> list[Forecast]:
        series = [make_series(CONTEXT, series_id=str(seed), seed=seed) for seed in seeds]
        scaled = [
            Series(one.id, one.times, one.values * scale, one.channels)
            for one, scale in zip(series, scales, strict=True)
        ]
        return Forecaster(bundle, batch_size=batch_size).forecast_all(scaled)

    return run


def tail(series: Series, steps: int) -> Series:
    return Series(series.id, series.times[-steps:], series.values[-steps:], series.channels)


class LastValue(nn.Module):
    """Forecasts the last value, and remembers what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.contexts: list[Tensor] = []

    def forward(self, context: Tensor) -> Tensor:
        self.contexts.append(context)
        return context[:, -1:].expand(-1, STEPS, -1) + self.weight.to(context.dtype)


def test_a_forecast_is_in_original_units_and_follows_the_history(
    bundle: Bundle, make_series: Callable[..., Series]
) -> None:
    series = make_series(101)
    forecast = Forecaster(replace(bundle, network=LastValue())).forecast(series)
    assert forecast.values.shape == (STEPS, 3)
    np.testing.assert_allclose(forecast.values, np.repeat(series.values[-1:], STEPS, axis=0), rtol=1e-12)
    assert forecast.times[0] == series.times[-1] + series.times.freq
    assert forecast.channels == series.channels
    assert forecast.id == series.id


def test_the_network_gets_the_last_context_in_scaled_units_and_float64(
    bundle: Bundle, make_series: Callable[..., Series]
) -> None:
    series = make_series(101)
    forecaster = Forecaster(replace(bundle, network=LastValue()))
    forecaster.forecast(series)
    (context,) = forecaster._network.contexts  # the stand-in above
    assert context.dtype == torch.float64
    np.testing.assert_array_equal(context[0].numpy(), bundle.scalers[""].transform(series.values[-CONTEXT:]))


class Nothing(nn.Module):
    def forward(self, context: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(context[:, :STEPS])


def test_a_network_that_expects_nothing_unusual_forecasts_what_is_usual(
    seasonal_bundle: Bundle, make_series: Callable[..., Series]
) -> None:
    series = make_series(101)
    forecast = Forecaster(replace(seasonal_bundle, network=Nothing())).forecast(series)
    scaler = seasonal_bundle.scalers[""]
    expected = scaler.inverse(scaler.usual(forecast.times))
    np.testing.assert_allclose(forecast.values, expected, rtol=1e-12)
    assert expected.std(axis=0).min() > 0.1 * scaler.deviation.min()


def test_the_network_gets_what_is_unusual(seasonal_bundle: Bundle, make_series: Callable[..., Series]) -> None:
    series = make_series(101)
    forecaster = Forecaster(replace(seasonal_bundle, network=LastValue()))
    forecaster.forecast(series)
    (context,) = forecaster._network.contexts
    scaler = seasonal_bundle.scalers[""]
    unusual = scaler.transform(series.values) - scaler.usual(series.times)
    np.testing.assert_allclose(context[0].numpy(), unusual[-CONTEXT:], rtol=1e-12, atol=1e-12)


def test_a_series_the_model_has_not_seen_has_a_profile_of_its_own(
    bundle: Bundle, seasonal_bundle: Bundle, make_series: Callable[..., Series]
) -> None:
    stranger = make_series(24 * 15, series_id="stranger", start="2021-01-04", seed=7)
    own = Forecaster(seasonal_bundle).scaler_of(stranger)
    assert own.to_plain() == seasonal_bundle.scalers[""].to_plain()
    assert Forecaster(bundle).scaler_of(stranger).profile is None
    assert Forecaster(seasonal_bundle).scaler_of(stranger, rows=slice(40)).profile is None


def test_values_before_the_context_change_nothing(bundle: Bundle, make_series: Callable[..., Series]) -> None:
    series = make_series(101)
    forecaster = Forecaster(bundle)
    expected = forecaster.forecast(series).values
    assert np.array_equal(forecaster.forecast(tail(series, CONTEXT)).values, expected)
    series.values[-CONTEXT - 1] += 1e9
    assert np.array_equal(forecaster.forecast(series).values, expected)


@pytest.mark.parametrize("order", [(2, 0, 1), (0, 1, 2), (2, 1, 0)])
def test_channels_are_found_by_name_and_come_back_in_the_order_of_the_input(
    bundle: Bundle, make_series: Callable[..., Series], order: tuple[int, ...]
) -> None:
    series = make_series(59)
    moved = Series("", series.times, series.values[:, order], tuple(series.channels[index] for index in order))
    forecaster = Forecaster(bundle)
    forecast = forecaster.forecast(moved)
    assert forecast.channels == moved.channels
    assert np.array_equal(forecast.values, forecaster.forecast(series).values[:, order])


def test_missing_and_unknown_channels_are_named(bundle: Bundle, make_series: Callable[..., Series]) -> None:
    series = make_series(59, channels=("flow", "snow", "wind"))
    with pytest.raises(DataError, match=r"lacks 'level', 'rain' and also has 'snow', 'wind'.*flow, level") as caught:
        Forecaster(bundle).forecast(series)
    assert caught.value.code == Code.CHANNELS


def test_another_frequency_is_refused_naming_both(bundle: Bundle, make_series: Callable[..., Series]) -> None:
    with pytest.raises(DataError, match="has frequency 15min, the model was trained on h") as caught:
        Forecaster(bundle).forecast(make_series(59, frequency="15min"))
    assert caught.value.code == Code.FREQUENCY


def test_a_history_needs_one_context(bundle: Bundle, make_series: Callable[..., Series]) -> None:
    forecaster = Forecaster(bundle)
    for steps in (CONTEXT, CONTEXT + 1):
        forecaster.forecast(make_series(steps))
    with pytest.raises(DataError, match="series 'a' needs 37 points, has 36") as caught:
        forecaster.forecast(make_series(CONTEXT - 1, series_id="a"))
    assert caught.value.code == Code.LENGTH


def test_a_series_has_the_scaler_of_its_id_and_a_new_one_that_of_its_history(
    make_bundle: Callable[..., Bundle], make_series: Callable[..., Series]
) -> None:
    forecaster = Forecaster(make_bundle(ids=("known", "other")))
    assert forecaster.scaler_of(make_series(series_id="known")) is forecaster.bundle.scalers["known"]
    new = make_series(series_id="new")
    np.testing.assert_array_equal(forecaster.scaler_of(new).mean, Scaler.fit(new.values).mean)


@pytest.mark.parametrize("value", [0.0, -0.0, 1e-30, 7.0, 1e30])
def test_a_constant_series_has_a_finite_forecast(
    bundle: Bundle, make_series: Callable[..., Series], value: float
) -> None:
    series = make_series(59, series_id="new")
    series.values[:] = value
    assert np.isfinite(Forecaster(bundle).forecast(series).values).all()


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1.0, 1e12, 1e29])
@pytest.mark.parametrize("place", [0, 50, -1])
def test_one_spike_in_a_constant_series_of_any_magnitude_has_a_finite_forecast(
    scale: float, place: int, bundle: Bundle, make_series: Callable[..., Series]
) -> None:
    series = make_series(series_id="new")  # so that its scaler is its own
    series.values[:] = scale
    series.values[place] = 7 * scale
    forecast = Forecaster(bundle).forecast(series)
    assert np.isfinite(forecast.values).all()
    assert np.abs(forecast.values).max() < 1e4 * scale


def test_a_large_level_costs_no_digits(bundle: Bundle, make_series: Callable[..., Series]) -> None:
    series = make_series(59, series_id="new")
    lifted = Series("new", series.times, series.values + 2.0**40, series.channels)
    forecaster = Forecaster(bundle)
    difference = forecaster.forecast(lifted).values - 2.0**40 - forecaster.forecast(series).values
    assert np.abs(difference).max() < 1e-2  # float32 would be off by 65,536


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_forecast_that_is_not_finite_is_never_returned(
    bundle: Bundle, make_series: Callable[..., Series], value: float
) -> None:
    network = LastValue()
    network.weight.data.fill_(value)
    forecaster = Forecaster(replace(bundle, network=network))
    with pytest.raises(DataError, match="the forecast of series 'a' holds NaN or infinite values"):
        forecaster.forecast(make_series(series_id="a"))


def test_dropout_is_off_and_the_bundle_is_not_changed(
    make_bundle: Callable[..., Bundle], make_series: Callable[..., Series]
) -> None:
    bundle = make_bundle()
    bundle.network.train()
    forecaster = Forecaster(bundle)
    series = make_series()
    assert np.array_equal(forecaster.forecast(series).values, forecaster.forecast(series).values)
    assert bundle.network.training


@given(
    num_series=st.integers(1, 9),
    batch_size=st.integers(1, 5),
    exponents=st.lists(st.integers(-3, 9), min_size=9, max_size=9),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=40)
def test_what_other_series_hold_does_not_change_a_forecast(
    forecast_by_seed: Callable[..., Forecast], num_series: int, batch_size: int, exponents: list[int], seed: int
) -> None:
    scales = [10.0**exponent for exponent in exponents[:num_series]]
    forecasts = forecast_by_seed(range(num_series), scales, batch_size=batch_size)
    assert [forecast.id for forecast in forecasts] == [str(number) for number in range(num_series)]
    kept = seed % num_series
    others = [number if number == kept else number + 100 for number in range(num_series)]
    again = forecast_by_seed(others, scales, batch_size=batch_size)
    assert np.array_equal(again[kept].values, forecasts[kept].values)
    (alone,) = forecast_by_seed([kept], [scales[kept]], batch_size=1)
    np.testing.assert_allclose(forecasts[kept].values, alone.values, rtol=1e-5, atol=1e-5 * np.abs(alone.values).max())


def test_batches_always_have_the_same_size(bundle: Bundle, make_series: Callable[..., Series]) -> None:
    forecaster = Forecaster(replace(bundle, network=LastValue()), batch_size=4)
    forecasts = forecaster.forecast_all([make_series(CONTEXT, seed=seed) for seed in range(6)])
    assert [len(context) for context in forecaster._network.contexts] == [4, 4]
    assert {forecast.batch_size for forecast in forecasts} == {4}


class Greedy(LastValue):
    """Runs out of memory for more than ``most`` series at once."""

    def __init__(self, most: int, error: Exception) -> None:
        super().__init__()
        self.most, self.error, self.sizes = most, error, []

    def forward(self, context: Tensor) -> Tensor:
        self.sizes.append(len(context))
        if len(context) > self.most:
            # Nothing may still hold the failed attempt when the next one starts.
            assert sys.exc_info() == (None, None, None)
            raise self.error
        return super().forward(context)


OUT_OF_MEMORY = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["host", "cuda", "cpu"])
def test_batches_are_halved_when_memory_does_not_suffice(
    bundle: Bundle, make_series: Callable[..., Series], error: Exception
) -> None:
    series = [make_series(CONTEXT, seed=seed) for seed in range(7)]
    forecaster = Forecaster(replace(bundle, network=Greedy(2, error)), batch_size=8)
    forecasts = forecaster.forecast_all(series)
    assert forecaster._network.sizes == [8, 4, 2, 2, 2, 2]
    assert {forecast.batch_size for forecast in forecasts} == {2}
    for one, forecast in zip(series, forecasts, strict=True):
        np.testing.assert_allclose(forecast.values[0], one.values[-1])


def test_memory_that_does_not_suffice_for_one_series_is_an_error_of_the_machine(
    bundle: Bundle, make_series: Callable[..., Series]
) -> None:
    forecaster = Forecaster(replace(bundle, network=Greedy(0, MemoryError())), batch_size=2)
    with pytest.raises(MachineError, match="memory does not suffice to forecast series 'a'") as caught:
        forecaster.forecast_all([make_series(CONTEXT, series_id="a")])
    assert caught.value.exit_code == 4


def test_other_errors_of_the_network_are_not_taken_for_memory(
    bundle: Bundle, make_series: Callable[..., Series]
) -> None:
    forecaster = Forecaster(replace(bundle, network=Greedy(0, RuntimeError("a defect"))), batch_size=2)
    with pytest.raises(RuntimeError, match="a defect"):
        forecaster.forecast(make_series(CONTEXT))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_an_error_of_usage(bundle: Bundle) -> None:
    with pytest.raises(UsageError, match="no CUDA device"):
        Forecaster(bundle, device="cuda")
    assert Forecaster(bundle, device="auto").device == torch.device("cpu")


FORBIDDEN = ("socket.connect", "socket.getaddrinfo", "pickle.find_class", "subprocess.Popen", "os.system")
SCRIPT = f"""
import json, os, sys
seen, written = [], []
def hook(event, arguments):
    if event in {FORBIDDEN!r}:
        seen.append([event, str(arguments)])
    if event == "open" and isinstance(arguments[0], str) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
        written.append(arguments[0])
sys.addaudithook(hook)
sys.dont_write_bytecode = True
from pathlib import Path
from stanhop.forecasting.batch import forecast_files
model, source, output = map(Path, sys.argv[1:])
forecast_files(model, [source], output)
heavy = {{"pytorch_lightning", "mlflow", "sktime", "matplotlib", "sympy"}} & set(sys.modules)
forecasting = (list(seen), list(written), sorted(heavy))
from stanhop.forecasting.plots import loss_plot
loss_plot([1.0, 0.5], [1.0, 0.7])
print(json.dumps([*forecasting, "matplotlib.pyplot" in sys.modules]))
"""


def test_forecasting_opens_no_socket_and_no_pickle_and_imports_nothing_heavy(
    bundle_path: Path, write_wide: Callable[..., Path], tmp_path: Path
) -> None:
    source = write_wide(tmp_path / "in" / "a.csv")
    output = tmp_path / "out" / "a.csv"
    command = [sys.executable, "-W", "error", "-c", SCRIPT, str(bundle_path), str(source), str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    seen, written, heavy, has_pyplot = json.loads(done.stdout)
    assert seen == []
    assert heavy == []
    assert [path for path in written if not path.startswith(str(output.parent))] == []
    assert output.is_file()
    assert not has_pyplot  # a plot leaves the global state of matplotlib alone


ignores_compiler_warnings = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"
)


@pytest.mark.slow
@ignores_compiler_warnings
def test_a_compiled_network_forecasts_the_same_but_for_rounding(bundle: Bundle, make_series: Any) -> None:
    check_compiled_forecast(bundle, make_series())
    for activations in ("static", "dynamic"):
        check_compiled_forecast(quantized(bundle, activations), make_series())


@pytest.mark.slow
@ignores_compiler_warnings
def test_so_does_a_compiled_static_network_where_int8_products_would_saturate(
    bundle: Bundle, make_series: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(int8, "has_kernels", lambda: False)
    check_compiled_forecast(quantized(bundle, "static"), make_series())


def quantized(bundle: Bundle, activations: int8.Activations) -> Bundle:
    calibration = [torch.randn(7, 37, 3, generator=torch.Generator().manual_seed(1))]
    return quantize_bundle(bundle, int8.Quantization("w8a8", activations), calibration=calibration)


def check_compiled_forecast(bundle: Bundle, series: Series) -> None:
    expected = Forecaster(bundle, device="cpu").forecast(series).values
    compiled = Forecaster(bundle, device="cpu", is_compiled=True).forecast(series).values
    np.testing.assert_allclose(compiled, expected, rtol=1e-3, atol=1e-2 * np.abs(expected).max())


def test_a_network_that_cannot_be_compiled_is_a_matter_of_the_machine(
    bundle: Bundle, make_series: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._inductor.exc import InductorError

    def fail(_network: object, **_options: object) -> Any:
        def call(_contexts: object) -> None:
            raise InductorError(RuntimeError("no C++ compiler"), None)

        return call

    monkeypatch.setattr(torch, "compile", fail)
    with pytest.raises(MachineError, match=r"cannot compile the network: .*; install a C\+\+ compiler, or leave"):
        Forecaster(bundle, device="cpu", is_compiled=True).forecast(make_series())


def test_bounds_of_a_model_that_is_told_the_time_are_as_wide_as_its_channels_move(
    interval_bundle: Bundle, make_series: Callable[..., Series]
) -> None:
    series, config, intervals = make_series(CONTEXT), interval_bundle.config, interval_bundle.intervals
    model = config.model.model_copy(update={"joint_rank": 2, "time_features": ("day", "week")})
    network = STanHopNet(model, interval_bundle.num_channels).eval()
    told = replace(interval_bundle, config=config.model_copy(update={"model": model}), network=network)
    forecast = Forecaster(told, levels=(80.0, 95.0)).forecast(series)
    assert intervals is not None
    scaler = told.scalers[""]
    scale = scaler.transform(series.values).std(axis=0) + intervals.floor
    expected = forecast.values + scaler.deviation * scale * intervals.upper
    np.testing.assert_allclose(forecast.upper, expected, rtol=1e-6)


def test_bounds_are_in_original_units_and_in_the_history_s_order_of_channels(
    interval_bundle: Bundle, make_series: Callable[..., Series]
) -> None:
    series = make_series(CONTEXT)
    swapped = Series("", series.times, np.ascontiguousarray(series.values[:, ::-1]), series.channels[::-1])
    forecast = Forecaster(interval_bundle, levels=(95.0, 80.0)).forecast(series)
    assert forecast.levels == (80.0, 95.0)
    intervals, scaler = interval_bundle.intervals, interval_bundle.scalers[""]
    assert intervals is not None
    scale = scaler.transform(series.values).std(axis=0) + intervals.floor
    expected = forecast.values + scaler.deviation * scale * intervals.upper
    np.testing.assert_allclose(forecast.upper, expected, rtol=1e-6)
    assert (forecast.lower[1] < forecast.lower[0]).all()
    other = Forecaster(interval_bundle, levels=(80.0, 95.0)).forecast(swapped)
    np.testing.assert_allclose(other.lower[..., ::-1], forecast.lower)
    together = Forecaster(interval_bundle, levels=(80.0, 95.0)).forecast_all([series, swapped])
    np.testing.assert_allclose(together[1].upper, other.upper, rtol=1e-4)


def test_intervals_that_the_model_does_not_have_are_refused(bundle: Bundle, interval_bundle: Bundle) -> None:
    with pytest.raises(UsageError, match="no interval of 90 %, only of 80, 95"):
        Forecaster(interval_bundle, levels=(90.0,))
    with pytest.raises(UsageError, match=r"no prediction intervals.*; train again with --levels"):
        Forecaster(bundle, levels=(80.0,))
