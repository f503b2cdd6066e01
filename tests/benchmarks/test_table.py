"""The table: mean and deviation over seeds, beside what papers report, best first."""

from __future__ import annotations

import json
import statistics
from typing import Any

import pytest

from stanhop.benchmarks.literature import published
from stanhop.benchmarks.measurement import Measurement
from stanhop.benchmarks.table import document_of, rows_of, to_markdown
from stanhop.series.catalog import data_sets


def measurement(model: str, mse: float, seed: int | None = None, **changes: Any) -> Measurement:
    values = {
        "data": "ETTh1",
        "prediction_length": 24,
        "model": model,
        "seed": seed,
        "mse": mse,
        "mae": 2 * mse,
        "num_windows": 2857,
        "stride": 1,
        "seconds": 3.0,
        "num_parameters": None,
        "settings": {},
    }
    return Measurement.model_validate(values | changes)


MEASURED = [
    measurement("outeffhop", 0.28, 1),
    measurement("outeffhop", 0.31, 2),
    measurement("naive", 0.9, stride=24, num_windows=120),
]


def test_a_row_is_mean_and_sample_deviation_over_seeds() -> None:
    (row,) = [row for row in rows_of(MEASURED) if row.model == "outeffhop"]
    assert row.mse == statistics.fmean([0.28, 0.31])
    assert row.mse_deviation == statistics.stdev([0.28, 0.31])
    assert row.mae == 2 * row.mse
    assert row.seeds == (1, 2)


def test_published_figures_of_the_same_data_and_horizon_stand_beside_best_first() -> None:
    rows = rows_of(MEASURED)
    assert [row.model for row in rows][:2] == ["outeffhop", "Crossformer"]
    assert rows[-1].model == "naive"
    assert [row.mse for row in rows] == sorted(row.mse for row in rows)
    assert {row.source for row in rows if row.model == "Crossformer"} == {published("ETTh1", 24)[0].source}
    assert not published("ETTh1", 25)


def test_a_figure_over_whole_batches_has_a_row_of_its_own_over_the_same_windows() -> None:
    errors = [({"batch_size": 32, "mse": mse, "mae": 2 * mse, "num_windows": 2784},) for mse in (0.26, 0.27)]
    measured = [
        measurement("outeffhop", 0.28, seed, in_whole_batches=each) for seed, each in zip((1, 2), errors, strict=True)
    ]
    best, whole = rows_of([*measured, measurement("naive", 0.9)])[:2]
    assert (best.mse, best.mae, best.num_windows) == (0.265, 0.53, 2784)
    assert best.mse_deviation == pytest.approx(statistics.stdev([0.26, 0.27]))
    assert "whole batches of 32" in best.source
    assert (whole.mse, whole.num_windows, whole.source) == (0.28, 2857, "measured")


def test_a_published_figure_says_when_windows_were_left_out() -> None:
    sources = {row.model: row.source for row in rows_of([measurement("naive", 0.9, prediction_length=336)])}
    assert sources["PatchTST/64"].endswith("; whole batches of 128 windows alone")
    assert sources["NLinear"].endswith("; whole batches of 32 windows alone")
    assert "batches" not in sources["Crossformer"]


def test_the_table_says_which_windows_were_measured() -> None:
    lines = to_markdown(rows_of(MEASURED)).splitlines()
    assert "### ETTh1, 24 steps" in lines
    assert "| outeffhop | 0.295 ± 0.021 | 0.590 ± 0.042 |  |  |  | 1, 2 | 2,857 | 3 | measured |" in lines
    assert "| naive | 0.900 | 1.800 |  |  |  |  | 120 (stride 24) | 3 | measured |" in lines
    assert any(line.startswith("| MTGNN | 0.336 |  |") for line in lines)


def test_outliers_and_time_of_a_step_stand_beside_the_errors_of_a_network() -> None:
    figures = [{"outliers/all/average_kurtosis": each, "outliers/all/max_inf_norm": 2 * each} for each in (3.0, 4.0)]
    measured = [
        measurement("softmax", 0.3, seed, outliers=each, step_ms=71.26)
        for seed, each in zip((1, 2), figures, strict=True)
    ]
    (row,) = [row for row in rows_of(measured) if row.model == "softmax"]
    assert (row.kurtosis, row.kurtosis_deviation) == (3.5, statistics.stdev([3.0, 4.0]))
    line = (
        "| softmax | 0.300 ± 0.000 | 0.600 ± 0.000 | 3.50 ± 0.71 | 7.00 ± 1.41 | 71.3 | 1, 2 | 2,857 | 3 | measured |"
    )
    assert line in to_markdown([row]).splitlines()


def test_the_document_is_json_with_machine_and_command() -> None:
    document = json.loads(json.dumps(document_of(MEASURED, command="stanhop bench accuracy"), allow_nan=False))
    assert len(document["measurements"]) == 3
    assert document["command"] == "stanhop bench accuracy"
    assert {"processor", "num_threads", "versions"} <= set(document["machine"])


@pytest.mark.parametrize(
    ("data", "from_crossformers_paper", "best"),
    [
        ("ETTh1", True, {24: (0.305, 0.355), 48: (0.342, 0.383), 168: (0.410, 0.430), 336: (0.440, 0.452)}),
        ("ETTh1", True, {720: (0.486, 0.501)}),
        ("ETTh1", False, {96: (0.370, 0.394), 192: (0.405, 0.415), 336: (0.422, 0.427), 720: (0.440, 0.453)}),
        ("WTH", True, {24: (0.294, 0.343), 48: (0.370, 0.411), 168: (0.473, 0.494), 336: (0.495, 0.515)}),
        ("WTH", True, {720: (0.510, 0.542)}),
    ],
)
def test_every_horizon_that_papers_report_has_its_figures(
    data: str, from_crossformers_paper: bool, best: dict[int, tuple[float, float]]
) -> None:
    for steps, figures in best.items():
        found = [one for one in published(data, steps) if ("Zhang & Yan" in one.source) == from_crossformers_paper]
        found = [one for one in found if "Hu et al." not in one.source]
        assert (min(one.mse for one in found), min(one.mae for one in found if one.mae is not None)) == figures


def test_published_figures_are_of_sets_in_the_catalogue() -> None:
    assert published("WTH", 720)
    assert {"ETTh1", "WTH"} <= set(data_sets())
