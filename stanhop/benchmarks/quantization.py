"""The paper's quantisation table for our network: each method trained, then simulated at several widths, paired.

Float and quantised error of a row come from the same checkpoint. (In Table 1 of Hu et al. 2024 the float column is
three trainings and the W8A8 column one of them with three calibration seeds, so that quantising seems to help.)
"""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stanhop.config import RunConfig
from stanhop.errors import Code, ConfigError, OutputError, quoted
from stanhop.forecasting.bundle import Bundle, bundle_digest, load_bundle
from stanhop.forecasting.evaluation import evaluate
from stanhop.hopfield.separation import SEPARATIONS
from stanhop.quantization.outliers import COUNTED, measure_outliers
from stanhop.quantization.simulate import Protocol, simulate
from stanhop.quantization.windows import calibration_contexts, split_contexts
from stanhop.series.frame import SeriesSet
from stanhop.series.load import load_series
from stanhop.storage import write_text
from stanhop.training.once import fit_once
from stanhop.training.outcome import METRICS, MODEL

GATED = "gated_"
"""Prefix of a method whose heads are gated: ``gated_softmax`` is the paper's gated attention."""
FORMAT = 2
Report = Callable[[str], None]


@dataclass(frozen=True)
class Cell:
    """One training, and how its network is measured.

    Args:
        method: A separation, with ``gated_`` in front if it has a gate.
        config: The whole configuration, method and seed included.
        schemes: Widths to simulate, such as ``w8a8``.
    """

    method: str
    config: RunConfig
    schemes: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"{self.method}-{self.config.train.seed}"


@dataclass(frozen=True)
class Measured:
    """What one checkpoint gave on the test windows, in scaled units.

    Args:
        method: See ``Cell``.
        seed: Of the training.
        mse: Of the float network.
        mse_by_scheme: Of the same checkpoint, simulated.
        outliers: Average kurtosis and maximum inf-norm by selection of outputs.
    """

    method: str
    seed: int
    mse: float
    mse_by_scheme: dict[str, float]
    outliers: dict[str, dict[str, float]]

    def loss(self, scheme: str) -> float:
        """By which share the squared error grows."""
        return self.mse_by_scheme[scheme] / self.mse - 1


def method_settings(method: str) -> dict[str, Any]:
    """The keys of ``model`` that ``method`` sets.

    Raises:
        ConfigError: there is no such method.
    """
    separation = method.removeprefix(GATED)
    if separation not in SEPARATIONS:
        fix = f"choose from {', '.join(SEPARATIONS)}, each also with {GATED} in front"
        raise ConfigError(Code.CONFIG, f"{quoted(method)} is no method", fix=fix)
    return {"separation": separation, "gate": method.startswith(GATED)}


def run_cells(
    cells: Sequence[Cell], *, folder: Path, progress: bool = True, report: Report = lambda _line: None
) -> list[Measured]:
    """Train and measure every cell; what is done in ``folder`` is not done again, what was begun goes on.

    Raises:
        OutputError: a folder holds a training of another configuration.
        UserError: as ``fit``.
    """
    series_sets: dict[str, SeriesSet] = {}
    measured = []
    for cell in cells:
        source = cell.config.data.source
        series_set = series_sets.setdefault(source, load_series(cell.config.data))
        bundle = _trained(cell, series_set, folder / cell.name, progress=progress, report=report)
        measured.append(_measured(cell, bundle, series_set, folder / cell.name, report=report))
    return measured


def summary(measured: Sequence[Measured]) -> list[dict[str, Any]]:
    """One row a method: mean and deviation over its seeds, and of the paired losses."""
    rows = []
    for method in dict.fromkeys(each.method for each in measured):
        own = [each for each in measured if each.method == method]
        schemes = own[0].mse_by_scheme
        rows.append(
            {
                "method": method,
                "seeds": [each.seed for each in own],
                "mse": _spread([each.mse for each in own]),
                "mse_by_scheme": {name: _spread([each.mse_by_scheme[name] for each in own]) for name in schemes},
                "loss_percent": {name: _spread([100 * each.loss(name) for each in own]) for name in schemes},
                "outliers": {
                    counted: {
                        figure: _spread([each.outliers[counted][figure] for each in own])
                        for figure in own[0].outliers[counted]
                    }
                    for counted in own[0].outliers
                },
            }
        )
    return rows


def to_markdown(rows: Sequence[dict[str, Any]], *, counted: str = "all") -> str:
    """The table of ``summary``: outliers over ``counted`` outputs, then errors, float and simulated."""
    schemes = list(rows[0]["mse_by_scheme"])
    header = [
        "method",
        "seeds",
        f"average kurtosis ({counted})",
        f"maximum inf-norm ({counted})",
        "MSE, float",
        *[f"{scheme.upper()} (paired change)" for scheme in schemes],
    ]
    lines = [header, ["---"] * len(header)]
    for row in rows:
        outliers = row["outliers"][counted]
        losses = [
            f"{_plus_minus(row['mse_by_scheme'][name], 4)} ({row['loss_percent'][name]['mean']:+.2f} "
            f"± {row['loss_percent'][name]['deviation']:.2f} %)"
            for name in schemes
        ]
        seeds = ", ".join(map(str, row["seeds"]))
        figures = [_plus_minus(outliers["average_kurtosis"], 2), _plus_minus(outliers["max_inf_norm"], 2)]
        lines.append([row["method"], seeds, *figures, _plus_minus(row["mse"], 4), *losses])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _trained(cell: Cell, series_set: SeriesSet, path: Path, *, progress: bool, report: Report) -> Bundle:
    if not (path / METRICS).exists():
        report(f"training {cell.name}")
        fit_once(cell.config, run_path=path, progress=progress, series_set=series_set)
    bundle = load_bundle(path / MODEL)
    found, asked = (each.model_dump(exclude={"tracking"}) for each in (bundle.config, cell.config))
    if found != asked:
        problem = "holds a training of another configuration"
        raise OutputError(Code.OUTPUT, problem, fix="choose another --output folder", file=path)
    return bundle


def _measured(cell: Cell, bundle: Bundle, series_set: SeriesSet, path: Path, *, report: Report) -> Measured:
    """The measurement of ``cell``, from its file if that is about this checkpoint and has every scheme."""
    file = path / "quantization.json"
    key = {"format": FORMAT, "model": bundle_digest(bundle)}
    kept = _read(file, key)
    missing = [scheme for scheme in cell.schemes if kept is None or scheme not in kept.mse_by_scheme]
    if kept is None:
        report(f"measuring {cell.name}")
        network = measure_outliers(bundle.network, split_contexts(bundle, series_set, "test", batch_size=32))
        figures: dict[str, dict[str, float]] = {counted: asdict(network.summary(counted)) for counted in COUNTED}
        kept = Measured(cell.method, cell.config.train.seed, _error(bundle, series_set), {}, figures)
    if missing:
        calibration = calibration_contexts(bundle, series_set)
        for scheme in missing:
            report(f"simulating {cell.name} at {scheme}")
            network_at = simulate(bundle.network, calibration, Protocol.of(scheme))
            kept.mse_by_scheme[scheme] = _error(dataclasses.replace(bundle, network=network_at), series_set)
            write_text(file, json.dumps({**key, "measured": asdict(kept)}, indent=2) + "\n")
    ordered = {scheme: kept.mse_by_scheme[scheme] for scheme in cell.schemes}
    return dataclasses.replace(kept, mse_by_scheme=ordered)


def _read(file: Path, key: dict[str, Any]) -> Measured | None:
    if not file.exists():
        return None
    document = json.loads(file.read_text(encoding="utf-8"))
    return Measured(**document["measured"]) if {name: document.get(name) for name in key} == key else None


def _error(bundle: Bundle, series_set: SeriesSet) -> float:
    return evaluate(bundle, series_set, device="cpu").metrics["mse_scaled"]


def _spread(values: Sequence[float]) -> dict[str, float]:
    deviation = statistics.stdev(values) if len(values) > 1 else math.nan
    return {"mean": statistics.fmean(values), "deviation": deviation}


def _plus_minus(spread: dict[str, float], digits: int) -> str:
    deviation = "" if math.isnan(spread["deviation"]) else f" ± {spread['deviation']:.{digits}f}"
    return f"{spread['mean']:.{digits}f}{deviation}"
