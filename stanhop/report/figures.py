"""Figures of the report: SVG whose colours are variables of the page, so that they follow light and dark."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from stanhop.quantization.outliers import OutlierReport, OutputOutliers
from stanhop.report.contents import ForecastAt
from stanhop.report.residuals import ResidualChecks

# Stand-ins that no figure means: the page replaces each by one of its variables.
INK, MUTED, GRID = "#010203", "#010204", "#010205"
SERIES = tuple(f"#0102{10 + number:02x}" for number in range(6))
"""One colour for each group of runs; more share the last."""
VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--grid"} | {
    colour: f"--series-{number + 1}" for number, colour in enumerate(SERIES)
}
TRUTH, FORECAST = INK, SERIES[0]
MOST_CHANNELS = 8
MOST_OUTPUTS = 40
STYLE: dict[Any, Any] = {  # matplotlib types its keys as 300 literals
    "svg.fonttype": "none",
    "text.parse_math": False,  # a channel's name may hold dollar signs
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "text.color": INK,
    "axes.titlecolor": INK,
    "axes.labelcolor": MUTED,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "axes.edgecolor": GRID,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.5,
}
Lines = Sequence[tuple[int, Sequence[float]]]
"""The number of the group, from 0, and its values."""


def colour_of(group: int) -> str:
    """The stand-in for the colour of a group of runs."""
    return SERIES[min(group, len(SERIES) - 1)]


def step_figure(lines: Mapping[str, Lines]) -> Markup:
    """Errors by step of the horizon, one panel a metric."""

    def draw(figure: Figure) -> None:
        for axes, (metric, each) in zip(_row(figure, len(lines)), lines.items(), strict=True):
            for group, values in each:
                axes.plot(range(1, len(values) + 1), values, color=colour_of(group), alpha=0.85)
            axes.set(title=metric, xlabel="step of the horizon")
            axes.margins(x=0.02)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.set_ylim(bottom=0)

    return as_svg(draw, size=(9.5, 2.8), label="Errors by step of the horizon")


def channel_figure(channels: Sequence[str], values: Mapping[str, Sequence[tuple[int, Sequence[float]]]]) -> Markup:
    """Errors by channel, a point for each group, one panel a metric."""

    def draw(figure: Figure) -> None:
        places = np.arange(len(channels))
        panels = _row(figure, len(values), share_y=True)
        for axes, (metric, groups) in zip(panels, values.items(), strict=True):
            for row, (group, errors) in enumerate(groups):
                beside = 0.5 * ((row + 0.5) / len(groups) - 0.5)
                axes.plot(errors, places + beside, "o", color=colour_of(group), markersize=5)
            axes.set(title=metric, yticks=places, yticklabels=channels)
            axes.set_xlim(left=0)
            axes.grid(visible=False, axis="x")
        panels[0].set_ylim(len(channels) - 0.5, -0.5)

    return as_svg(draw, size=(9.5, 0.9 + 0.3 * len(channels)), label="Errors by channel")


def forecast_figure(forecasts: Sequence[ForecastAt], channels: Sequence[str], *, name: str) -> Markup:
    """Forecasts at several origins against what came true: a column an origin, a row a channel (the first eight)."""
    shown = list(channels[:MOST_CHANNELS])

    def draw(figure: Figure) -> None:
        grid = figure.subplots(len(shown), len(forecasts), squeeze=False, sharey="row")
        for column, each in enumerate(forecasts):
            for row, name in enumerate(shown):
                _draw_forecast(grid[row, column], each, row)
                if column == 0:
                    grid[row, column].set_ylabel(name)
                grid[row, column].tick_params(labelbottom=row == len(shown) - 1)
            grid[0, column].set_title(f"from {each.origin_time:%Y-%m-%d %H:%M}")

    return as_svg(draw, size=(9.5, 0.6 + 1.15 * len(shown)), label=f"Forecasts of {name} and what came true")


def worst_figure(forecasts: Sequence[ForecastAt], channels: Sequence[str], *, name: str) -> Markup:
    """The worst windows, each in the channel that was furthest off compared with how much it moves."""

    def draw(figure: Figure) -> None:
        for axes, each in zip(_row(figure, len(forecasts)), forecasts, strict=True):
            truth = each.truth[-len(each.forecast) :]
            spread = each.truth.std(axis=0)
            errors = np.square(truth - each.forecast).mean(axis=0) / np.where(spread > 0, np.square(spread), 1)
            place = int(np.argmax(errors))
            _draw_forecast(axes, each, place)
            axes.set_title(f"{channels[place]}, {each.origin_time:%Y-%m-%d %H:%M}")

    return as_svg(draw, size=(9.5, 2.4), label=f"The windows that {name} forecast worst")


def residual_figure(checks: ResidualChecks, *, name: str) -> Markup:
    """Mean by step, autocorrelation one step ahead, and quantiles against a Gaussian's."""

    def draw(figure: Figure) -> None:
        bias, correlation, quantiles = _row(figure, 3)
        steps = np.arange(1, len(checks.mean_by_step) + 1)
        below, above = (checks.mean_by_step + sign * checks.sd_by_step for sign in (-1, 1))
        bias.fill_between(steps, below, above, color=SERIES[0], alpha=0.18, linewidth=0)
        bias.plot(steps, checks.mean_by_step, color=SERIES[0])
        bias.axhline(0, color=MUTED, linewidth=0.8)
        bias.set(title="mean ± deviation by step", xlabel="step of the horizon")
        bias.xaxis.set_major_locator(MaxNLocator(integer=True))
        lags = np.arange(1, len(checks.autocorrelation) + 1)
        correlation.axhspan(-checks.band, checks.band, color=MUTED, alpha=0.15, linewidth=0)
        correlation.vlines(lags, 0, checks.autocorrelation, color=SERIES[0], linewidth=1.4)
        correlation.axhline(0, color=MUTED, linewidth=0.8)
        correlation.set(title="autocorrelation, one step ahead", xlabel="lag in steps")
        ends = [checks.normal_quantiles[0], checks.normal_quantiles[-1]]
        quantiles.plot(ends, ends, color=MUTED, linewidth=0.8)
        quantiles.plot(checks.normal_quantiles, checks.quantiles, "o", color=SERIES[0], markersize=2.5)
        quantiles.set(title="quantiles, standardised", xlabel="of a Gaussian")

    return as_svg(draw, size=(9.5, 2.7), label=f"Residual checks of {name}")


def outlier_figure(report: OutlierReport, *, name: str) -> Markup:
    """Inf-norm and kurtosis of the blocks, feed-forward parts and norms, in the order they run."""
    chosen = [each for each in report.outputs if set(each.counted) & {"blocks", "feedforward", "norms"}]
    shown = sorted(chosen, key=lambda each: -each.inf_norm)[:MOST_OUTPUTS]
    outputs = [each for each in chosen if each in shown]

    def draw(figure: Figure) -> None:
        norm, kurtosis = _row(figure, 2, share_y=True)
        places = np.arange(len(outputs))
        colours = [_colour_of_output(each) for each in outputs]
        norm.barh(places, [each.inf_norm for each in outputs], color=colours, height=0.7)
        norm.set(title="inf-norm, mean over windows", yticks=places, yticklabels=[each.name for each in outputs])
        kurtosis.barh(places, [each.kurtosis_scale_free for each in outputs], color=colours, height=0.7)
        kurtosis.axvline(3, color=INK, linewidth=0.8, linestyle=":")
        kurtosis.set_title("kurtosis; dotted: a Gaussian")
        norm.set_ylim(len(outputs) - 0.4, -0.6)
        for axes in (norm, kurtosis):
            axes.grid(visible=False, axis="y")

    return as_svg(draw, size=(9.5, 0.8 + 0.2 * len(outputs)), label=f"Outliers of {name} by layer")


def loss_figure(curves: Sequence[tuple[int, Sequence[float], Sequence[float]]]) -> Markup:
    """Training and validation loss of each run, by epoch."""

    def draw(figure: Figure) -> None:
        panels = _row(figure, 2, share_y=True)
        training = [(group, values) for group, values, _ in curves]
        validation = [(group, values) for group, _, values in curves]
        titles = ("training loss", "validation loss")
        for axes, title, lines in zip(panels, titles, (training, validation), strict=True):
            for group, values in lines:
                marker = "o" if len(values) < 30 else ""
                epochs = range(1, len(values) + 1)
                axes.plot(epochs, values, color=colour_of(group), marker=marker, markersize=3.5, alpha=0.85)
            axes.set(title=title, xlabel="epoch")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))

    return as_svg(draw, size=(9.5, 2.8), label="Losses by epoch")


def alpha_figure(alphas: Mapping[str, Sequence[tuple[int, Sequence[float]]]]) -> Markup:
    """The learned alpha of each head, a row a layer: 1 is softmax, 2 sparsemax."""

    def draw(figure: Figure) -> None:
        (axes,) = _row(figure, 1)
        for place, groups in enumerate(alphas.values()):
            for group, values in groups:
                axes.plot(values, [place] * len(values), "o", color=colour_of(group), markersize=5, alpha=0.7)
        axes.set(yticks=range(len(alphas)), yticklabels=list(alphas), xlabel="alpha")
        axes.set_ylim(len(alphas) - 0.5, -0.5)
        for end in (1, 2):
            axes.axvline(end, color=MUTED, linewidth=0.8, linestyle=":")

    return as_svg(draw, size=(9.5, 0.9 + 0.28 * len(alphas)), label="Learned alphas by layer")


def as_svg(draw: Callable[[Figure], None], *, size: tuple[float, float], label: str) -> Markup:
    """The figure that ``draw`` fills, ``size`` inches, as an element of the page; ``label`` says what it is."""
    with _styled(label):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        content = io.StringIO()
        figure.savefig(content, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = content.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg[^>]*?) (?:width|height)="[^"]*"', r"\1", text)
    text = re.sub(r'(<svg[^>]*?) (?:width|height)="[^"]*"', r"\1", text)
    text = re.sub(
        r'<g id="[A-Za-z]+[_.0-9A-Za-z]*">', "<g>", text
    )  # numbered anew in each figure: not unique on a page
    for stand_in, variable in VARIABLES.items():
        text = text.replace(stand_in, f"var({variable})")
    head = Markup('<svg role="img" aria-label="{}" ').format(label)
    return Markup(text.replace("<svg ", str(head), 1))


@contextmanager
def _styled(label: str) -> Iterator[None]:
    # A salt for each figure: names of its clip paths and markers must not meet those of another.
    with mpl.rc_context({**STYLE, "svg.hashsalt": label}):
        yield


def _row(figure: Figure, number: int, *, share_y: bool = False) -> list[Axes]:
    axes: list[Axes] = list(figure.subplots(1, number, squeeze=False, sharey=share_y)[0])
    return axes


def _draw_forecast(axes: Axes, each: ForecastAt, place: int) -> None:
    """One channel of a forecast: what came true, the intervals from wide to narrow, the forecast."""
    times = each.times.tz_localize(None)  # matplotlib would show a time zone's times in UTC
    steps = len(each.forecast)
    for number, (lower, upper) in enumerate(reversed(list(each.bounds.values()))):
        alpha = 0.14 + 0.12 * number
        axes.fill_between(times[-steps:], lower[:, place], upper[:, place], color=FORECAST, alpha=alpha, linewidth=0)
    origin: Any = times[-steps]  # axvline takes whatever the axis takes, its type says float
    axes.axvline(origin, color=MUTED, linewidth=0.8, linestyle=":")
    axes.plot(times, each.truth[:, place], color=TRUTH, linewidth=1.0, alpha=0.75)
    axes.plot(times[-steps:], each.forecast[:, place], color=FORECAST, linewidth=1.7)
    axes.margins(x=0.01)
    locator = AutoDateLocator(minticks=2, maxticks=5)  # type: ignore[no-untyped-call]  # matplotlib's stubs leave it untyped
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, show_offset=False))  # type: ignore[no-untyped-call]  # as above
    axes.yaxis.set_major_locator(MaxNLocator(4))


def _colour_of_output(output: OutputOutliers) -> str:
    kinds = {"blocks": SERIES[1], "feedforward": SERIES[3], "norms": SERIES[0]}
    return next(kinds[counted] for counted in output.counted if counted in kinds)
