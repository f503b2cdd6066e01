"""One picture a group of shapes: how many times as long as ours every other way takes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from stanhop.benchmarks.kernels.document import Document, rows_of
from stanhop.benchmarks.kernels.peers import OURS

# Okabe & Ito's palette: told apart with every kind of colour vision.
COLOURS = {"forward": "#0072B2", "backward": "#E69F00", "both": "#009E73"}
FAINT = 0.35
"""Opacity of a way that counts for no win: out of tolerance, or computing something else."""
WIDTH, BAR, MARGIN = 9.0, 0.42, 0.9
"""Inches: width, height a way, and what title and axis take."""
LEFT = 0.27
DOTS_PER_INCH = 100


def plots_of(document: Document) -> dict[str, bytes]:
    """A PNG a group and cache, by name; a panel a case, a bar a way and phase, whiskers from 20 to 80 %."""
    groups: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for row in rows_of(document):
        if row["peer"] != OURS and all(row["times_ours"].values()):
            name = f"{row['case'].split('/')[0]}-{row['cache']}"
            groups.setdefault(name, {}).setdefault(row["case"], []).append(row)
    return {name: _picture(panels) for name, panels in groups.items()}


def _picture(panels: Mapping[str, Sequence[Mapping[str, Any]]]) -> bytes:
    heights = [MARGIN + BAR * len(rows) for rows in panels.values()]
    figure = Figure(figsize=(WIDTH, sum(heights)), dpi=DOTS_PER_INCH)
    grid = figure.subplots(len(panels), 1, squeeze=False, gridspec_kw={"height_ratios": heights})
    for axes, (case, rows) in zip(grid[:, 0], panels.items(), strict=True):
        _draw(axes, case, rows)
    figure.subplots_adjust(
        left=LEFT, right=0.98, top=1 - 0.5 / sum(heights), bottom=0.5 / sum(heights), hspace=0.6 * len(heights) / 2
    )
    grid[0, 0].legend(loc="lower right", frameon=False, fontsize=8)
    content = io.BytesIO()
    FigureCanvasAgg(figure).print_png(content)  # type: ignore[no-untyped-call]  # matplotlib leaves it untyped
    return content.getvalue()


def _draw(axes: Axes, case: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """The ways of one case, the first on top."""
    size = 0.8 / len(COLOURS)
    for offset, (phase, colour) in enumerate(COLOURS.items()):
        for place, row in enumerate(rows):
            ratio = row["times_ours"].get(phase)
            if ratio is None:
                continue
            counts = row["is_accurate"] and row["computes"] == row["rule"]
            spread = [[ratio["median"] - ratio["low"]], [ratio["high"] - ratio["median"]]]
            label = phase if place == 0 else None
            axes.barh(
                place + (offset - 1) * size, ratio["median"], size, xerr=spread, color=colour,
                alpha=1 if counts else FAINT, label=label, error_kw={"elinewidth": 0.7},
            )  # fmt: skip
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(range(len(rows)), [row["peer"] for row in rows], fontsize=8)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_title(f"{case}: times ours", fontsize=9, loc="left")
    axes.tick_params(axis="x", labelsize=8)
