"""Claims about the batches that training and evaluation get."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from stanhop.config import DataConfig, ModelConfig, Period, RunConfig, SplitConfig, TrainConfig
from stanhop.errors import Code, DataError, ModelError
from stanhop.series import datamodule
from stanhop.series.datamodule import SeriesDataModule, ShuffledWindowLoader, WindowLoader, Windows
from stanhop.series.frame import Layout, Series, SeriesSet
from stanhop.series.scaling import Scaler
from stanhop.series.windows import SPLITS, Shard, Split, borders, split_origins

CONTEXT, HORIZON, CHANNELS = 11, 5, 3
SPLIT = SplitConfig(train=0.6, validation=0.2, test=0.2)


def run_config(
    *, batch_size: int = 7, seed: int = 1, split: SplitConfig = SPLIT, windows_per_epoch: int = 10_000
) -> RunConfig:
    return RunConfig(
        data=DataConfig(split=split),
        model=ModelConfig(context_length=CONTEXT, prediction_length=HORIZON, patch_length=1),
        train=TrainConfig(batch_size=batch_size, seed=seed, windows_per_epoch=windows_per_epoch),
    )


def positions(num_steps: int, first: float = 0.0) -> np.ndarray:
    """Values that tell where they are: ``first + 10 * step + channel``."""
    return first + 10.0 * np.arange(num_steps)[:, None] + np.arange(CHANNELS)


def set_of(**values: np.ndarray) -> SeriesSet:
    """One series for each array, ``(steps, channels)``, by its id."""
    channels = tuple(f"c{channel}" for channel in range(next(iter(values.values())).shape[1]))
    series = [
        Series(name, pd.date_range("2020-01-01", periods=len(table), freq="h", unit="us"), table, channels)
        for name, table in values.items()
    ]
    return SeriesSet.of(series, Layout("long", "ds", "unique_id", channels))


def module_of(config: RunConfig | None = None, **values: np.ndarray) -> SeriesDataModule:
    return SeriesDataModule(set_of(**values), config or run_config())


def joined(loader: WindowLoader) -> tuple[Tensor, Tensor]:
    """All contexts and all targets."""
    contexts, targets = zip(*loader, strict=True)
    return torch.cat(contexts), torch.cat(targets)


def in_any_order(windows: Tensor) -> Tensor:
    """The same tensor for every order of ``windows``, ``(windows, time, channels)``; none may occur twice."""
    found = windows.flatten(1).unique(dim=0)
    assert len(found) == len(windows)
    return found


def loaders(module: SeriesDataModule) -> dict[Split, WindowLoader]:
    return {
        "train": module.train_dataloader(),
        "validation": module.val_dataloader(),
        "test": module.test_dataloader(),
    }


def slow_windows(values: np.ndarray, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Every window of one series, cut one by one from the scaled rows."""
    train = borders(len(values), SPLIT).train
    scaled = Scaler.fit(values[: len(train)]).transform(values).astype(np.float32)
    origins = split_origins(len(values), SPLIT, split, context_length=CONTEXT, prediction_length=HORIZON)
    contexts = np.stack([scaled[origin - CONTEXT : origin] for origin in origins])
    return contexts, np.stack([scaled[origin : origin + HORIZON] for origin in origins])


@pytest.mark.parametrize("split", SPLITS)
def test_batches_are_the_windows_cut_one_by_one(split: Split) -> None:
    tables = {"a": np.random.default_rng(1).normal(size=(101, CHANNELS)), "b": positions(67, first=1e4)}
    found = torch.cat(joined(loaders(module_of(**tables))[split]), dim=1)
    expected = np.concatenate([np.concatenate(slow_windows(table, split), axis=1) for table in tables.values()])
    assert torch.equal(in_any_order(found), in_any_order(torch.from_numpy(expected)))


@pytest.mark.parametrize("split", ["validation", "test"])
def test_evaluation_windows_come_in_order_of_time(split: Split) -> None:
    table = positions(101)
    contexts, targets = joined(loaders(module_of(a=table))[split])
    assert np.array_equal(contexts.numpy(), slow_windows(table, split)[0])
    assert np.array_equal(targets.numpy(), slow_windows(table, split)[1])


def test_no_window_reaches_from_one_series_into_another() -> None:
    module = module_of(a=positions(97), b=positions(97), c=positions(97))
    for loader in loaders(module).values():
        contexts, targets = joined(loader)
        steps = torch.cat((contexts, targets), dim=1).diff(dim=1)
        assert steps.std() < 1e-4  # rows grow by the same step, but for a fall from one series to the next


def test_shapes_are_batch_time_channels_and_the_last_batch_may_be_short() -> None:
    module = module_of(a=positions(101))
    batches = list(module.train_dataloader())
    assert module.num_windows("train") == 60 - CONTEXT - HORIZON + 1 == 45
    assert [len(context) for context, _ in batches] == [7] * 6 + [3]
    assert batches[0][0].shape == (7, CONTEXT, CHANNELS)
    assert batches[0][1].shape == (7, HORIZON, CHANNELS)
    assert batches[0][0].dtype == batches[0][1].dtype == torch.float32
    assert all(part.is_contiguous() for part in batches[0])
    assert len(module.train_dataloader()) == 7


def test_etth1_has_the_papers_numbers_of_windows() -> None:
    config = RunConfig(
        data=DataConfig(split=SplitConfig(train=8640, validation=2880, test=2880)),
        model=ModelConfig(context_length=168, prediction_length=24),
    )
    module = module_of(config, a=positions(17_420))
    assert [module.num_windows(split) for split in SPLITS] == [8449, 2857, 2857]


def test_nothing_at_or_after_an_origin_changes_its_context_or_a_scaler() -> None:
    random = np.random.default_rng(4)
    table = random.normal(size=(101, CHANNELS))
    before = module_of(a=table)
    for split, loader in loaders(before).items():
        contexts, _ = joined(loader)
        if split == "train":
            continue
        origins = split_origins(101, SPLIT, split, context_length=CONTEXT, prediction_length=HORIZON)
        for number, origin in enumerate(origins):
            changed = table.copy()
            changed[origin:] = 1e6 * random.normal(size=changed[origin:].shape)
            after = module_of(a=changed)
            assert after.scalers["a"].to_plain() == before.scalers["a"].to_plain()
            changed_contexts, changed_targets = joined(loaders(after)[split])
            assert torch.equal(changed_contexts[: number + 1], contexts[: number + 1])
            assert not torch.equal(changed_targets[number], joined(loaders(before)[split])[1][number])


def test_nothing_after_the_training_rows_changes_a_training_batch() -> None:
    table = np.random.default_rng(4).normal(size=(101, CHANNELS))
    changed = table.copy()
    changed[60:] += 1e6
    for before, after in zip(
        module_of(a=table).train_dataloader(), module_of(a=changed).train_dataloader(), strict=True
    ):
        assert torch.equal(before[0], after[0])
        assert torch.equal(before[1], after[1])


def test_each_series_is_scaled_by_its_own_training_rows() -> None:
    tables = {"a": positions(101), "b": 1e6 * np.random.default_rng(3).normal(size=(83, CHANNELS))}
    module = module_of(**tables)
    assert list(module.scalers) == ["a", "b"]
    for name, table in tables.items():
        assert module.scalers[name].to_plain() == Scaler.fit(table[: len(borders(len(table), SPLIT).train)]).to_plain()


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    table = np.random.default_rng(2).normal(size=(101, CHANNELS))

    def contexts(seed: int, epoch: int) -> Tensor:
        torch.manual_seed(time.time_ns() % 1000)
        loader = module_of(run_config(seed=seed), a=table).train_dataloader()
        loader.set_epoch(epoch)
        return joined(loader)[0]

    first = contexts(1, 0)
    assert torch.equal(first, contexts(1, 0))
    assert not torch.equal(first, contexts(2, 0))
    assert not torch.equal(first, contexts(1, 1))
    assert torch.equal(in_any_order(first), in_any_order(contexts(1, 1)))


def test_a_bounded_epoch_draws_its_own_windows_each_time() -> None:
    module = module_of(run_config(windows_per_epoch=19), a=np.random.default_rng(1).normal(size=(101, CHANNELS)))
    loader = module.train_dataloader()
    assert len(loader) == 3
    assert module.num_windows("train") == 45
    epochs = []
    for epoch in range(20):
        loader.set_epoch(epoch)
        epochs.append(in_any_order(joined(loader)[0]))
    assert all(len(epoch) == 19 for epoch in epochs)
    assert not torch.equal(epochs[0], epochs[1])
    assert len(torch.cat(epochs).unique(dim=0)) == 45
    assert len(joined(module.val_dataloader())[0]) == module.num_windows("validation")


def test_contexts_tell_the_time_of_each_of_their_steps_and_targets_do_not() -> None:
    plain = module_of(run_config(), a=positions(101), b=positions(60))
    told = module_of(run_config(), a=positions(101), b=positions(60))
    told.tell_time(("day", "week"))
    for loader in ("train_dataloader", "val_dataloader", "test_dataloader"):
        contexts, targets = joined(getattr(plain, loader)())
        seen, same_targets = joined(getattr(told, loader)())
        assert torch.equal(targets, same_targets)
        assert torch.equal(contexts, seen[..., :-4])
        day = torch.atan2(seen[..., -2], seen[..., -4]) / (2 * torch.pi) * 24
        torch.testing.assert_close(torch.diff(day, dim=1).remainder(24), torch.ones_like(day[:, 1:]), atol=1e-3, rtol=0)
    told.tell_time(("week",))
    asked = _telling("week")
    assert asked.time_features == told.time_features == ("week",)
    assert torch.equal(joined(told.val_dataloader())[0], joined(asked.val_dataloader())[0])
    told.tell_time(())
    assert torch.equal(joined(told.val_dataloader())[0], joined(plain.val_dataloader())[0])


def _telling(*periods: Period) -> SeriesDataModule:
    config = run_config()
    model = config.model.model_copy(update={"joint_rank": 3, "time_features": periods})
    return module_of(config.model_copy(update={"model": model}), a=positions(101), b=positions(60))


def test_periods_are_known_where_the_training_rows_of_every_series_cover_them() -> None:
    assert module_of(run_config(), a=positions(24 * 40)).known_periods() == ("day", "week")
    assert module_of(run_config(), a=positions(24 * 40), b=positions(101)).known_periods() == ("day",)


@pytest.mark.parametrize(
    ("windows_per_epoch", "most_rows", "spacing"),
    [(10_000, 1, 1), (30, 1, 2), (8, 1, 6), (8, 8 * CHANNELS, 6), (8, 30 * CHANNELS, 2), (8, 2**20, 1)],
)
def test_training_windows_in_order_are_evenly_spaced_and_no_more_than_an_epoch_or_than_many(
    windows_per_epoch: int, most_rows: int, spacing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datamodule, "MOST_ROWS", most_rows)
    module = module_of(run_config(windows_per_epoch=windows_per_epoch), a=positions(101))
    loader, told = module.ordered_train_windows()
    contexts, targets = joined(loader)
    expected_contexts, expected_targets = (torch.from_numpy(each) for each in slow_windows(positions(101), "train"))
    assert told == spacing
    assert len(contexts) <= max(windows_per_epoch, most_rows // CHANNELS)
    torch.testing.assert_close(contexts, expected_contexts[::spacing])
    torch.testing.assert_close(targets, expected_targets[::spacing])


def test_loading_draws_nothing_from_the_global_random_state() -> None:
    before = torch.random.get_rng_state()
    joined(module_of(a=positions(101)).train_dataloader())
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("taken", [0, 1, 4, 6, 7])
@pytest.mark.parametrize("epoch", [0, 3])
def test_a_loader_goes_on_where_another_stopped(epoch: int, taken: int) -> None:
    module = module_of(a=np.random.default_rng(2).normal(size=(101, CHANNELS)))
    whole = module.train_dataloader()
    whole.set_epoch(epoch)
    expected = [context for context, _ in whole]

    stopped = module.train_dataloader()
    stopped.set_epoch(epoch)
    iterator = iter(stopped)
    for _ in range(taken):
        next(iterator)
    state = json.loads(json.dumps(stopped.state_dict()))

    resumed = module.train_dataloader()
    resumed.load_state_dict(state)
    assert resumed.state_dict() == state
    resumed.set_epoch(epoch)  # as Lightning does at the beginning of the epoch it resumes in
    iter(resumed)  # Lightning also asks for iterators that it does not use
    rest = [context for context, _ in resumed]
    assert len(rest) == len(expected) - taken
    assert all(torch.equal(one, other) for one, other in zip(rest, expected[taken:], strict=True))

    resumed.set_epoch(epoch + 1)
    whole.set_epoch(epoch + 1)
    assert torch.equal(joined(resumed)[0], joined(whole)[0])


def test_a_state_of_other_batches_is_refused() -> None:
    state = module_of(a=positions(101)).train_dataloader().state_dict()
    other = module_of(run_config(batch_size=5), a=positions(101)).train_dataloader()
    with pytest.raises(ModelError, match="the checkpoint has 7 batches an epoch, this run has 9") as caught:
        other.load_state_dict(state)
    assert caught.value.code == Code.CHECKPOINT


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_share_the_windows_of_each_split(world_size: int) -> None:
    table = np.random.default_rng(2).normal(size=(101, CHANNELS))
    module = module_of(a=table)
    alone = {split: joined(loader)[0] for split, loader in loaders(module).items()}
    shares: dict[Split, list[Tensor]] = {split: [] for split in SPLITS}
    lengths: dict[Split, set[int]] = {split: set() for split in SPLITS}
    for rank in range(world_size):
        strategy = SimpleNamespace(root_device=torch.device("cpu"))
        module.trainer = SimpleNamespace(global_rank=rank, world_size=world_size, strategy=strategy)
        for split, loader in loaders(module).items():
            shares[split].append(joined(loader)[0])
            lengths[split].add(len(loader))
    for split in SPLITS:
        together = torch.cat(shares[split])
        assert torch.equal(in_any_order(together), in_any_order(alone[split]))
        assert len(lengths[split]) == 1


def test_a_series_too_short_for_a_window_is_an_error_that_names_it() -> None:
    with pytest.raises(DataError, match="train split of series 'tiny' has 12 of 20 rows, one window needs 16"):
        module_of(a=positions(101), tiny=positions(20))


def test_a_value_beyond_float32_after_scaling_is_an_error_that_names_its_place() -> None:
    table = 1e-20 * np.random.default_rng(2).normal(size=(101, CHANNELS))
    table[90, 2] = 1e25
    with pytest.raises(
        DataError, match=r"column 'c2': 1e\+25 at 2020-01-04 18:00:00 is too far .* series 'a'"
    ) as caught:
        module_of(a=table)
    assert caught.value.code == Code.VALUE


class Recorder(pl.LightningModule):
    """A network with every kind of state, which remembers the batches it saw."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.layer = nn.Linear(CONTEXT, HORIZON)
        self.seen: list[tuple[int, float]] = []

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        context, target = batch
        self.seen.append((self.current_epoch, float(context.double().sum())))
        return (self.layer(context.transpose(1, 2)).transpose(1, 2) - target).abs().mean()

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        context, target = batch
        error = (self.layer(context.transpose(1, 2)).transpose(1, 2) - target).abs().mean()
        self.log("val/loss", error, batch_size=len(context))

    def configure_optimizers(self) -> dict[str, object]:
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=100)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class SaveAt(pl.Callback):
    """Saves a checkpoint in one hook of Lightning's, at the ``turn``-th call."""

    def __init__(self, path: Path, hook: str, turn: int) -> None:
        self.path, self.turn, self.calls = path, turn, 0
        setattr(self, hook, self._save)

    def _save(self, trainer: pl.Trainer, *_: object) -> None:
        if not trainer.sanity_checking:
            self.calls += 1
            if self.calls == self.turn:
                trainer.save_checkpoint(self.path)


def fitted(callbacks: list[pl.Callback], *, checkpoint: Path | None = None) -> Recorder:
    trainer = pl.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=callbacks,
    )
    recorder = Recorder()
    data = module_of(a=np.random.default_rng(2).normal(size=(101, CHANNELS)))
    trainer.fit(recorder, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    return recorder


# Lightning asks torch in a way that torch 2.13 calls deprecated.
@pytest.mark.filterwarnings("ignore:.*LeafSpec.*is deprecated:FutureWarning")
@pytest.mark.parametrize(
    ("hook", "turn", "batches_before"),
    [
        ("on_train_batch_end", 4, 4),
        ("on_train_batch_end", 7, 7),
        ("on_train_batch_end", 12, 12),
        ("on_validation_end", 1, 7),
        ("on_train_epoch_end", 2, 14),
    ],
)
def test_a_resumed_training_is_bit_equal_to_an_uninterrupted_one(
    tmp_path: Path, hook: str, turn: int, batches_before: int
) -> None:
    checkpoint = tmp_path / "saved.ckpt"
    uninterrupted = fitted([SaveAt(checkpoint, hook, turn)])
    assert len(uninterrupted.seen) == 21
    resumed = fitted([], checkpoint=checkpoint)
    assert resumed.seen == uninterrupted.seen[batches_before:]
    for one, other in zip(resumed.parameters(), uninterrupted.parameters(), strict=True):
        assert torch.equal(one, other)


class OneByOne(Dataset[tuple[Tensor, Tensor]]):
    """The usual way: one window a call."""

    def __init__(self, values: Tensor, count: int, context_length: int, prediction_length: int) -> None:
        self.values, self.count, self.sizes = values, count, (context_length, prediction_length)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        origin = index + self.sizes[0]
        return self.values[index:origin], self.values[origin : origin + self.sizes[1]]


def best_time(loader: Iterable[object], *, tries: int) -> float:
    """Processor time of one pass, which other programs on the machine do not lengthen."""
    times = []
    for _ in range(tries):
        started = time.process_time()
        for _batch in loader:
            pass
        times.append(time.process_time() - started)
    return min(times)


def test_loading_is_at_least_three_times_as_fast_as_one_window_a_call() -> None:
    values = torch.randn(8640, 7, generator=torch.Generator().manual_seed(1))
    count = 8640 - 168 - 24 + 1
    windows = Windows(values, context_length=168, prediction_length=24)
    ours = ShuffledWindowLoader(windows, torch.arange(count), Shard(count, 128), seed=1)
    usual = DataLoader(OneByOne(values, count, 168, 24), batch_size=128, shuffle=True)
    assert best_time(usual, tries=5) > 3 * best_time(ours, tries=20)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_batches_on_a_gpu_are_those_on_the_cpu() -> None:
    module = module_of(a=np.random.default_rng(2).normal(size=(101, CHANNELS)))
    expected = {split: joined(loader) for split, loader in loaders(module).items()}
    strategy = SimpleNamespace(root_device=torch.device("cuda", 0))
    module.trainer = SimpleNamespace(global_rank=0, world_size=1, strategy=strategy)
    for split, loader in loaders(module).items():
        for one, other in zip(joined(loader), expected[split], strict=True):
            assert one.device.type == "cuda"
            assert torch.equal(one.cpu(), other)


TWO_PROCESSES = """
import warnings; warnings.simplefilter("ignore")
import sys
import pytorch_lightning as pl, torch
from torch import nn
from stanhop.config import DataConfig, ModelConfig, RunConfig, TrainConfig
from stanhop.series.datamodule import SeriesDataModule
from stanhop.series.synthetic import generate

class Counter(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.seen = {"train": [], "validation": []}
    def training_step(self, batch, _):
        self.seen["train"] += batch[0].double().sum((1, 2)).tolist()
        return self.layer(batch[0][..., :1]).mean()
    def validation_step(self, batch, _):
        self.seen["validation"] += batch[0].double().sum((1, 2)).tolist()
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)
    def on_fit_end(self):
        for split, own in self.seen.items():
            all_seen = [None] * 2
            torch.distributed.all_gather_object(all_seen, own)
            if self.global_rank == 0:
                total = [one for seen in all_seen for one in seen]
                print(split, len(total), len(set(total)), flush=True)

if __name__ == "__main__":
    config = RunConfig(model=ModelConfig(context_length=24, prediction_length=5), train=TrainConfig(batch_size=13))
    trainer = pl.Trainer(max_epochs=1, accelerator="cpu", devices=2, strategy="ddp_fork", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0)
    data = SeriesDataModule(generate(num_steps=301), config)
    print("expected", data.num_windows("train"), data.num_windows("validation"))
    trainer.fit(Counter(), datamodule=data)
"""


@pytest.mark.slow
def test_two_processes_train_on_each_window_once(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(TWO_PROCESSES)
    arguments = [sys.executable, str(tmp_path / "program.py")]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    lines = dict(line.split(" ", 1) for line in done.stdout.splitlines() if line.split(" ")[0] in {"expected", *SPLITS})
    train, validation = lines["expected"].split()
    assert lines["train"] == f"{train} {train}"
    assert lines["validation"] == f"{validation} {validation}"


def test_no_window_is_of_the_test_where_no_rows_are_kept_for_it_unless_borders_are_given() -> None:
    split = SplitConfig(train=0.8, validation=0.2, test=0)
    config = run_config(split=split)
    assert module_of(config, a=positions(101)).num_windows("test") == 0
    given = SeriesDataModule(set_of(a=positions(101)), config, borders_of=lambda one: borders(len(one), SPLIT))
    assert given.num_windows("test") == module_of(a=positions(101)).num_windows("test") > 0
