"""The defaults, untouched, on series that no preset was chosen on: they have to beat DLinear and seasonal naive.

    pip install 'stanhop[benchmarks]'
    python benchmarks/untouched.py

The series come with packages, so nothing is downloaded; none of them has a preset or an entry in the catalogue. They
are written as CSV files and measured by ``stanhop bench accuracy``. Trainings lie in ``runs/untouched``, and a second
call goes on where the first was stopped. The tables go to ``benchmarks/results/untouched/``; the exit code is 1 where
the network loses.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
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


def weather() -> pd.DataFrame:
    """Daily precipitation, temperatures and wind in Seattle, 1,461 rows."""
    from vega_datasets import data

    return data.seattle_weather().set_index("date").select_dtypes("number").asfreq("D")


def el_nino() -> pd.DataFrame:
    """Monthly temperature of the Pacific off Peru from 1950, 732 rows."""
    from statsmodels.datasets import elnino

    months = elnino.load_pandas().data.set_index("YEAR").to_numpy(dtype=float).ravel()
    return pd.DataFrame({"temperature": months}, pd.date_range("1950-01-01", periods=len(months), freq="MS"))


def shares() -> pd.DataFrame:
    """Logarithms of daily prices of Microsoft's shares from 1986, 7,983 rows."""
    from pmdarima.datasets import load_msft

    prices = np.log(load_msft()[["Open", "High", "Low", "Close"]].clip(lower=1e-3))
    return prices.set_axis(pd.date_range("1986-03-13", periods=len(prices), freq="B"))


def airline() -> pd.DataFrame:
    """Passengers of airlines a month from 1949, 144 rows."""
    from sktime.datasets import load_airline

    return load_airline().to_timestamp().to_frame("passengers")


def prescriptions() -> pd.DataFrame:
    """Prescriptions in Australia a month from 1991, 204 rows."""
    from sktime.datasets import load_PBS_dataset

    return load_PBS_dataset().to_timestamp().to_frame("scripts")


def macroeconomics() -> pd.DataFrame:
    """The economy of the United States a quarter from 1959, 12 channels, 203 rows."""
    from sktime.datasets import load_macroeconomic

    return load_macroeconomic().to_timestamp().select_dtypes("number")


def employment() -> pd.DataFrame:
    """Employees in the United States a month from 2006 by trade, 120 rows."""
    from vega_datasets import data

    return data.us_employment().set_index("month").select_dtypes("number")


def equipment() -> pd.DataFrame:
    """New orders of electrical equipment in the euro area a month from 1995, 257 rows."""
    from statsmodels.datasets import elec_equip

    return elec_equip.load_pandas().data.set_axis(["orders"], axis=1)


def wine() -> pd.DataFrame:
    """Sales of wine in Australia a month from 1980, 176 rows."""
    from pmdarima.datasets import load_wineind

    return _regular({"sales": load_wineind()}, "1980-01-01", "MS")


def stocks() -> pd.DataFrame:
    """Monthly prices of four shares from 2000, 123 rows."""
    from vega_datasets import data

    prices = data.stocks().pivot_table(index="date", columns="symbol", values="price")
    return prices.drop(columns="GOOG").asfreq("MS")  # which came four years later


def beer() -> pd.DataFrame:
    """Beer brewed in Australia a quarter from 1956, 211 rows."""
    from pmdarima.datasets import load_ausbeer

    return _regular({"brewed": load_ausbeer()}, "1956-01-01", "QS").dropna()


def wool() -> pd.DataFrame:
    """Woollen yarn made in Australia a quarter from 1965, 119 rows."""
    from pmdarima.datasets import load_woolyrnq

    return _regular({"made": load_woolyrnq()}, "1965-01-01", "QS")


def residents() -> pd.DataFrame:
    """People who live in Australia by quarters from 1971, 89 rows."""
    from pmdarima.datasets import load_austres

    return _regular({"residents": load_austres()}, "1971-04-01", "QS")


def consumption() -> pd.DataFrame:
    """Changes of consumption, income, production, savings and unemployment in the United States a quarter, 187 rows."""
    from sktime.datasets import load_uschange

    changes = pd.concat(load_uschange(), axis=1).select_dtypes("number")
    return _regular({name: changes[name] for name in changes}, "1970-01-01", "QS")


def inflation() -> pd.DataFrame:
    """Inflation and interest in Germany a quarter from 1972, 107 rows."""
    from statsmodels.datasets import interest_inflation

    rates = interest_inflation.load_pandas().data
    return _regular({"inflation": rates["Dp"], "interest": rates["R"]}, "1972-04-01", "QS")


def lynx() -> pd.DataFrame:
    """Lynx trapped in Canada a year from 1821, 114 rows."""
    from pmdarima.datasets import load_lynx

    return _regular({"trapped": load_lynx()}, "1821-01-01", "YS")


def nile() -> pd.DataFrame:
    """Water of the Nile at Aswan a year from 1871, 100 rows."""
    from statsmodels.datasets import nile as flow

    return _regular({"volume": flow.load_pandas().data["volume"]}, "1871-01-01", "YS")


def yearly_sunspots() -> pd.DataFrame:
    """Mean number of sunspots a year from 1700 to 2008, 309 rows."""
    from statsmodels.datasets import sunspots as numbers

    return _regular({"number": numbers.load_pandas().data["SUNACTIVITY"]}, "1700-01-01", "YS")


def _regular(columns: Mapping[str, Any], first: str, frequency: str) -> pd.DataFrame:
    """A table of columns that come without times, or with some of another kind."""
    values = {name: np.asarray(column, dtype=float) for name, column in columns.items()}
    return pd.DataFrame(values, pd.date_range(first, periods=len(next(iter(values.values()))), freq=frequency))


SERIES = (electricity, temperature, sunspots, carbon_dioxide, weather, el_nino, shares)
SHORT = (airline, prescriptions, macroeconomics, employment, equipment)
MONTHS, QUARTERS, YEARS = (wine, stocks), (beer, wool, residents, consumption, inflation), (lynx, nile, yearly_sunspots)
"""Those on which no forecast was chosen; what regressions are pulled to was, on some of the others (``priors.py``)."""


@dataclass(frozen=True)
class Group:
    """Series that are measured alike.

    Args:
        series: They.
        prediction_length: Steps to forecast.
        settings: What is not as the defaults have it.
        stride: Seasonal naive is measured on each so many-th test window.
    """

    series: tuple[Callable[[], pd.DataFrame], ...]
    prediction_length: int
    settings: tuple[str, ...] = ()
    stride: int = 7


GROUPS = {
    "long": Group(SERIES, 24),
    "short": Group(SHORT, 12, ("model.context_length=36",), stride=1),
    "months": Group(MONTHS, 12, ("model.context_length=36",), stride=1),
    "quarters": Group(QUARTERS, 8, ("model.context_length=16", "model.patch_length=4"), stride=1),
    "years": Group(YEARS, 6, ("model.context_length=24",), stride=1),
}
"""All but the first have fewer rows than the context of the defaults."""


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


def measured(name: str, group: Group, options: argparse.Namespace) -> list[str]:
    """Measure ``group``, and say where it lost.

    Raises:
        SystemExit: it could not be measured.
    """
    files = [str(written(make, options.output / "data")) for make in group.series]
    results, steps = options.results / name, str(options.prediction_length or group.prediction_length)
    code = stanhop(
        [
            *("bench", "accuracy", "--data", ",".join(files), "--prediction-length", steps),
            *(word for setting in group.settings for word in ("--set", setting)),
            *("--seeds", options.seeds, "--baselines", "seasonal_naive,dlinear", "--stride", str(group.stride)),
            *("--no-tracking", "--output", str(options.output / name), "--results", str(results)),
        ]
    )
    if code:
        raise SystemExit(code)
    return defeats(json.loads((results / "accuracy.json").read_text())["rows"])


def main() -> int:
    """Write the series, measure, and say who won."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=GROUPS, nargs="+", default=list(GROUPS), help="which series")
    parser.add_argument("--prediction-length", type=int, help="steps to forecast")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument(
        "--output", type=Path, default=Path("runs/untouched"), help="where files and trainings are kept"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the tables go")
    options = parser.parse_args()
    lost = [line for name in options.only for line in measured(name, GROUPS[name], options)]
    print("\n".join(lost) or "the network has the lowest errors everywhere")
    return int(bool(lost))


if __name__ == "__main__":
    sys.exit(main())
