"""One MLflow run: what is recorded about a training, so that it can be found, compared and repeated.

Tracking never stops training: what a store that does not answer cannot be told is kept beside the runs, and sent when
it is back (``unsent``).
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import stanhop
from stanhop.config import RunConfig, flatten
from stanhop.errors import MachineError, StoppedError, masked
from stanhop.resources import PACKAGE
from stanhop.series.frame import SeriesSet
from stanhop.tracking import events
from stanhop.tracking.dead_runs import LIFE_TAG, Life, close_dead_runs, process_tags
from stanhop.tracking.names import PARENT_TAG
from stanhop.tracking.store import Store, open_again, reason
from stanhop.tracking.unsent import PREFIX, Unsent, find_record, known_steps, send, send_all

logger = logging.getLogger(__name__)

LONGEST_PARAMETER = 6000  # MLflow's limit
LONGEST_DIGEST = 36  # MLflow's limit for that of a data set
RETRY_S = 300.0
"""How often a store that does not answer is asked again: a try may take ten seconds of the training."""
SEND_LATER = "the next run that reaches the store sends it, or `stanhop tracking send`"
Status = Literal["FINISHED", "FAILED", "KILLED"]


class TrackedRun:
    """A run that is being recorded, or one that is not: then every method does nothing.

    Args:
        store: The store that holds it; None records nothing.
        run_id: Its id in the store.
        last_steps: The last step of each metric that the store has already, so that a resumed run repeats none.
        name: What people call it.
        unsent: Where what happens is kept while the store does not answer; None while it does.
        life: Shows that this process is alive until the run ends.
    """

    def __init__(
        self,
        store: Store | None,
        run_id: str | None,
        last_steps: Mapping[str, int] | None = None,
        *,
        name: str = "",
        unsent: Unsent | None = None,
        life: Life | None = None,
    ) -> None:
        self._store = store
        self._last_steps = dict(last_steps or {})
        self._name = name
        self._unsent = unsent
        self._life = life
        self._is_lost = False
        self._tried_s = time.monotonic()
        self.run_id = run_id

    def log_config(self, config: RunConfig) -> None:
        """Record every key of ``config`` as a parameter, by its dotted name."""
        values = {key: masked(str(value)) for key, value in flatten(config.model_dump(mode="json")).items()}
        self._tell(events.params({key: value[:LONGEST_PARAMETER] for key, value in values.items()}))

    def log_data(self, series_set: SeriesSet, *, name: str, source: str) -> None:
        """Record which data were used, as an input of the run."""
        num_rows = sum(len(series) for series in series_set.series)
        profile = {"num_series": len(series_set.series), "num_rows": num_rows, "frequency": series_set.frequency}
        columns = [{"name": channel, "type": "double", "required": True} for channel in series_set.channels]
        self._tell(
            events.inputs(
                name=name,
                digest=series_set.fingerprint[:LONGEST_DIGEST],
                source_type="local",
                source=json.dumps({"uri": source}),
                schema=json.dumps({"mlflow_colspec": columns}),
                profile=json.dumps(profile),
            )
        )

    def log_metrics(self, metrics: Mapping[str, float], *, step: int = 0) -> None:
        """Record ``metrics`` at ``step`` (the epoch), but infinite ones: MLflow would store another number for them."""
        infinite = sorted(name for name, value in metrics.items() if math.isinf(value))
        if infinite:
            logger.warning("%s is infinite and not recorded in MLflow", ", ".join(infinite))
        finite = {name: value for name, value in metrics.items() if name not in infinite}
        self._tell(events.metrics(finite, step=step))

    def log_file(self, path: Path) -> None:
        """Keep a copy of the file at ``path``."""
        self._tell(events.file(path))

    def log_content(self, name: str, content: bytes) -> None:
        """Keep ``content`` as a file called ``name``."""
        self._tell(events.content(name, content))

    def log_folder(self, path: Path) -> None:
        """Keep a copy of the folder at ``path``, under its own name."""
        self._tell(events.folder(path))

    def log_model(self, path: Path, *, name: str, params: Mapping[str, str], metrics: Mapping[str, float]) -> None:
        """Record the model directory at ``path`` as a logged model of its own, so that MLflow ranks it with others.

        The directory is kept as it is; its ``metrics`` belong to the run and to the model.
        """
        self._tell(events.model(path, name=name, params=params, metrics=metrics))

    def finish(self, status: Status) -> None:
        """Close the run, and try once more to send what is unsent."""
        self._tell(events.finish(status))
        if self._is_lost and not self._close_lost(status):
            return  # the sign of life is left behind, for the next run to close this one
        if self._life is not None:
            self._life.end()
        if self._unsent is None or self._store is None or self._is_lost:
            return
        self._send()
        if self._unsent is not None:
            logger.warning("MLflow: run %s is kept in %s; %s", self._name, self._unsent.path, SEND_LATER)

    def _close_lost(self, status: Status) -> bool:
        """Close the run although a part of it is lost; whether the store took that."""
        assert self._store is not None
        try:
            events.tell(events.finish(status), self._store.client, str(self.run_id), self._last_steps)
        except Exception as error:  # as in _tell
            logger.info("MLflow: %s", reason(error))
            return False
        return True

    def _tell(self, event: events.Event) -> None:
        """Tell the store, or keep it until the store answers."""
        if self._store is None or self._is_lost:
            return
        if self._unsent is not None and time.monotonic() - self._tried_s > RETRY_S:
            self._send()
        if self._unsent is None:
            try:
                events.tell(event, self._store.client, str(self.run_id), self._last_steps)
                return
            except Exception as error:  # MLflow, SQLAlchemy, requests and boto each raise their own
                if events.is_refusal(error):
                    logger.warning("MLflow refuses %s: %s", event["kind"], reason(error))
                    return
                self._begin_to_keep(error)
        self._keep(event)

    def open_unsent(self, tags: Mapping[str, str]) -> None:
        """Begin the file of a run whose store does not answer; until it does, the file's name stands for its id."""
        store, unsent, known = self._store, self._unsent, self.run_id
        assert store is not None
        assert unsent is not None
        self.run_id = known or f"{PREFIX}{unsent.record}"
        self._guarded(lambda file: file.begin(store, run_id=known, name=self._name, tags=tags))

    def _begin_to_keep(self, error: Exception) -> None:
        store = self._store
        assert store is not None
        logger.warning("MLflow: %s; what follows of this run is kept in %s", reason(error), store.unsent_folder)
        self._tried_s = time.monotonic()
        self._unsent = Unsent.of(store.unsent_folder)
        tags = {**process_tags(), **({} if self._life is None else {LIFE_TAG: self._life.token})}
        self._guarded(lambda unsent: unsent.begin(store, run_id=self.run_id, name=self._name, tags=tags))

    def _keep(self, event: events.Event) -> None:
        self._guarded(lambda unsent: unsent.add(event))

    def _guarded(self, write: Callable[[Unsent], None]) -> None:
        """Write what is unsent; where that is not possible either, say so and record nothing more."""
        if self._unsent is None or self._is_lost:
            return
        try:
            write(self._unsent)
        except MachineError as error:
            self._is_lost = True
            logger.warning("MLflow: %s; what follows of this run is not recorded", error.message)

    def _send(self) -> None:
        """Send what is unsent, if the store answers again."""
        store, unsent = self._store, self._unsent
        assert store is not None
        assert unsent is not None
        self._tried_s = time.monotonic()
        try:
            store = open_again(store)
            sent = send(unsent, store, is_over=False)
        except Exception as error:  # as above
            logger.info("MLflow: %s", reason(error))
            return
        self._store, self._unsent, self.run_id, self._last_steps = store, None, sent.run_id, sent.last_steps


def start_run(
    store: Store | None,
    *,
    name: str,
    tags: Mapping[str, str],
    run_id: str | None = None,
    parent_run_id: str | None = None,
) -> TrackedRun:
    """Begin a run, or go on with the one called ``run_id`` if the store still has it; either is a part of the parent.

    On the way runs that dead processes left open are closed as KILLED, and what could not be sent before is sent. A
    store that does not answer is told later.
    """
    if store is None:
        return TrackedRun(None, None)
    if parent_run_id is not None:
        tags = {**tags, PARENT_TAG: parent_run_id}
    life = Life(store)
    all_tags = {**tags, **process_tags(), LIFE_TAG: life.token, "mlflow.source.name": "stanhop"}
    if store.is_reachable:
        try:
            return _start(store, name=name, tags=all_tags, run_id=run_id, life=life)
        except Exception as error:  # as in TrackedRun._tell
            logger.warning("MLflow: %s; this run is kept in %s", reason(error), store.unsent_folder)
    return _start_unsent(store, name=name, tags=all_tags, run_id=run_id, life=life)


def _start(store: Store, *, name: str, tags: Mapping[str, str], run_id: str | None, life: Life) -> TrackedRun:
    num_sent = send_all(store)
    if num_sent:
        logger.warning("MLflow: sent %d run%s that it had missed", num_sent, "s" * (num_sent != 1))
    if run_id is not None and run_id.startswith(PREFIX):
        run_id = find_record(store, run_id.removeprefix(PREFIX))
    reopened = None if run_id is None else _reopen(store, run_id, tags, name=name, life=life)
    close_dead_runs(store)
    if reopened is not None:
        return reopened
    started = store.client.create_run(store.experiment_id, run_name=name, tags=dict(tags))
    return TrackedRun(store, started.info.run_id, name=name, life=life)


def _start_unsent(store: Store, *, name: str, tags: Mapping[str, str], run_id: str | None, life: Life) -> TrackedRun:
    """A run that the store does not know of yet, or does not answer for."""
    is_unsent = run_id is not None and run_id.startswith(PREFIX)
    unsent = Unsent.of(store.unsent_folder, str(run_id).removeprefix(PREFIX) if is_unsent else None)
    run = TrackedRun(store, None if is_unsent else run_id, name=name, unsent=unsent, life=life)
    run.open_unsent(tags)
    return run


@contextmanager
def closing(run: TrackedRun) -> Iterator[TrackedRun]:
    """``run``, closed as FINISHED, KILLED or FAILED according to how the block ends."""
    try:
        yield run
    except BaseException as error:
        run.finish("KILLED" if isinstance(error, StoppedError | KeyboardInterrupt) else "FAILED")
        raise
    run.finish("FINISHED")


@contextmanager
def recorded(store: Store | None, *, name: str, tags: Mapping[str, str]) -> Iterator[TrackedRun]:
    """A new run, ``closing`` with the block."""
    with closing(start_run(store, name=name, tags=tags)) as run:
        yield run


def run_tags(config: RunConfig, series_set: SeriesSet, *, dataset: str) -> dict[str, str]:
    """What runs are searched by: the program, the data, and the two settings that experiments vary most."""
    commit = git_commit(PACKAGE.parent)
    return {
        "stanhop.version": stanhop.__version__,
        "stanhop.dataset": dataset,
        "stanhop.dataset_sha256": series_set.fingerprint,
        "stanhop.separation": config.model.separation,
        "stanhop.seed": str(config.train.seed),
        **({} if commit is None else {"mlflow.source.git.commit": commit}),
    }


def git_commit(checkout: Path) -> str | None:
    """The commit that ``checkout`` stands at, read from its ``.git`` folder; None if there is none."""
    folder = checkout / ".git"
    try:
        head = (folder / "HEAD").read_text().strip()
        if not head.startswith("ref: "):
            return head
        reference = head.removeprefix("ref: ")
        if (folder / reference).exists():
            return (folder / reference).read_text().strip()
        packed = (folder / "packed-refs").read_text().splitlines()
    except OSError:
        return None
    return next((line.split()[0] for line in packed if line.endswith(f" {reference}")), None)


def _reopen(store: Store, run_id: str, tags: Mapping[str, str], *, name: str, life: Life) -> TrackedRun | None:
    try:
        last_steps = known_steps(store, run_id)
    except Exception as error:
        if not events.is_refusal(error):
            raise
        logger.warning("MLflow no longer has run %s; a new run is recorded", run_id)
        return None
    store.client.update_run(run_id, status="RUNNING")
    for key, value in tags.items():
        store.client.set_tag(run_id, key, value)
    return TrackedRun(store, run_id, last_steps, name=name, life=life)
