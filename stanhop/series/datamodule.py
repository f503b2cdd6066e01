"""Hands a set of series to Lightning as batches of windows, cut from one tensor that holds all of them, scaled.

No window is ever stored: a batch is gathered from a strided view of the tensor, row blocks at a time, which is much
faster than a data set that makes one window a call (``benchmarks/windows.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Self

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from stanhop.errors import Code, DataError, ModelError, quoted
from stanhop.series.scaling import Scaler
from stanhop.series.time_features import known_periods, time_features
from stanhop.series.windows import SPLITS, Borders, Shard, Split, borders, origins, split_origins

if TYPE_CHECKING:
    from stanhop.config import Period, RunConfig
    from stanhop.series.frame import Series, SeriesSet

MOST_ROWS = 2**20
"""A regression of as many contexts of single channels takes seconds."""
Batch = tuple[Tensor, Tensor]


class Windows:
    """Cuts windows out of one tensor.

    Args:
        values: ``(steps, columns)``, contiguous: channels, then what only contexts have.
        context_length: Steps of a context.
        prediction_length: Steps of a target.
        num_channels: Columns of a target; all if not given.
    """

    def __init__(
        self, values: Tensor, *, context_length: int, prediction_length: int, num_channels: int | None = None
    ) -> None:
        self.device = values.device
        self._context_length = context_length
        self._num_columns = values.shape[1]
        self._num_channels = self._num_columns if num_channels is None else num_channels
        # The rows of a window lie one after the other in memory, so each window is one block to copy.
        flat = values.view(-1)
        self._contexts = flat.unfold(0, context_length * self._num_columns, self._num_columns)
        self._targets = flat.unfold(0, prediction_length * self._num_columns, self._num_columns)

    def gather(self, starts: Tensor) -> Batch:
        """Contexts ``(batch, context_length, columns)`` and targets ``(batch, prediction_length, channels)``.

        Args:
            starts: First row of each window, ``(batch,)``, int64, on the device of the values.
        """
        contexts = self._contexts.index_select(0, starts)  # (batch, context_length * columns)
        targets = self._targets.index_select(0, starts + self._context_length)
        shape = (len(starts), -1, self._num_columns)
        return contexts.view(shape), targets.view(shape)[..., : self._num_channels]


class WindowLoader:
    """Batches of windows in the order of their starts.

    Args:
        windows: What they are cut from.
        starts: First row of each window, ``(windows,)``, int64.
        shard: Which of them this process gets, in which batches.
    """

    def __init__(self, windows: Windows, starts: Tensor, shard: Shard) -> None:
        self._windows = windows
        self._starts = starts
        self._shard = shard

    def __len__(self) -> int:
        """Batches of this process."""
        return self._shard.num_batches

    def __iter__(self) -> Iterator[Batch]:
        return self._batches(self._starts)

    def _batches(self, starts: Tensor, first: int = 0) -> Iterator[Batch]:
        """The batches from number ``first`` on, with windows in the order of ``starts``."""
        resident = starts.to(self._windows.device)
        for index in range(first, len(self)):
            chosen = self._shard.batch(index)
            yield self._windows.gather(resident[chosen.start : chosen.stop : chosen.step])


class ShuffledWindowLoader(WindowLoader):
    """Batches of windows in an order that depends on (seed, epoch) alone; an epoch can be taken up in the middle.

    Lightning calls ``sampler.set_epoch`` before each epoch, saves ``state_dict`` in its checkpoints, and gives it
    back when a run is resumed.

    Args:
        windows: What they are cut from.
        starts: First row of each window there is, ``(windows,)``, int64.
        shard: Which of an epoch's windows this process gets; where they are fewer than there are, each epoch draws
            its own.
        seed: What the order depends on, with the epoch.
    """

    def __init__(self, windows: Windows, starts: Tensor, shard: Shard, *, seed: int) -> None:
        super().__init__(windows, starts, shard)
        self._seed = seed
        self._epoch = 0
        self._position = 0  # batches handed out in this epoch
        self._first = 0  # batch the next iterator begins with

    @property
    def sampler(self) -> Self:
        """Whom Lightning tells the epoch."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Go to the beginning of ``epoch``, unless it is the one under way."""
        if epoch != self._epoch:
            self._epoch, self._position, self._first = epoch, 0, 0

    def __iter__(self) -> Iterator[Batch]:
        # A generator: Lightning asks for iterators it never uses, and nothing happens before the first batch is taken.
        first, self._first = self._first, 0
        order = np.random.default_rng((self._seed, self._epoch)).permutation(len(self._starts))
        shuffled = self._starts[torch.from_numpy(order[: self._shard.num_windows])]
        for index, batch in enumerate(self._batches(shuffled, first), start=first):
            self._position = index + 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """The epoch, the batches handed out in it, and how many it has."""
        return {"epoch": self._epoch, "position": self._position, "num_batches": len(self)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where ``state`` was taken.

        Raises:
            ModelError: it was taken of other windows, batches or numbers of devices.
        """
        if state["num_batches"] != len(self):
            problem = f"the checkpoint has {state['num_batches']} batches an epoch, this run has {len(self)}"
            fix = "resume with the data, batch size and number of devices it was made with"
            raise ModelError(Code.CHECKPOINT, problem, fix=fix)
        self._epoch, self._position, self._first = state["epoch"], state["position"], state["position"]


class SeriesDataModule(pl.LightningDataModule):
    """Train, validation and test windows of a set of series: scaled, and without their seasonal profiles.

    Each series is split by itself and has a scaler of its own training rows; no window reaches from one into another.
    The columns of a context are the channels and the time features of the configuration.

    Args:
        series_set: The series.
        config: Windows, split, batch size and seed.
        borders_of: The rows of each split of a series, in place of the split in ``config``; validation and test may
            be empty then, and so may be the windows of a series that is too short for one.

    Raises:
        DataError: a series is too short for its split or for one window, or has a value that is beyond float32
            after scaling.
    """

    def __init__(
        self, series_set: SeriesSet, config: RunConfig, *, borders_of: Callable[[Series], Borders] | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self._given_borders_of = borders_of
        self.scalers: dict[str, Scaler] = {}
        """The scaler of each series by its id, fitted on its training rows."""
        self.num_channels = len(series_set.channels)
        """Channels of every series."""
        self.frequency = series_set.frequency
        """Of every series, a pandas alias."""
        self.time_features: tuple[Period, ...] = ()
        """Periods whose progress the other columns of a context tell."""
        tables: list[np.ndarray] = []
        starts: dict[Split, list[np.ndarray]] = {split: [] for split in SPLITS}
        offset = 0
        for one in series_set.series:
            for split in SPLITS:
                starts[split].append(offset + self._window_starts(one, split))
            tables.append(self._scaled(one))
            offset += len(one)
        self._values = torch.from_numpy(np.concatenate(tables))  # (steps of all series, columns)
        self._starts = {split: torch.from_numpy(np.concatenate(starts[split])) for split in SPLITS}
        self._times = [one.times for one in series_set.series]
        self._train_rows = [self._borders_of(one).train for one in series_set.series]
        self.tell_time(config.model.time_features or ())

    def tell_time(self, periods: Sequence[Period]) -> None:
        """Have contexts tell how far ``periods`` have gone, and no others, behind their channels."""
        if tuple(periods) == self.time_features:
            return
        tables = [self._values[:, : self.num_channels]]
        if periods:
            told = np.concatenate([time_features(times, periods) for times in self._times])
            tables.append(torch.from_numpy(told).to(tables[0]))
        self._values = torch.cat(tables, dim=1)
        self.time_features = tuple(periods)

    def known_periods(self) -> tuple[Period, ...]:
        """The periods that the training rows of every series cover twice."""
        rows = [slice(train.start, train.stop) for train in self._train_rows]
        known = [known_periods(times[each]) for times, each in zip(self._times, rows, strict=True)]
        return tuple(period for period in known[0] if all(period in each for each in known))

    def num_windows(self, split: Split) -> int:
        """Windows of all series in ``split``, over all processes."""
        return len(self._starts[split])

    def train_dataloader(self) -> ShuffledWindowLoader:
        """The training windows in the order of (seed, epoch): all, or ``train.windows_per_epoch`` of them."""
        train = self.config.train
        shard = self._shard("train", at_most=train.windows_per_epoch)
        return ShuffledWindowLoader(self._windows(), self._starts["train"], shard, seed=train.seed)

    def ordered_train_windows(self) -> tuple[WindowLoader, int]:
        """Training windows in order of series and time, for every process: all, or each so many-th, which is also told.

        There are ``MOST_ROWS`` of single channels at most, or as many windows as in an epoch, if these are more.
        """
        starts, train = self._starts["train"], self.config.train
        most = max(train.windows_per_epoch, MOST_ROWS // self.num_channels)
        spacing = -(-len(starts) // most)
        chosen = starts[::spacing]
        return WindowLoader(
            self._windows(), chosen, Shard(len(chosen), train.batch_size, rank=0, world_size=1)
        ), spacing

    def val_dataloader(self) -> WindowLoader:
        """The validation windows, in order of time."""
        return WindowLoader(self._windows(), self._starts["validation"], self._shard("validation"))

    def test_dataloader(self) -> WindowLoader:
        """The test windows, in order of time."""
        return WindowLoader(self._windows(), self._starts["test"], self._shard("test"))

    def _shard(self, split: Split, *, at_most: int | None = None) -> Shard:
        trainer = self.trainer
        rank, world_size = (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)
        batch_size = self.config.train.batch_size
        num_windows = self.num_windows(split)
        num_windows = num_windows if at_most is None else min(at_most, num_windows)
        return Shard(num_windows, batch_size, rank=rank, world_size=world_size)

    def _windows(self) -> Windows:
        """All rows, on the device that trains, or on the CPU before and after training."""
        device = torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device
        self._values = self._values.to(device)
        model = self.config.model
        return Windows(
            self._values,
            context_length=model.context_length,
            prediction_length=model.prediction_length,
            num_channels=self.num_channels,
        )

    def _borders_of(self, series: Series) -> Borders:
        if self._given_borders_of is not None:
            return self._given_borders_of(series)
        return borders(len(series), self.config.data.split, series_id=series.id)

    def _window_starts(self, series: Series, split: Split) -> np.ndarray:
        """First row of each window of ``series`` in ``split``, ``(windows,)``, int64."""
        model = self.config.model
        lengths = {"context_length": model.context_length, "prediction_length": model.prediction_length}
        parts = self.config.data.split
        if self._given_borders_of is not None:
            found = origins(self._given_borders_of(series).of(split), **lengths, is_first=split == "train")
        elif split == "test" and not parts.has_test:
            found = range(0)
        else:
            found = split_origins(len(series), parts, split, **lengths, series_id=series.id)
        return np.arange(found.start, found.stop, dtype=np.int64) - model.context_length

    def _scaled(self, series: Series) -> np.ndarray:
        """Rows of ``series`` as its scaler's anomalies, ``(steps, channels)``, float32."""
        with np.errstate(over="ignore", invalid="ignore"):  # answered below
            scaler = self._scaler_of(series)
            scaled = scaler.anomalies(series.values, series.times).astype(np.float32)
        if not np.isfinite(scaled).all():
            step, channel = np.argwhere(~np.isfinite(scaled))[0]
            problem = f"{series.values[step, channel]} at {series.times[step]} is too far from the training rows"
            where = f" of series {quoted(series.id)}" if series.id else ""
            fix = "correct the value, or make the training rows include such values"
            raise DataError(Code.VALUE, problem + where, fix=fix, column=series.channels[channel])
        self.scalers[series.id] = scaler
        return scaled

    def _scaler_of(self, series: Series) -> Scaler:
        """The scaler of the training rows of ``series``."""
        train, model = self._borders_of(series).train, self.config.model
        rows = slice(train.start, train.stop)
        if not model.seasonal_profile:
            return Scaler.fit(series.values[rows])
        lengths = {"context_length": model.context_length, "prediction_length": model.prediction_length}
        return Scaler.with_profile(series.values[rows], series.times[rows], **lengths)
