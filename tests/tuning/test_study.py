"""A search: it goes on where it stopped, cuts weak trials short, never looks at the test rows, and writes a preset."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from stanhop.config import Layer, RunConfig, TrackingConfig, file_layer, flatten, nest, resolve
from stanhop.errors import Code, DataError, DivergedError, OutputError, StoppedError
from stanhop.series.frame import SeriesSet
from stanhop.series.load import load_series
from stanhop.tracking.search import find_runs
from stanhop.training.fit import fit
from stanhop.training.guards import SignalWatch
from stanhop.training.journal import Epoch
from stanhop.training.lightning_module import ForecastingModule
from stanhop.tuning import study as study_module
from stanhop.tuning.space import Dimension
from stanhop.tuning.study import SearchResult, search
from stanhop.tuning.trial import train_trial

Space = tuple[Dimension, ...]
Loss = Callable[[RunConfig], list[float]]


@pytest.fixture
def losses(monkeypatch: pytest.MonkeyPatch) -> Callable[[Loss], list[RunConfig]]:
    """Put a formula in place of training; what comes back grows by the configuration of each trial."""

    def arrange(formula: Loss) -> list[RunConfig]:
        tried: list[RunConfig] = []

        def train(config: RunConfig, _: SeriesSet, *, on_epoch: Callable[[Epoch], None], signals: SignalWatch) -> Epoch:
            tried.append(config)
            epochs = [
                Epoch(number, loss, loss, 0.1, 0.1, is_best=True)
                for number, loss in enumerate(formula(config), start=1)
            ]
            for epoch in epochs:
                on_epoch(epoch)
            return min(epochs, key=lambda epoch: epoch.validation_loss)

        monkeypatch.setattr(study_module, "train_trial", train)
        return tried

    return arrange


def bowl(config: RunConfig) -> list[float]:
    """Best at a learning rate of 0.05."""
    distance = abs(config.train.learning_rate - 0.05) + 0.01 * (config.model.model_dim == 4)
    return [distance + 1, distance]


def run(config: RunConfig, space: Space, folder: Path, **options: Any) -> SearchResult:
    return search(config, space, folder=folder / "tune", **{"num_trials": 6, **options})


def test_a_trial_has_the_losses_of_a_training(config: RunConfig, tmp_path: Path) -> None:
    seen: list[Epoch] = []
    with SignalWatch(how_to_go_on="again") as signals:
        best = train_trial(config, load_series(config.data), on_epoch=seen.append, signals=signals)
    result = fit(config, run_path=tmp_path / "run", progress=False)
    assert best.validation_loss == result.metrics["val/best_loss"]
    assert [epoch.epoch for epoch in seen] == [1, 2]


@pytest.mark.slow
def test_a_search_finds_what_is_better_than_its_start(
    config: RunConfig, space: Space, tmp_path: Path, losses: Callable[[Loss], list[RunConfig]]
) -> None:
    tried = losses(bowl)
    result = run(config, space, tmp_path, num_trials=15)
    assert len(tried) == 15
    assert tried[0].train.learning_rate == config.train.learning_rate, "the start comes first"
    assert result.start_loss == pytest.approx(0.04)
    assert result.best.loss is not None
    assert result.best.loss < 0.04
    assert result.num_complete + result.num_pruned == 15


def test_the_best_is_a_preset_that_repeats_it(
    config: RunConfig, space: Space, tmp_path: Path, losses: Callable[[Loss], list[RunConfig]]
) -> None:
    losses(bowl)
    result = run(config, space, tmp_path)
    text = result.best_path.read_text()
    assert text.startswith("# The best of 6 trials")
    got = resolve([Layer("data", {"data": config.model_dump(mode="json")["data"]}), file_layer(result.best_path)])
    expected = flatten(config.model_dump(mode="json")) | dict(result.best.values)
    found = flatten(got.model_dump(mode="json"))
    differing = {key for key in expected if expected[key] != found[key]}
    assert differing <= {"train.seed", "train.device", "tracking.enabled"}


def test_a_search_goes_on_where_it_was(
    config: RunConfig, space: Space, tmp_path: Path, losses: Callable[[Loss], list[RunConfig]]
) -> None:
    tried = losses(bowl)
    run(config, space, tmp_path, num_trials=4)
    assert len(tried) == 4
    run(config, space, tmp_path, num_trials=7)
    assert len(tried) == 7
    assert len({each.train.learning_rate for each in tried}) == 7, "nothing is tried twice"
    run(config, space, tmp_path, num_trials=7)
    assert len(tried) == 7


def test_a_trial_that_was_cut_off_is_begun_anew(
    config: RunConfig, space: Space, tmp_path: Path, losses: Callable[[Loss], list[RunConfig]]
) -> None:
    def breaks(config: RunConfig) -> list[float]:
        raise KeyboardInterrupt

    losses(bowl)
    run(config, space, tmp_path, num_trials=2)
    cut_off = losses(breaks)
    with pytest.raises(KeyboardInterrupt):
        run(config, space, tmp_path, num_trials=4)
    tried = losses(bowl)
    result = run(config, space, tmp_path, num_trials=4)
    assert tried[0].train.learning_rate == cut_off[0].train.learning_rate
    assert len(tried) == 2
    assert result.num_complete + result.num_pruned == 4
    assert result.num_failed == 0


def test_a_signal_ends_the_search_after_its_step_and_the_trial_is_begun_anew(
    config: RunConfig, space: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, todo = ForecastingModule.training_step, [1]

    def training_step(self: ForecastingModule, batch: Any, batch_index: int) -> Any:
        if self.trainer.global_step == 2 and todo:
            todo.pop()
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, batch, batch_index)

    monkeypatch.setattr(ForecastingModule, "training_step", training_step)
    with pytest.raises(StoppedError, match="stopped by SIGTERM in a trial, which will begin anew") as caught:
        run(config, space, tmp_path, num_trials=1)
    assert caught.value.exit_code == 128 + signal.SIGTERM
    result = run(config, space, tmp_path, num_trials=1)
    assert (result.num_complete, result.start_loss) == (1, result.best.loss)


@pytest.mark.slow
def test_weak_trials_are_cut_short(
    config: RunConfig, space: Space, tmp_path: Path, losses: Callable[[Loss], list[RunConfig]]
) -> None:
    losses(lambda config: [bowl(config)[1] + extra for extra in (0.0, 0.0, 0.0)])
    result = run(config, space, tmp_path, num_trials=14)
    assert result.num_pruned > 0
    assert result.best.state == "complete"


def test_a_trial_that_cannot_be_trained_ends_nothing(
    config: RunConfig, space: Space, tmp_path: Path, losses: Callable[[Loss], list[RunConfig]]
) -> None:
    def diverges(config: RunConfig) -> list[float]:
        if config.model.model_dim == 4:
            raise DivergedError(Code.DIVERGED, "the loss is nan")
        return bowl(config)

    losses(diverges)
    result = run(config, space, tmp_path)
    assert result.num_failed > 0
    assert result.best.values["model.model_dim"] == 6


def test_values_that_do_not_go_together_fail_their_trial_alone(
    config: RunConfig, tmp_path: Path, losses: Callable[[Loss], list[RunConfig]]
) -> None:
    losses(bowl)
    heads = (Dimension("model.num_heads", choices=(2, 4)),)  # 4 does not divide a model_dim of 6
    result = run(config, heads, tmp_path, num_trials=6)
    assert result.num_failed > 0
    assert result.best.values == {"model.num_heads": 2}


def test_a_search_without_a_trial_that_worked_says_why(
    config: RunConfig, space: Space, tmp_path: Path, losses: Callable[[Loss], list[RunConfig]]
) -> None:
    def diverges(config: RunConfig) -> list[float]:
        raise DivergedError(Code.DIVERGED, "the loss is nan")

    losses(diverges)
    with pytest.raises(DataError, match="none of 3 trials could be trained: the loss is nan"):
        run(config, space, tmp_path, num_trials=3)


def test_the_folder_of_another_search_is_refused(
    config: RunConfig, space: Space, tmp_path: Path, losses: Callable[[Loss], list[RunConfig]]
) -> None:
    losses(bowl)
    run(config, space, tmp_path, num_trials=1)
    with pytest.raises(OutputError, match="another configuration or space"):
        run(config, space[:1], tmp_path, num_trials=1)
    other = resolve([Layer("base", config.model_dump(mode="json")), Layer("set", nest({"train.batch_size": 7}))])
    with pytest.raises(OutputError, match="another configuration or space"):
        run(other, space, tmp_path, num_trials=1)


@pytest.mark.slow
def test_the_test_rows_are_not_looked_at(
    config: RunConfig, space: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: Path
) -> None:
    before = run(config, space, tmp_path / "before", num_trials=2)
    lines = table.read_text().splitlines()
    num_test = int(0.2 * (len(lines) - 1))
    changed = [",".join([line.split(",")[0], *("0" for _ in line.split(",")[1:])]) for line in lines[-num_test:]]
    (tmp_path / "sales.csv").write_text("\n".join([*lines[:-num_test], *changed]) + "\n")
    other = config.model_copy(update={"data": config.data.model_copy(update={"source": str(tmp_path / "sales.csv")})})
    after = run(other, space, tmp_path / "after", num_trials=2)
    assert (after.best.loss, dict(after.best.values)) == (before.best.loss, dict(before.best.values))


def test_mlflow_has_the_trials_as_parts_of_the_search(
    config: RunConfig, space: Space, tracking_folder: Path, losses: Callable[[Loss], list[RunConfig]]
) -> None:
    losses(bowl)
    tracked = config.model_copy(update={"tracking": TrackingConfig()})
    result = run(tracked, space, tracking_folder, num_trials=2)
    result = run(tracked, space, tracking_folder, num_trials=3)
    runs = find_runs(TrackingConfig(), folder=tracking_folder)
    trials = [each for each in runs if each.tags.get("mlflow.parentRunId") == result.run_id]
    assert {each.name for each in trials} == {"trial-0", "trial-1", "trial-2"}
    assert len(runs) == 4
    assert all(each.status == "FINISHED" and "tune/best_loss" in each.metrics for each in runs)
    assert not [each for each in runs if each.is_fitted], "a trial is no training to compare: it has no test metrics"
    (parent,) = [each for each in runs if each.id == result.run_id]
    assert parent.artifact_path is not None
    assert (parent.artifact_path / "best.yaml").read_text() == result.best_path.read_text()


def test_the_study_is_a_database_that_optuna_reads(
    config: RunConfig, space: Space, tmp_path: Path, losses: Callable[[Loss], list[RunConfig]]
) -> None:
    losses(bowl)
    result = run(config, space, tmp_path, num_trials=3)
    with closing(sqlite3.connect(result.folder / "study.db")) as database:
        assert database.execute("SELECT count(*) FROM trials").fetchone() == (3,)
