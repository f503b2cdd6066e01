"""R10: what a series is forecast to does not depend on what is forecast with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stanhop.forecasting.bundle import load_bundle
from stanhop.forecasting.forecaster import Forecaster
from stanhop.series.frame import Series
from tests.reliability.kit import samples
from tests.reliability.kit.sizes import sizes

LARGEST_DIFFERENCE = 1e-5


def series_of(number: int) -> Series:
    scale = 10.0 ** (number % 13 - 6)
    times = pd.date_range("2021-03-01", periods=samples.CONTEXT, freq="h", unit="us")
    return Series(str(number), times, scale * samples.values(samples.CONTEXT, seed=number), samples.CHANNELS)


@pytest.mark.parametrize("count", sizes(default=50, full=10_000, soak=100_000))
def test_alone_and_in_company_the_forecast_is_the_same(count: int, model: Path, record: Callable[..., None]) -> None:
    bundle = load_bundle(model)
    several = [series_of(number) for number in range(count)]
    in_company = Forecaster(bundle, batch_size=32).forecast_all(several)
    alone = Forecaster(bundle, batch_size=32)
    others = Forecaster(bundle, batch_size=32).forecast_all(several[::-1])[::-1]
    largest, num_other_bits = 0.0, 0
    for one, company, reverse in zip(several, in_company, others, strict=True):
        single = alone.forecast(one).values
        scale = np.abs(single).max()
        largest = max(largest, float(np.abs(single - company.values).max() / scale))
        largest = max(largest, float(np.abs(single - reverse.values).max() / scale))
        num_other_bits += not np.array_equal(company.values, reverse.values)
    assert largest <= LARGEST_DIFFERENCE
    record(
        "R10",
        "company of a series",
        f"{count:,} series at 13 scales, alone, in batches, and in other batches: {largest:.1e} relative at most;"
        f" {num_other_bits:,} differ in a bit between the batches",
    )
