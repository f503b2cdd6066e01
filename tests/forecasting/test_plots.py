"""Plots: what they show, and that they leave matplotlib as it was."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.image import imread

from stanhop.forecasting import plots
from stanhop.forecasting.bundle import Bundle
from stanhop.forecasting.forecaster import Forecaster
from stanhop.forecasting.plots import forecast_plot, forecast_plots, loss_plot
from stanhop.series.frame import Series


def pixels(content: bytes) -> np.ndarray:
    assert content.startswith(b"\x89PNG")
    return np.round(255 * imread(io.BytesIO(content))[..., :3]).astype(int)


def has_colour(content: bytes, colour: str) -> bool:
    wanted = np.array([int(colour[start : start + 2], 16) for start in (1, 3, 5)])
    return bool((pixels(content) == wanted).all(axis=-1).any())


def test_a_forecast_plot_shows_history_and_forecast(bundle: Bundle, make_series: Callable[..., Series]) -> None:
    series = make_series(101)
    content = forecast_plot(series, Forecaster(bundle).forecast(series))
    assert has_colour(content, plots.HISTORY_COLOUR)
    assert has_colour(content, plots.FORECAST_COLOUR)


def test_a_plot_grows_with_its_channels_up_to_eight(
    make_bundle: Callable[..., Bundle], make_series: Callable[..., Series]
) -> None:
    heights = []
    for count in (1, 8, 13):
        channels = tuple(f"c{index}" for index in range(count))
        series = make_series(59, channels=channels)
        forecast = Forecaster(make_bundle(channels=channels)).forecast(series)
        heights.append(len(pixels(forecast_plot(series, forecast))))
    assert heights[0] < heights[1] == heights[2]


@pytest.mark.parametrize("name", ["$x_{", "a\nb", "\x00", "名前", "x" * 300, "\\frac"])
@pytest.mark.filterwarnings("ignore:Glyph .* missing from font:UserWarning")  # the picture shows a box instead
def test_names_are_shown_as_text_whatever_they_hold(
    make_bundle: Callable[..., Bundle], make_series: Callable[..., Series], name: str
) -> None:
    series = make_series(59, channels=(name, "b"), series_id=name)
    forecast = Forecaster(make_bundle(channels=(name, "b"))).forecast(series)
    for picture in (forecast_plots([(series, forecast), (series, forecast)]), forecast_plot(series, forecast)):
        assert picture.startswith(b"\x89PNG")


@pytest.mark.parametrize("frequency", ["h", "15min", "D", "W-SUN", "MS", "YS-JAN"])
def test_every_frequency_can_be_plotted(
    make_bundle: Callable[..., Bundle], make_series: Callable[..., Series], frequency: str
) -> None:
    series = make_series(59, frequency=frequency, channels=("a",))
    forecast = Forecaster(make_bundle(frequency=frequency, channels=("a",))).forecast(series)
    assert forecast_plot(series, forecast).startswith(b"\x89PNG")


def test_the_same_forecast_gives_the_same_picture(bundle: Bundle, make_series: Callable[..., Series]) -> None:
    series = make_series(59)
    forecast = Forecaster(bundle).forecast(series)
    assert forecast_plot(series, forecast) == forecast_plot(series, forecast)


@pytest.mark.parametrize(
    ("train", "validation"), [([0.5, 0.4], [0.6, 0.5]), ([0.5], []), ([], []), ([0.5, 0.4], [float("nan"), 0.5])]
)
def test_a_loss_plot_takes_any_number_of_epochs(train: list[float], validation: list[float]) -> None:
    content = loss_plot(train, validation, loss="MAE, scaled")
    if len(train) > 1:
        assert has_colour(content, plots.HISTORY_COLOUR)


def test_a_plot_shows_a_band_for_each_level(interval_bundle: Bundle, make_series: Callable[..., Series]) -> None:
    series = make_series(101)
    shares = []
    for levels in ((), (80.0,), (80.0, 95.0)):
        picture = pixels(forecast_plot(series, Forecaster(interval_bundle, levels=levels).forecast(series)))
        red, green, blue = np.moveaxis(picture, -1, 0)
        shares.append(np.mean((red > green + 15) & (green > blue)))  # tints of the forecast's colour
    assert shares[0] < shares[1] < shares[2]
