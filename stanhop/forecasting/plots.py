"""Pictures of forecasts and of a training, as PNG bytes; without a display and without pyplot's global state."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from stanhop.forecasting.forecaster import Forecast
from stanhop.forecasting.intervals import named
from stanhop.series.frame import Series

# Blue and vermilion of Okabe & Ito's palette: told apart with every kind of colour vision, and in grey.
HISTORY_COLOUR, FORECAST_COLOUR = "#0072B2", "#D55E00"
FAINTEST, STRONGEST = 0.18, 0.4
"""Share of the forecast's colour in the band of the widest and of the narrowest level."""
MOST_PANELS = 8
SHOWN_HISTORY = 4
"""Horizons of history that stand before the forecast."""
LEAST_HISTORY = 24
"""Steps of history shown at least: a short horizon alone would show no shape."""
WIDTH, PANEL_HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 9.0, 1.7, 0.75, 0.15, 0.6, 0.45
"""Inches."""
DOTS_PER_INCH = 100
SMALL = 8
LONGEST_TITLE = 60


@dataclass(frozen=True)
class _Panel:
    """One channel of one series, before and after its end."""

    title: str
    times: pd.DatetimeIndex
    history: np.ndarray
    future_times: pd.DatetimeIndex
    forecast: np.ndarray
    bands: tuple[tuple[float, np.ndarray, np.ndarray], ...] = ()
    """Level, lower and upper bounds, ascending."""


def forecast_plot(history: Series, forecast: Forecast) -> bytes:
    """The last steps of ``history`` and the ``forecast`` after it, one panel a channel (the first 8)."""
    return forecast_plots([(history, forecast)])


def forecast_plots(pairs: Sequence[tuple[Series, Forecast]]) -> bytes:
    """Several histories with their forecasts in one picture: the first 8 channels, series by series."""
    num_channels = sum(len(history.channels) for history, _ in pairs)
    panels = _panels(pairs)
    height = TOP + PANEL_HEIGHT * len(panels) + BOTTOM
    figure = Figure(figsize=(WIDTH, height), dpi=DOTS_PER_INCH)
    # Margins of our own: automatic layout draws everything twice, and a batch may ask for thousands of pictures.
    margins = {"left": LEFT / WIDTH, "right": 1 - RIGHT / WIDTH, "bottom": BOTTOM / height, "top": 1 - TOP / height}
    grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False, gridspec_kw={**margins, "hspace": 0.3})
    for axes, panel in zip(grid[:, 0], panels, strict=True):
        _draw(axes, panel)
    lines, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="upper right", ncols=len(labels), frameon=False, fontsize=9)
    heading = _heading(pairs, num_shown=len(panels), num_channels=num_channels)
    figure.text(0.1 / WIDTH, 1 - 0.1 / height, heading, ha="left", va="top", fontsize=11)
    label_times(grid[-1, 0])
    return as_png(figure)


def loss_plot(train: Sequence[float], validation: Sequence[float], *, loss: str = "loss") -> bytes:
    """The ``loss`` of each epoch on the training and the validation rows; the best epoch is marked.

    Args:
        train: One number an epoch.
        validation: One number an epoch, as many or fewer.
        loss: What the numbers are, with their unit: the label of the axis.
    """
    figure = Figure(figsize=(7.0, 4.0), dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.subplots()
    series = (("training", train, HISTORY_COLOUR, "o"), ("validation", validation, FORECAST_COLOUR, "s"))
    for label, values, colour, marker in series:
        epochs = np.arange(1, len(values) + 1)
        axes.plot(epochs, values, color=colour, marker=marker, markersize=4, label=label)
    if len(validation) and np.isfinite(validation).any():
        best = int(np.nanargmin(validation))
        axes.axvline(best + 1, color="0.6", linestyle=":", label=f"best epoch: {best + 1} ({validation[best]:.4g})")
    axes.set(xlabel="epoch", ylabel=loss, title="Loss per epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    tidy(axes)
    axes.legend(frameon=False)
    return as_png(figure)


def _panels(pairs: Sequence[tuple[Series, Forecast]]) -> list[_Panel]:
    panels: list[_Panel] = []
    for history, forecast in pairs:
        shown = max(SHOWN_HISTORY * len(forecast.times), LEAST_HISTORY)
        for name in history.channels[: MOST_PANELS - len(panels)]:
            past = history.values[-shown:, history.channels.index(name)]
            future = forecast.values[:, forecast.channels.index(name)]
            title = name if len(pairs) == 1 else f"{history.id} · {name}"
            panels.append(
                _Panel(_shortened(title), history.times[-shown:], past, forecast.times, future, _bands(forecast, name))
            )
    return panels


def _bands(forecast: Forecast, channel: str) -> tuple[tuple[float, np.ndarray, np.ndarray], ...]:
    place = forecast.channels.index(channel)
    bounds = zip(forecast.levels, forecast.lower[..., place], forecast.upper[..., place], strict=True)
    return tuple(bounds) if forecast.levels else ()


def _tint(place: int, count: int) -> tuple[float, ...]:
    """The colour of the band that is number ``place`` of ``count``, from the narrowest."""
    share = FAINTEST + (STRONGEST - FAINTEST) * (count - 1 - place) / max(1, count - 1)
    return tuple(1 - share * (1 - part) for part in to_rgb(FORECAST_COLOUR))


def _draw(axes: Axes, panel: _Panel) -> None:
    """History, and the forecast joined to its last point; a line between the two says where the known ends."""
    # Naive local times: matplotlib would show those of a time zone in UTC.
    times, future_times = panel.times.tz_localize(None), panel.future_times.tz_localize(None)
    axes.plot(times, panel.history, color=HISTORY_COLOUR, linewidth=1.2, label="history")
    joined_times = times[-1:].append(future_times)
    joined = np.concatenate([panel.history[-1:], panel.forecast])
    axes.plot(joined_times, joined, color=FORECAST_COLOUR, linewidth=1.8, label="forecast")
    for place, (level, lower, upper) in reversed(list(enumerate(panel.bands))):  # the widest lies at the bottom
        low, high = (np.concatenate([panel.history[-1:], bound]) for bound in (lower, upper))
        look: dict[str, Any] = {"color": _tint(place, len(panel.bands)), "linewidth": 0, "zorder": 0.5}
        axes.fill_between(joined_times, low, high, label=f"{named(level)} %", **look)
    if len(panel.forecast) == 1:
        axes.plot(future_times, panel.forecast, color=FORECAST_COLOUR, marker="o")
    end: Any = times[-1]  # axvline takes whatever the axis takes, its type says float
    axes.axvline(end, color="0.6", linewidth=0.8, linestyle=":")
    axes.set_title(panel.title, fontsize=9, loc="left", pad=3, parse_math=False)  # a name may hold dollar signs
    axes.margins(x=0.01)
    tidy(axes)


def _heading(pairs: Sequence[tuple[Series, Forecast]], *, num_shown: int, num_channels: int) -> str:
    history, forecast = pairs[0]
    name = f" of {_shortened(history.id)}" if len(pairs) == 1 and history.id else ""
    steps = len(forecast.times)
    text = f"Forecast{name}: {steps} step{'s' * (steps != 1)}, frequency {history.frequency}"
    zone = "" if history.times.tz is None else f", times of {history.times.tz}"
    rest = f" (first {num_shown} of {num_channels} channels)" if num_channels > num_shown else ""
    return (text + zone + rest).replace("$", r"\$")


def label_times(axes: Axes) -> None:
    """Label the horizontal axis with few, short times."""
    locator = AutoDateLocator(minticks=4, maxticks=10)  # type: ignore[no-untyped-call]  # matplotlib's stubs leave it untyped
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]  # as above


def tidy(axes: Axes) -> None:
    """Give ``axes`` the look that all our plots share."""
    axes.grid(color="0.92")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=SMALL)
    for axis in (axes.xaxis, axes.yaxis):  # the month below the days, the power of ten above the numbers
        axis.get_offset_text().set_fontsize(SMALL)


def _shortened(text: str) -> str:
    printable = "".join(character if character.isprintable() else "�" for character in text)
    return printable if len(printable) <= LONGEST_TITLE else f"{printable[: LONGEST_TITLE - 1]}…"


def as_png(figure: Figure) -> bytes:
    """The PNG file of ``figure``."""
    FigureCanvasAgg(figure)
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})  # the same bytes with every patch release
    return content.getvalue()
