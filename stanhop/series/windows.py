"""Which rows of a series a window covers, which split it belongs to, and who gets it in which batch: integers only.

A window starts at ``start``, has ``context_length`` rows of history, and forecasts the ``prediction_length``
rows from its ``origin`` up to, not including, its ``stop``.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from stanhop.config import SplitConfig
from stanhop.errors import Code, DataError, quoted

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

# Fractions such as 1/3 are rounded when they are written down, so a sum this close to 1 means all rows.
ROUNDING_OF_FRACTIONS = Fraction(1, 10**9)


@dataclass(frozen=True)
class Window:
    """Rows ``start`` to ``origin`` are the context, rows ``origin`` to ``stop`` the target (stops not included)."""

    start: int
    origin: int
    stop: int


@dataclass(frozen=True)
class Borders:
    """The rows of each split, in order of time and without overlap."""

    train: range
    validation: range
    test: range

    def of(self, split: Split) -> range:
        """The rows of ``split``."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[split]


def num_windows(series_length: int, *, context_length: int, prediction_length: int, stride: int = 1) -> int:
    """Count the whole windows in ``series_length`` rows, ``stride`` rows apart."""
    spare = series_length - context_length - prediction_length
    return 0 if spare < 0 else spare // stride + 1


def window_at(index: int, *, context_length: int, prediction_length: int, stride: int = 1) -> Window:
    """The window that is number ``index``, counted from 0."""
    start = index * stride
    origin = start + context_length
    return Window(start, origin, origin + prediction_length)


def borders(series_length: int, split: SplitConfig, *, series_id: str = "") -> Borders:
    """Cut ``series_length`` rows into train, validation and test, in order of time.

    Fractions: train and test get their share rounded down, validation the rest of what the three sum to, so that
    fractions that sum to 1 use every row.  Numbers of rows are taken from the start; later rows are not used.

    Raises:
        DataError: the series has fewer rows than asked for, or a split would be empty that is not asked to be.

    Source: splits of Crossformer's and STanHop's evaluation, which round in this way.
    """
    lengths = _split_lengths(series_length, split)
    where = _series(series_id)
    if sum(lengths) > series_length:
        asked = " + ".join(map(str, lengths))
        problem = f"{where} has {series_length} rows, the split asks for {sum(lengths)} ({asked})"
        fix = "lower data.split.train, data.split.validation and data.split.test, or give fractions below 1"
        raise DataError(Code.LENGTH, problem, fix=fix)
    for name, length in zip(SPLITS, lengths, strict=True):
        if length == 0 and (name != "test" or split.has_test):
            problem = f"{where} has {series_length} rows, of which the {name} split gets none"
            raise DataError(Code.LENGTH, problem, fix=f"raise data.split.{name} or give more rows")
    train, validation, test = lengths
    return Borders(
        train=range(train),
        validation=range(train, train + validation),
        test=range(train + validation, train + validation + test),
    )


def origins(rows: range, *, context_length: int, prediction_length: int, is_first: bool) -> range:
    """The origins whose target lies wholly in ``rows``.

    Args:
        rows: The rows of a split.
        context_length: Rows of history a window needs.
        prediction_length: Rows it forecasts.
        is_first: Whether the context must lie in ``rows`` as well.  Where it need not, it may reach back into the
            rows before, so that the first row of the split is forecast too; it never reaches before row 0.
    """
    first = rows.start + context_length if is_first else max(rows.start, context_length)
    return range(first, max(first, rows.stop - prediction_length + 1))


def split_origins(
    series_length: int,
    split: SplitConfig,
    part: Split,
    *,
    context_length: int,
    prediction_length: int,
    series_id: str = "",
) -> range:
    """The origins of every window of one ``part`` of a series.

    Raises:
        DataError: as ``borders``, or the part, or all up to its end, is too short for one window.
    """
    rows = borders(series_length, split, series_id=series_id).of(part)
    if part == "test" and not split.has_test:
        fix = "name another split, or take a model that was trained with rows kept for the test"
        raise DataError(Code.LENGTH, "no rows were kept for the test (data.split.test is 0)", fix=fix)
    found = origins(rows, context_length=context_length, prediction_length=prediction_length, is_first=part == "train")
    if found:
        return found
    window = (
        f"{context_length + prediction_length} (model.context_length {context_length} + "
        f"model.prediction_length {prediction_length})"
    )
    whose = f"the {part} split of {_series(series_id)}"
    if part != "train" and len(rows) >= prediction_length:
        problem = f"{whose} ends with row {rows.stop} of {series_length}, one window up to there needs {window}"
        raise DataError(Code.LENGTH, problem, fix="shorten the context or give more rows before the split")
    needed = window if part == "train" else f"{prediction_length} (model.prediction_length)"
    problem = f"{whose} has {len(rows)} of {series_length} rows, one window needs {needed}"
    fix = f"shorten the window{_shorter(rows, part, prediction_length)}, raise data.split.{part} or give more rows"
    raise DataError(Code.LENGTH, problem, fix=fix)


def _shorter(rows: range, part: Split, prediction_length: int) -> str:
    """A context with which as many windows can be learned from as each has steps, if there is one."""
    context_length = (len(rows) - prediction_length) // 2
    return f" (model.context_length {context_length} would do)" if part == "train" and context_length > 0 else ""


@dataclass(frozen=True)
class Shard:
    """The part of an epoch's windows that one of several processes gets, in batches.

    Process ``rank`` of ``world_size`` gets every ``world_size``-th window, so each window goes to exactly one
    process.  All have equally many batches, because processes that train together wait for each other after each:
    where windows do not divide evenly, a process with one window less hands out one batch that is one shorter.

    Args:
        num_windows: Windows of the epoch.
        batch_size: Windows per batch; the last batch may be shorter.  (With ``batch_size`` 1, several processes and
            an uneven share, a last batch of 2 keeps the numbers of batches equal.)
        rank: Which process this is, from 0.
        world_size: How many processes there are.

    Raises:
        DataError: there are fewer windows than processes.
    """

    num_windows: int
    batch_size: int
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if self.num_windows < self.world_size:
            problem = f"{self.num_windows} windows cannot be shared by {self.world_size} devices"
            raise DataError(Code.LENGTH, problem, fix="lower train.devices or give more rows")

    @property
    def length(self) -> int:
        """Windows of this process."""
        return (self.num_windows - self.rank + self.world_size - 1) // self.world_size

    @property
    def num_batches(self) -> int:
        """Batches of this process, and of every other."""
        longest = -(-self.num_windows // self.world_size)
        shortest = self.num_windows // self.world_size
        return min(-(-longest // self.batch_size), shortest)

    def batch(self, index: int) -> range:
        """The windows of batch ``index``, as positions in the order of the epoch."""
        first, stop = self._edge(index), self._edge(index + 1)
        return range(self.rank + first * self.world_size, self.rank + stop * self.world_size, self.world_size)

    def _edge(self, index: int) -> int:
        """How many windows of this process come before batch ``index``; each later batch keeps at least one."""
        remaining = self.num_batches - index
        return self.length if remaining == 0 else min(index * self.batch_size, self.length - remaining)


def _split_lengths(series_length: int, split: SplitConfig) -> tuple[int, int, int]:
    if split.train >= 1:
        return int(split.train), int(split.validation), int(split.test)
    # A float's text is the decimal the user wrote; exact arithmetic on it gives 63 of 90 rows for 0.7, floats give 62.
    train, validation, test = (Fraction(str(part)) for part in (split.train, split.validation, split.test))
    total = train + validation + test
    if abs(total - 1) < ROUNDING_OF_FRACTIONS:
        total = Fraction(1)
    num_train, num_test = int(series_length * train), int(series_length * test)
    return num_train, int(series_length * total) - num_train - num_test, num_test


def _series(series_id: str) -> str:
    return f"series {quoted(series_id)}" if series_id else "the series"
