"""Plots of what quantising is about: how far outputs stand out, module by module."""

from __future__ import annotations

from matplotlib.figure import Figure

from stanhop.forecasting.plots import DOTS_PER_INCH, FORECAST_COLOUR, HISTORY_COLOUR, as_png, tidy
from stanhop.quantization.outliers import OutlierReport, OutputOutliers

COLOURS = {"blocks": FORECAST_COLOUR, "feedforward": "#E69F00", "norms": HISTORY_COLOUR}
OTHER = "0.6"
MOST_ROWS = 120
"""Rows a plot shows; of a deeper network, those with the largest inf-norm."""


def outlier_plot(report: OutlierReport, *, title: str) -> bytes:
    """Inf-norm and kurtosis of every output that counts, one row a module in the order they run, as PNG."""
    outputs = _shown(report)
    figure = Figure(figsize=(9.0, 1.4 + 0.17 * len(outputs)), dpi=DOTS_PER_INCH, layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    places = range(len(outputs))
    colours = [_colour(output) for output in outputs]
    left.barh(places, [output.inf_norm for output in outputs], color=colours)
    right.barh(places, [output.kurtosis_scale_free for output in outputs], color=colours)
    right.plot([output.kurtosis for output in outputs], places, "k|", markersize=6, label="with the published 1e-6")
    right.axvline(3, color="0.4", linewidth=0.8, linestyle=":", label="Gaussian")
    left.set_yticks(places, [output.name for output in outputs], fontsize=6)
    left.invert_yaxis()
    left.set_title("inf-norm, mean over windows", fontsize=9, loc="left")
    right.set_title("kurtosis, mean over windows", fontsize=9, loc="left")
    for name, colour in {**COLOURS, "other": OTHER}.items():
        left.barh([0], [0], color=colour, label=name)
    left.legend(fontsize=7, loc="lower right")
    right.legend(fontsize=7, loc="lower right")
    for axes in (left, right):
        tidy(axes)
        axes.tick_params(axis="y", labelsize=6)
    figure.suptitle(title.replace("$", r"\$"), fontsize=10)
    return as_png(figure)


def _shown(report: OutlierReport) -> list[OutputOutliers]:
    counted = [output for output in report.outputs if output.counted]
    if len(counted) <= MOST_ROWS:
        return counted
    largest = sorted(counted, key=lambda output: -output.inf_norm)[:MOST_ROWS]
    return [output for output in counted if output in largest]


def _colour(output: OutputOutliers) -> str:
    return next((COLOURS[counted] for counted in output.counted if counted in COLOURS), OTHER)
