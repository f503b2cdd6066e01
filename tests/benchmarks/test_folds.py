"""Rolling origins: which windows are forecast, and from which rows each training learns."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from stanhop.benchmarks.folds import plan_folds
from stanhop.config import SplitConfig
from stanhop.errors import DataError
from stanhop.series.windows import borders, split_origins

SPLIT = SplitConfig()


@given(
    length=st.integers(30, 400),
    context=st.integers(1, 40),
    horizon=st.integers(1, 12),
    windows=st.integers(1, 15),
    step=st.integers(1, 20),
    refit=st.none() | st.integers(1, 20),
)
def test_every_training_knows_the_rows_before_its_windows_and_no_others(
    length: int, context: int, horizon: int, windows: int, step: int, refit: int | None
) -> None:
    sizes = {"context_length": context, "prediction_length": horizon}
    try:
        folds = plan_folds(length, SPLIT, **sizes, num_windows=windows, step=step, refit_every=refit)
    except DataError:
        assume(False)
    origins = [origin for fold in folds for origin in fold.origins]
    assert len(origins) == windows
    assert origins[-1] + horizon == length, "the last target ends with the series"
    assert {later - earlier for earlier, later in itertools.pairwise(origins)} <= {step}
    for fold in folds:
        rows = borders(fold.stop, fold.split)
        assert rows.test == range(fold.origins.start, fold.stop), "what is forecast is neither trained nor chosen on"
        assert len(fold.origins) <= (refit or windows)
        for part in ("train", "validation", "test"):
            assert split_origins(fold.stop, fold.split, part, **sizes), "each part holds a window"


def test_a_new_training_begins_after_every_kth_window() -> None:
    folds = plan_folds(1000, SPLIT, context_length=48, prediction_length=10, num_windows=7, step=10, refit_every=3)
    assert [list(fold.origins) for fold in folds] == [[930, 940, 950], [960, 970, 980], [990]]
    assert [fold.number for fold in folds] == [1, 2, 3]
    once = plan_folds(1000, SPLIT, context_length=48, prediction_length=10, num_windows=7, step=10)
    assert len(once) == 1
    assert once[0].num_validation == 117, "an eighth, as 0.1 is of 0.7 + 0.1"


def test_too_few_rows_are_refused_with_what_to_change() -> None:
    with pytest.raises(
        DataError, match=r"300 rows, of which 78 come before the first of 10 windows.*--windows or --step"
    ):
        plan_folds(300, SPLIT, context_length=96, prediction_length=24, num_windows=10, step=22)
