"""Rows of a series in memory: what trains, what validates, how long a context may be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanhop.interop.plan import borders_for, longest_context
from stanhop.series.windows import num_windows


@given(length=st.integers(1, 400), horizon=st.integers(1, 60), validation=st.floats(0, 0.3))
def test_every_row_trains_or_validates_and_most_train(length: int, horizon: int, validation: float) -> None:
    rows = borders_for(length, horizon=horizon, validation=validation)
    assert [*rows.train, *rows.validation, *rows.test] == list(range(length))
    assert len(rows.train) >= 2 / 3 * length
    assert not len(rows.validation) or len(rows.validation) >= horizon


def test_no_share_to_validate_trains_on_every_row() -> None:
    assert borders_for(100, horizon=7, validation=0.0).train == range(100)
    assert borders_for(100, horizon=7, validation=0.1).validation == range(90, 100)
    assert borders_for(100, horizon=13, validation=0.1).validation == range(87, 100), "a whole horizon at least"


@given(num_rows=st.integers(3, 500), horizon=st.integers(1, 60))
def test_the_longest_context_leaves_training_windows_where_any_can(num_rows: int, horizon: int) -> None:
    context = longest_context(num_rows, horizon=horizon)
    assert context >= 1
    if num_rows > horizon:
        assert num_windows(num_rows, context_length=context, prediction_length=horizon) >= 1


@pytest.mark.parametrize(("num_rows", "expected"), [(100, 60), (20, 6), (11, 1), (4, 1)])
def test_the_longest_context_is_two_thirds_of_what_the_horizon_leaves(num_rows: int, expected: int) -> None:
    assert longest_context(num_rows, horizon=10) == expected
