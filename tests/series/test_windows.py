"""Claims about windows, splits and shares of processes."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stanhop.config import SplitConfig
from stanhop.errors import Code, DataError
from stanhop.series.windows import (
    SPLITS,
    Shard,
    Split,
    Window,
    borders,
    num_windows,
    origins,
    split_origins,
    window_at,
)

ETT_HOURS = SplitConfig(train=8640, validation=2880, test=2880)

lengths = st.integers(1, 40)
sizes = st.fixed_dictionaries({"context_length": lengths, "prediction_length": lengths})


@st.composite
def splits(draw: st.DrawFn) -> SplitConfig:
    if draw(st.booleans()):
        return SplitConfig(**{split: draw(st.integers(1, 120)) for split in SPLITS})
    shares = [draw(st.integers(1, 60)) for _ in SPLITS]
    unused = draw(st.integers(0, 30))
    return SplitConfig(**{split: share / (sum(shares) + unused) for split, share in zip(SPLITS, shares, strict=True)})


@given(st.integers(0, 300), sizes, st.integers(1, 10))
def test_last_window_fits_and_one_more_would_not(series_length: int, sizes: dict[str, int], stride: int) -> None:
    count = num_windows(series_length, **sizes, stride=stride)
    if count:
        assert window_at(count - 1, **sizes, stride=stride).stop <= series_length
    assert window_at(count, **sizes, stride=stride).stop > series_length


@given(st.integers(0, 1000), sizes, st.integers(1, 10))
def test_a_window_is_its_context_then_its_target(index: int, sizes: dict[str, int], stride: int) -> None:
    window = window_at(index, **sizes, stride=stride)
    assert window.start == index * stride
    assert window.origin - window.start == sizes["context_length"]
    assert window.stop - window.origin == sizes["prediction_length"]


def test_windows_of_a_hand_counted_series() -> None:
    assert num_windows(11, context_length=5, prediction_length=3, stride=2) == 2
    assert window_at(1, context_length=5, prediction_length=3, stride=2) == Window(start=2, origin=7, stop=10)


@given(st.integers(1, 400), splits())
def test_splits_follow_each_other_without_gap_or_overlap(series_length: int, split: SplitConfig) -> None:
    try:
        rows = borders(series_length, split)
    except DataError:
        return
    assert rows.train.start == 0
    assert rows.train.stop == rows.validation.start
    assert rows.validation.stop == rows.test.start
    assert rows.test.stop <= series_length
    assert all(len(rows.of(part)) > 0 for part in SPLITS)


@given(st.integers(10, 10_000))
def test_fractions_that_sum_to_one_use_every_row(series_length: int) -> None:
    rows = borders(series_length, SplitConfig(train=0.7, validation=0.1, test=0.2))
    assert rows.test.stop == series_length
    assert len(rows.train) == 7 * series_length // 10
    assert len(rows.test) == 2 * series_length // 10


def test_thirds_use_every_row_although_their_floats_do_not_sum_to_one() -> None:
    assert borders(90, SplitConfig(train=1 / 3, validation=1 / 3, test=1 / 3)).test.stop == 90


def test_fractions_are_exact_where_floats_lose_a_row() -> None:
    assert int(0.7 * 90) == 62
    assert borders(90, SplitConfig(train=0.7, validation=0.1, test=0.2)).train == range(63)


def test_fractions_below_one_leave_the_last_rows_unused() -> None:
    rows = borders(100, SplitConfig(train=0.5, validation=0.2, test=0.1))
    assert (rows.train, rows.validation, rows.test) == (range(50), range(50, 70), range(70, 80))


def test_numbers_of_rows_leave_the_rest_of_the_file_unused() -> None:
    rows = borders(17_420, ETT_HOURS)
    assert (rows.train, rows.validation, rows.test) == (range(8640), range(8640, 11_520), range(11_520, 14_400))


@pytest.mark.parametrize(("part", "count"), [("train", 8449), ("validation", 2857), ("test", 2857)])
def test_etth1_has_the_papers_numbers_of_windows(part: Split, count: int) -> None:
    assert len(split_origins(17_420, ETT_HOURS, part, context_length=168, prediction_length=24)) == count


@given(st.integers(1, 400), splits(), sizes)
def test_targets_lie_in_their_split_and_cover_it(series_length: int, split: SplitConfig, sizes: dict[str, int]) -> None:
    try:
        rows = borders(series_length, split)
    except DataError:
        return
    for part in SPLITS:
        own = rows.of(part)
        found = origins(own, **sizes, is_first=part == "train")
        for origin in (found[0], found[-1]) if found else ():
            assert own.start <= origin
            assert origin + sizes["prediction_length"] <= own.stop
            assert origin - sizes["context_length"] >= 0
        if found:
            assert found[-1] + sizes["prediction_length"] == own.stop
        if found and part == "train":
            assert found[0] - sizes["context_length"] == own.start
            assert len(found) == num_windows(len(own), **sizes)
        if found and part != "train" and own.start >= sizes["context_length"]:
            assert found[0] == own.start


@given(st.integers(1, 400), splits(), sizes)
def test_no_training_window_touches_a_later_split(
    series_length: int, split: SplitConfig, sizes: dict[str, int]
) -> None:
    try:
        rows = borders(series_length, split)
    except DataError:
        return
    touched = {
        row
        for origin in origins(rows.train, **sizes, is_first=True)
        for row in (origin, origin + sizes["prediction_length"] - 1)
    }
    assert not touched & ({*rows.validation} | {*rows.test})


def test_more_rows_asked_for_than_there_are_is_an_error_with_the_numbers_and_the_fix() -> None:
    with pytest.raises(DataError, match="has 5000 rows, the split asks for 14400") as caught:
        borders(5000, ETT_HOURS)
    assert caught.value.code == Code.LENGTH
    assert "(8640 + 2880 + 2880)" in caught.value.problem
    assert "data.split.train" in str(caught.value.fix)


def test_an_empty_split_is_an_error_that_names_it_and_the_series() -> None:
    with pytest.raises(
        DataError, match="series 'shop 7' has 9 rows, of which the validation split gets none"
    ) as caught:
        borders(9, SplitConfig(train=0.9, validation=0.05, test=0.01), series_id="shop 7")
    assert caught.value.fix == "raise data.split.validation or give more rows"


@pytest.mark.parametrize(
    "split", [SplitConfig(train=0.9, validation=0.1, test=0), SplitConfig(train=90, validation=10, test=0)]
)
def test_no_rows_are_kept_for_the_test_where_none_are_asked_for(split: SplitConfig) -> None:
    rows = borders(100, split)
    assert (rows.train, rows.validation, len(rows.test)) == (range(90), range(90, 100), 0)
    with pytest.raises(DataError, match=r"no rows were kept for the test \(data.split.test is 0\)"):
        split_origins(100, split, "test", context_length=11, prediction_length=3)


def test_a_split_too_short_for_one_window_is_an_error_with_the_numbers() -> None:
    problem = r"train split of series 'A' has 14 of 20 rows, one window needs 15 .*12.*3.*context_length 5 would do"
    with pytest.raises(DataError, match=problem):
        split_origins(20, SplitConfig(), "train", context_length=12, prediction_length=3, series_id="A")
    assert len(split_origins(20, SplitConfig(), "train", context_length=11, prediction_length=3)) == 1
    with pytest.raises(DataError, match="validation split of the series has 2 of 20 rows, one window needs 3"):
        split_origins(20, SplitConfig(), "validation", context_length=11, prediction_length=3)


def test_a_context_longer_than_all_rows_before_the_split_is_an_error_that_says_so() -> None:
    problem = r"test split of series 'A' ends with row 20 of 20, one window up to there needs 21 .*18.*3.*the context"
    with pytest.raises(DataError, match=problem):
        split_origins(20, SplitConfig(), "test", context_length=18, prediction_length=3, series_id="A")
    assert len(split_origins(20, SplitConfig(), "test", context_length=17, prediction_length=3)) == 1


shards = st.tuples(st.integers(1, 200), st.integers(1, 23), st.integers(1, 7)).filter(lambda it: it[0] >= it[2])


@given(shards)
@example((13, 1, 4))
@example((9, 4, 2))
@example((8449, 128, 1))
def test_every_window_goes_to_one_process_once(shape: tuple[int, int, int]) -> None:
    count, batch_size, world_size = shape
    handed_out = [
        window
        for rank in range(world_size)
        for shard in [Shard(count, batch_size, rank, world_size)]
        for index in range(shard.num_batches)
        for window in shard.batch(index)
    ]
    assert sorted(handed_out) == list(range(count))


@given(shards)
@example((13, 1, 4))
@example((9, 4, 2))
def test_all_processes_have_equally_many_batches_and_none_is_empty(shape: tuple[int, int, int]) -> None:
    count, batch_size, world_size = shape
    shares = [Shard(count, batch_size, rank, world_size) for rank in range(world_size)]
    assert len({shard.num_batches for shard in shares}) == 1
    found = [len(shard.batch(index)) for shard in shares for index in range(shard.num_batches)]
    assert min(found) >= 1
    assert max(found) <= max(batch_size, 2 if world_size > 1 else 1)


def test_one_process_keeps_the_last_short_batch() -> None:
    shard = Shard(8449, 128)
    assert shard.num_batches == 67
    assert [len(shard.batch(index)) for index in (0, 65, 66)] == [128, 128, 1]


def test_fewer_windows_than_devices_is_an_error() -> None:
    with pytest.raises(DataError, match="3 windows cannot be shared by 4 devices"):
        Shard(3, 5, rank=0, world_size=4)
