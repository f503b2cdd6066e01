"""A search over configurations: trial after trial, each told to Optuna and to MLflow, stopped and gone on with at will.

Trials are chosen by Optuna's TPE sampler from the validation losses so far; the configuration that the search starts
from is the first one, so that what is found is never worse by validation. A trial whose loss after an epoch is above
the median of those before it is cut short. The test rows are not looked at.

Source: Bergstra et al. 2011 (TPE), Golovin et al. 2017 (median stopping), as Optuna implements them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from stanhop.config import Layer, RunConfig, dump_yaml, flatten, nest, resolve
from stanhop.errors import Code, ConfigError, DataError, DivergedError, MachineError, OutputError, StoppedError, masked
from stanhop.series.frame import SeriesSet
from stanhop.series.load import load_series
from stanhop.storage import locked, make_directory, write_text
from stanhop.tracking.run import TrackedRun, run_tags, start_run
from stanhop.tracking.store import Store, open_store
from stanhop.training.guards import SignalWatch
from stanhop.training.journal import Epoch
from stanhop.tuning.space import Dimension
from stanhop.tuning.trial import train_trial

DATABASE, BEST, LOCK = "study.db", "best.yaml", ".lock"
NAME = "stanhop"
STARTED_WITH, PARENT = "started_with", "run_id"
"""What a study keeps beside its trials: the base configuration with the space, and MLflow's id of the parent run."""
OBJECTIVE = "tune/best_loss"
NUM_UNPRUNED_TRIALS = 5
NUM_UNPRUNED_EPOCHS = 1
NO_PART_OF_A_PRESET = ("train.seed", "train.device", "train.devices", "train.strategy", "train.compile")
EXTRA = "pip install 'stanhop[tune]'"
State = Literal["complete", "pruned", "failed"]


@dataclass(frozen=True)
class TrialResult:
    """What became of one trial.

    Args:
        number: From 0.
        values: The keys that vary.
        loss: Its lowest validation loss; None if it failed.
        state: ``complete``, ``pruned`` (cut short) or ``failed``.
        problem: Why it failed.
    """

    number: int
    values: Mapping[str, Any]
    loss: float | None
    state: State
    problem: str | None = None


@dataclass(frozen=True)
class SearchResult:
    """Where a search stands.

    Args:
        folder: Its folder.
        best_path: The preset with the best configuration.
        best: The best trial.
        start_loss: Loss of the configuration that the search started from; None where the space does not hold it.
        num_complete: Trials trained to the end.
        num_pruned: Trials cut short.
        num_failed: Trials that could not be trained.
        run_id: MLflow's id of the parent run.
    """

    folder: Path
    best_path: Path
    best: TrialResult
    start_loss: float | None
    num_complete: int
    num_pruned: int
    num_failed: int
    run_id: str | None


Report = Callable[[TrialResult, TrialResult, int], None]


class _Pruned(Exception):  # noqa: N818 - no error: a trial is cut short
    """A trial is not worth going on with."""


def require_optuna() -> None:
    """Raise ``MachineError`` if the package of the extra is missing, naming what brings it."""
    if find_spec("optuna") is None:
        raise MachineError(Code.ENVIRONMENT, "a search needs optuna, which is not installed", fix=EXTRA)


def search(
    config: RunConfig,
    space: Sequence[Dimension],
    *,
    folder: Path,
    num_trials: int,
    timeout_s: float | None = None,
    report: Report = lambda trial, best, num_done: None,
) -> SearchResult:
    """Search ``space`` from ``config`` on until ``folder`` holds ``num_trials`` trials; what is done is not done again.

    Args:
        config: The configuration to start from; what the space does not name stays as it is.
        space: What varies.
        folder: With the study, gone on with if it is there.
        num_trials: Trials in all, those of earlier calls included.
        timeout_s: Begin no trial after so many seconds.
        report: Called with each trial, the best so far, and the number of those done.

    Raises:
        UserError: data, configuration or folder do not allow it.
        DataError: no trial could be trained.
        StoppedError: SIGTERM or SIGINT; the trials that are done are kept.
    """
    require_optuna()
    if config.train.devices > 1:
        raise ConfigError(
            Code.CONFIG, f"train.devices is {config.train.devices}, a search takes one", fix="set it to 1"
        )
    make_directory(folder)
    how_to_go_on = f"go on with the same command and --output {folder}"
    with locked(folder / LOCK), SignalWatch(how_to_go_on=how_to_go_on) as signals:
        series_set = load_series(config.data)
        study = _open_study(folder, config, space)
        with _parent(study, config, series_set, folder) as (store, parent):
            return _Search(config, tuple(space), folder, series_set, study, store, parent, signals, report).run(
                num_trials=num_trials, timeout_s=timeout_s
            )


@dataclass(frozen=True)
class _Search:
    """A search at work in its folder, which it has locked."""

    config: RunConfig
    space: tuple[Dimension, ...]
    folder: Path
    series_set: SeriesSet
    study: Any  # Optuna's
    store: Store | None
    parent: TrackedRun
    signals: SignalWatch
    report: Report

    def run(self, *, num_trials: int, timeout_s: float | None) -> SearchResult:
        began_s = time.monotonic()
        self._take_up_what_was_cut_off()
        if not self.study.trials:
            self._begin_with_the_start()
        while self._num_done() < num_trials and (timeout_s is None or time.monotonic() - began_s < timeout_s):
            self.signals.stop_if_received("between two trials", can_resume=True)
            done = self._do(self.study.ask())
            if self._is_any_complete():
                self._write_best()
                self.report(done, self._best(), self._num_done())
        return self._result()

    def _do(self, trial: Any) -> TrialResult:
        """Train the configuration of ``trial`` and tell the study."""
        from optuna.trial import TrialState

        values = {dimension.key: dimension.suggest(trial) for dimension in self.space}
        losses: list[float] = []
        run = start_run(
            self.store,
            name=f"trial-{trial.number}",
            tags={**run_tags(self.config, self.series_set, dataset=_dataset(self.config)), "stanhop.command": "tune"},
            parent_run_id=self.parent.run_id,
        )

        def on_epoch(epoch: Epoch) -> None:
            losses.append(epoch.validation_loss)
            run.log_metrics(epoch.metrics, step=epoch.epoch)
            trial.report(min(losses), epoch.epoch)
            if trial.should_prune():
                raise _Pruned

        try:
            config = resolve([Layer("base", self.config.model_dump(mode="json")), Layer("trial", nest(values))])
            run.log_config(config)
            loss = train_trial(config, self.series_set, on_epoch=on_epoch, signals=self.signals).validation_loss
        except _Pruned:
            self.study.tell(trial, state=TrialState.PRUNED)
            result = TrialResult(trial.number, values, min(losses), "pruned")
        except (DivergedError, ConfigError, DataError) as error:
            trial.set_user_attr("problem", error.problem)
            self.study.tell(trial, state=TrialState.FAIL)
            result = TrialResult(trial.number, values, None, "failed", error.problem)
        except BaseException as error:
            run.finish("KILLED" if isinstance(error, StoppedError | KeyboardInterrupt) else "FAILED")
            raise
        else:
            self.study.tell(trial, loss)
            result = TrialResult(trial.number, values, loss, "complete")
        run.log_metrics({} if result.loss is None else {OBJECTIVE: result.loss})
        run.finish("FAILED" if result.state == "failed" else "FINISHED")
        return result

    def _take_up_what_was_cut_off(self) -> None:
        """Trials that a process which ended left open are begun anew."""
        from optuna.trial import TrialState

        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            self.study.enqueue_trial(trial.params)
            self.study.tell(trial.number, state=TrialState.FAIL)
            self.study.set_user_attr(f"cut_off_{trial.number}", True)

    def _begin_with_the_start(self) -> None:
        values = self._start_values()
        if values is not None:
            self.study.enqueue_trial(values)

    def _start_values(self) -> dict[str, Any] | None:
        """Where the search starts from; None if that is outside of the space."""
        flat = flatten(self.config.model_dump(mode="json"))
        if not all(dimension.holds(flat[dimension.key]) for dimension in self.space):
            return None
        return {dimension.key: flat[dimension.key] for dimension in self.space}

    def _results(self) -> list[TrialResult]:
        """All trials that are done, but those that were cut off."""
        from optuna.trial import TrialState

        states: dict[Any, State] = {
            TrialState.COMPLETE: "complete",
            TrialState.PRUNED: "pruned",
            TrialState.FAIL: "failed",
        }
        attributes = self.study.user_attrs
        return [
            TrialResult(
                number=trial.number,
                values=trial.params,
                loss=trial.value if trial.state is TrialState.COMPLETE else _lowest(trial.intermediate_values),
                state=states[trial.state],
                problem=trial.user_attrs.get("problem"),
            )
            for trial in self.study.get_trials(deepcopy=False, states=tuple(states))
            if f"cut_off_{trial.number}" not in attributes
        ]

    def _num_done(self) -> int:
        return len(self._results())

    def _is_any_complete(self) -> bool:
        return any(result.state == "complete" for result in self._results())

    def _best(self) -> TrialResult:
        complete = [result for result in self._results() if result.state == "complete"]
        return min(complete, key=lambda result: (result.loss, result.number))

    def _write_best(self) -> None:
        write_text(self.folder / BEST, preset_text(self.config, self._best(), num_trials=self._num_done()))

    def _result(self) -> SearchResult:
        results = self._results()
        if not self._is_any_complete():
            problem = next((f": {each.problem}" for each in results if each.problem), "")
            fix = "narrow the space down, or raise --trials"
            raise DataError(Code.CONFIG, f"none of {len(results)} trials could be trained{problem}", fix=fix)
        best = self._best()
        self._write_best()
        self.parent.log_metrics({OBJECTIVE: float(best.loss or 0.0)}, step=len(results))
        self.parent.log_file(self.folder / BEST)
        start = self._start_values()
        losses = [result.loss for result in results if dict(result.values) == start and result.state == "complete"]
        counts = {state: sum(result.state == state for result in results) for state in ("complete", "pruned", "failed")}
        return SearchResult(
            folder=self.folder,
            best_path=self.folder / BEST,
            best=best,
            start_loss=losses[0] if losses else None,
            num_complete=counts["complete"],
            num_pruned=counts["pruned"],
            num_failed=counts["failed"],
            run_id=self.parent.run_id,
        )


def preset_text(config: RunConfig, best: TrialResult, *, num_trials: int) -> str:
    """The best configuration as a preset: the whole sections ``model`` and ``train``, but for seed and device."""
    flat = flatten(config.model_dump(mode="json")) | dict(best.values)
    kept = {
        key: value
        for key, value in flat.items()
        if key.split(".")[0] in ("model", "train") and key not in NO_PART_OF_A_PRESET
    }
    source = config.data.source
    varied = ", ".join(best.values)
    lines = [
        f"# The best of {num_trials} trials of `stanhop tune` on {source}: validation loss {best.loss:.6g}"
        f" ({config.train.loss}, seed {config.train.seed}).",
        f"# Searched: {varied}.",
        f"# Run: stanhop train --data {source} -c {BEST}",
    ]
    return "\n".join(line.replace("\n", " ") for line in lines) + "\n" + dump_yaml(nest(kept))


def _open_study(folder: Path, config: RunConfig, space: Sequence[Dimension]) -> Any:
    """The study in ``folder``, new or of the same configuration and space.

    Raises:
        OutputError: it is of others.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    started_with = json.dumps(
        {
            "config": {
                key: value
                for key, value in flatten(config.model_dump(mode="json")).items()
                if not key.startswith("tracking.")
            },
            "space": {dimension.key: dimension.to_plain() for dimension in space},
        }
    )
    storage = optuna.storages.RDBStorage(f"sqlite:///{(folder / DATABASE).absolute()}")
    study = optuna.create_study(
        storage=storage,
        study_name=NAME,
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=NUM_UNPRUNED_TRIALS, n_warmup_steps=NUM_UNPRUNED_EPOCHS),
    )
    # A sampler starts anew in each process: with one seed it would try the same again.
    study.sampler = optuna.samplers.TPESampler(seed=config.train.seed + len(study.get_trials(deepcopy=False)))
    known = study.user_attrs.get(STARTED_WITH)
    if known is None:
        study.set_user_attr(STARTED_WITH, started_with)
    elif known != started_with:
        problem = "holds a search that was started with another configuration or space"
        raise OutputError(Code.OUTPUT, problem, fix="name another folder with --output", file=folder)
    return study


@contextmanager
def _parent(
    study: Any, config: RunConfig, series_set: SeriesSet, folder: Path
) -> Iterator[tuple[Store | None, TrackedRun]]:
    """The store, and the run that all trials are parts of: that of this study if there is one already."""
    tracking = config.tracking
    store = open_store(tracking, folder=Path.cwd()) if tracking.enabled else None
    tags = {**run_tags(config, series_set, dataset=_dataset(config)), "stanhop.command": "tune"}
    run = start_run(store, name=folder.name, tags=tags, run_id=study.user_attrs.get(PARENT))
    if run.run_id is not None:
        study.set_user_attr(PARENT, run.run_id)
    run.log_config(config.model_copy(update={"tracking": tracking.model_copy(update={"uri": _masked(tracking.uri)})}))
    try:
        yield store, run
    except BaseException as error:
        run.finish("KILLED" if isinstance(error, StoppedError | KeyboardInterrupt) else "FAILED")
        raise
    run.finish("FINISHED")


def _masked(uri: str | None) -> str | None:
    return uri and masked(uri)


def _dataset(config: RunConfig) -> str:
    return Path(config.data.source).name


def _lowest(reported: Mapping[int, float]) -> float | None:
    return min(reported.values(), default=None)
