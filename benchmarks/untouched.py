"""The defaults, untouched, on series that nothing was chosen on: they have to beat DLinear and seasonal naive.

    pip install 'stanhop[benchmarks]'
    python benchmarks/untouched.py

The series come with packages, so nothing is downloaded; none of them has a preset or an entry in the catalogue. They
are written as CSV files and measured by ``stanhop bench accuracy``. Trainings lie in ``runs/untouched``, and a second
call goes on where the first was stopped. The table goes to ``benchmarks/results/untouched/``; the exit code is 1 where
the network loses.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from stanhop.cli.app import main as stanhop
from stanhop.storage import write_text

RESULTS = Path(__file__).parent / "results" / "untouched"
RIVALS = ("seasonal_naive (sktime)", "dlinear (sktime)")


def electricity() -> pd.DataFrame:
    """Half-hourly demand of England and Wales in MW, 4,032 rows (Taylor 2003)."""
    from pmdarima.datasets import load_taylor

    demand = load_taylor(as_series=True)
    return pd.DataFrame({"demand": demand.to_numpy()}, pd.date_range("2000-06-05", periods=len(demand), freq="30min"))


def temperature() -> pd.DataFrame:
    """Hourly temperature of Seattle and San Francisco in °F, usual for the time of the year, 8,760 rows."""
    from vega_datasets import data

    cities = {"seattle": data.seattle_temps(), "san_francisco": data.sf_temps()}
    table = pd.DataFrame({name: city.set_index("date")["temp"] for name, city in cities.items()})
    return table.asfreq("h").interpolate()  # daylight saving takes one hour out


def sunspots() -> pd.DataFrame:
    """Mean number of sunspots a month from 1749 to 1983, 2,820 rows."""
    from pmdarima.datasets import load_sunspots

    number = load_sunspots(as_series=True)
    return pd.DataFrame({"number": number.to_numpy()}, pd.date_range("1749-01-01", periods=len(number), freq="MS"))


def carbon_dioxide() -> pd.DataFrame:
    """Weekly carbon dioxide over Mauna Loa in ppm, 2,284 rows; 59 missing ones are interpolated."""
    from statsmodels.datasets import co2

    return co2.load_pandas().data.interpolate()


SERIES: tuple[Callable[[], pd.DataFrame], ...] = (electricity, temperature, sunspots, carbon_dioxide)


def written(make: Callable[[], pd.DataFrame], folder: Path) -> Path:
    """The file with the series that ``make`` gives."""
    path = folder / f"{make.__name__}.csv"
    write_text(path, make().to_csv(index_label="date", date_format="%Y-%m-%d %H:%M"))
    return path


def defeats(rows: list[dict[str, Any]]) -> list[str]:
    """Where a rival has a lower error than the network, in words."""
    found = []
    for ours in (row for row in rows if row["model"].startswith("STanHop-Net")):
        rivals = [row for row in rows if row["data"] == ours["data"] and row["model"] in RIVALS]
        found += [
            f"{ours['data']}: {rival['model']} has {name.upper()} {rival[name]:.3f}, the network {ours[name]:.3f}"
            for rival in rivals
            for name in ("mse", "mae")
            if rival[name] <= ours[name]
        ]
    return found


def main() -> int:
    """Write the series, measure, and say who won."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prediction-length", default="24", help="steps to forecast")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--stride", default="7", help="measure seasonal naive on each n-th test window")
    parser.add_argument(
        "--output", type=Path, default=Path("runs/untouched"), help="where files and trainings are kept"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the table goes")
    options = parser.parse_args()
    files = [str(written(make, options.output / "data")) for make in SERIES]
    code = stanhop(
        [
            *("bench", "accuracy", "--data", ",".join(files), "--prediction-length", options.prediction_length),
            *("--seeds", options.seeds, "--baselines", "seasonal_naive,dlinear", "--stride", options.stride),
            *("--no-tracking", "--output", str(options.output), "--results", str(options.results)),
        ]
    )
    if code:
        return code
    lost = defeats(json.loads((options.results / "accuracy.json").read_text())["rows"])
    print("\n".join(lost) or "the network has the lowest errors everywhere")
    return int(bool(lost))


if __name__ == "__main__":
    sys.exit(main())
