"""The series that nothing was chosen on, and the verdict on them."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from stanhop.config import DataConfig, ModelConfig
from stanhop.series.load import load_series

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "untouched.py"), run_name="imported")


def row(model: str, mse: float, mae: float, data: str = "a.csv") -> dict[str, Any]:
    return {"model": model, "data": data, "mse": mse, "mae": mae}


def test_a_rival_that_is_level_or_better_in_either_error_is_named() -> None:
    ours = row("STanHop-Net (outeffhop)", 0.3, 0.4)
    assert SCRIPT["defeats"]([ours, row("dlinear (sktime)", 0.31, 0.41)]) == []
    assert SCRIPT["defeats"]([ours, row("dlinear (sktime)", 0.1, 0.1, data="b.csv")]) == []
    assert SCRIPT["defeats"]([ours, row("seasonal_naive (sktime)", 0.5, 0.4)]) == [
        "a.csv: seasonal_naive (sktime) has MAE 0.400, the network 0.400"
    ]
    assert len(SCRIPT["defeats"]([ours, row("dlinear (sktime)", 0.2, 0.2)])) == 2


@pytest.mark.parametrize(
    ("package", "name", "num_channels", "frequency"),
    [
        ("pmdarima", "electricity", 1, "30min"),
        ("vega_datasets", "temperature", 2, "h"),
        ("pmdarima", "sunspots", 1, "MS"),
        ("statsmodels", "carbon_dioxide", 1, "W-SAT"),
        ("vega_datasets", "weather", 4, "D"),
        ("statsmodels", "el_nino", 1, "MS"),
        ("pmdarima", "shares", 4, "B"),
        ("sktime", "airline", 1, "MS"),
        ("sktime", "prescriptions", 1, "MS"),
        ("sktime", "macroeconomics", 12, "QS-JAN"),
        ("vega_datasets", "employment", 23, "MS"),
        ("statsmodels", "equipment", 1, "MS"),
        ("pmdarima", "wine", 1, "MS"),
        ("vega_datasets", "stocks", 4, "MS"),
        ("pmdarima", "beer", 1, "QS-JAN"),
        ("pmdarima", "wool", 1, "QS-JAN"),
        ("pmdarima", "residents", 1, "QS-JAN"),
        ("sktime", "consumption", 5, "QS-JAN"),
        ("statsmodels", "inflation", 2, "QS-JAN"),
        ("pmdarima", "lynx", 1, "YS-JAN"),
        ("statsmodels", "nile", 1, "YS-JAN"),
        ("statsmodels", "yearly_sunspots", 1, "YS-JAN"),
    ],
)
def test_each_series_is_read_as_it_was_written(
    package: str, name: str, num_channels: int, frequency: str, tmp_path: Path
) -> None:
    pytest.importorskip(package, reason=f"{package} comes with the extra `benchmarks`")
    path = SCRIPT["written"](SCRIPT[name], tmp_path)
    series_set = load_series(DataConfig(source=str(path)))
    (series,) = series_set.series
    assert (len(series.channels), series_set.frequency) == (num_channels, frequency)
    context_length = ModelConfig().context_length
    assert (len(series) > 2 * context_length) == (SCRIPT[name] in SCRIPT["SERIES"])
    assert (len(series) < context_length) == (SCRIPT[name] not in SCRIPT["SERIES"])
    assert sum(SCRIPT[name] in group.series for group in SCRIPT["GROUPS"].values()) == 1
    assert path.name not in {"ETTh1.csv", "WTH.csv"}
