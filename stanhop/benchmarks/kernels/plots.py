"""One picture a group of shapes: how many times as long as ours every other way takes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from stanhop.benchmarks.kernels.document import Document, rows_of
from stanhop.benchmarks.kernels.peers import OURS

# Okabe & Ito's palette: told apart with every kind of colour vision.
COLOURS = {"forward": "#0072B2", "backward": "#E69F00", "both": "#009E73"}
FAINT = 0.35
"""Opacity of a way that counts for no win: out of tolerance, or computing something else."""
WIDTH, BAR, TOP, GAP, BOTTOM = 9.0, 0.36, 0.4, 0.65, 0.4
"""Inches: width, height a way, and what lies above, between and below the panels."""
LEFT, RIGHT = 0.27, 0.97
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500)
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
    heights = [BAR * len(rows) for rows in panels.values()]
    height = TOP + sum(heights) + GAP * (len(heights) - 1) + BOTTOM
    figure = Figure(figsize=(WIDTH, height), dpi=DOTS_PER_INCH)
    gap = GAP * len(heights) / sum(heights)  # in mean heights of a panel
    margins = {"left": LEFT, "right": RIGHT, "top": 1 - TOP / height, "bottom": BOTTOM / height, "hspace": gap}
    grid = figure.subplots(len(heights), 1, squeeze=False, gridspec_kw={"height_ratios": heights, **margins})
    for axes, (case, rows) in zip(grid[:, 0], panels.items(), strict=True):
        _draw(axes, case, rows)
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="upper right", ncols=3, frameon=False, fontsize=8)
    content = io.BytesIO()
    FigureCanvasAgg(figure).print_png(content)  # type: ignore[no-untyped-call]  # matplotlib leaves it untyped
    return content.getvalue()


def _draw(axes: Axes, case: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """The ways of one case, the first on top; bars begin at 1, which is ours: to the right of it ours is faster."""
    size = 0.8 / len(COLOURS)
    for offset, (phase, colour) in enumerate(COLOURS.items()):
        for place, row in enumerate(rows):
            ratio = row["times_ours"].get(phase)
            if ratio is None:
                continue
            counts = row["is_accurate"] and row["computes"] == row["rule"]
            spread = [[ratio["median"] - ratio["low"]], [ratio["high"] - ratio["median"]]]
            axes.barh(
                place + (offset - 1) * size, ratio["median"] - 1, size, left=1, xerr=spread, color=colour,
                alpha=1 if counts else FAINT, label=phase if place == 0 else None, error_kw={"elinewidth": 0.7},
            )  # fmt: skip
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(range(len(rows)), [row["peer"] for row in rows], fontsize=8)
    axes.invert_yaxis()
    axes.set_xscale("log")
    least, most = axes.get_xlim()
    axes.set_xticks([tick for tick in TICKS if least <= tick <= most], minor=False)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_title(f"{case}: times ours", fontsize=9, loc="left")
    axes.tick_params(axis="x", labelsize=8)
