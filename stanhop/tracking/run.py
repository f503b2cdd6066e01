"""One MLflow run: what is recorded about a training, so that it can be found, compared and repeated.

Once the run is open, tracking never stops training: the first call that fails is reported, the later ones are not made.
"""

from __future__ import annotations

import json
import logging
import math
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import stanhop
from stanhop.config import RunConfig, flatten
from stanhop.errors import StoppedError, masked
from stanhop.resources import PACKAGE
from stanhop.series.frame import SeriesSet
from stanhop.storage import is_alive, temporary_folder, write_bytes
from stanhop.tracking.names import PARENT_TAG
from stanhop.tracking.store import Store, reason

logger = logging.getLogger(__name__)

LONGEST_PARAMETER = 6000  # MLflow's limit
LONGEST_DIGEST = 36  # MLflow's limit for that of a data set
HOST_TAG = "stanhop.host"
PROCESS_TAG = "stanhop.process"
Status = Literal["FINISHED", "FAILED", "KILLED"]


class TrackedRun:
    """A run that is being recorded, or one that is not: then every method does nothing.

    Args:
        store: The store that holds it; None records nothing.
        run_id: Its id in the store.
        last_steps: The last step of each metric that the store has already, so that a resumed run repeats none.
    """

    def __init__(self, store: Store | None, run_id: str | None, last_steps: Mapping[str, int] | None = None) -> None:
        self._store = store
        self._is_lost = False
        self._last_steps = dict(last_steps or {})
        self.run_id = run_id

    def log_config(self, config: RunConfig) -> None:
        """Record every key of ``config`` as a parameter, by its dotted name."""
        values = {key: masked(str(value)) for key, value in flatten(config.model_dump(mode="json")).items()}

        def log(client: Any) -> None:
            from mlflow.entities import Param

            client.log_batch(self.run_id, params=[Param(key, values[key][:LONGEST_PARAMETER]) for key in values])

        self._attempt(log)

    def log_data(self, series_set: SeriesSet, *, name: str, source: str) -> None:
        """Record which data were used, as an input of the run."""
        num_rows = sum(len(series) for series in series_set.series)
        profile = {"num_series": len(series_set.series), "num_rows": num_rows, "frequency": series_set.frequency}
        columns = [{"name": channel, "type": "double", "required": True} for channel in series_set.channels]

        def log(client: Any) -> None:
            from mlflow.entities import Dataset, DatasetInput, InputTag

            data = Dataset(
                name=name,
                digest=series_set.fingerprint[:LONGEST_DIGEST],
                source_type="local",
                source=json.dumps({"uri": source}),
                schema=json.dumps({"mlflow_colspec": columns}),
                profile=json.dumps(profile),
            )
            context = InputTag("mlflow.data.context", "train, validation, test")
            client.log_inputs(self.run_id, datasets=[DatasetInput(data, tags=[context])])

        self._attempt(log)

    def log_metrics(self, metrics: Mapping[str, float], *, step: int = 0) -> None:
        """Record ``metrics`` at ``step`` (the epoch), but infinite ones: MLflow would store another number for them."""
        infinite = sorted(name for name, value in metrics.items() if math.isinf(value))
        if infinite:
            logger.warning("%s is infinite and not recorded in MLflow", ", ".join(infinite))
        unknown = {
            name: value
            for name, value in metrics.items()
            if name not in infinite and step > self._last_steps.get(name, -1)
        }

        def log(client: Any) -> None:
            from mlflow.entities import Metric

            now_ms = int(time.time() * 1000)
            client.log_batch(self.run_id, metrics=[Metric(name, unknown[name], now_ms, step) for name in unknown])

        self._attempt(log)

    def log_file(self, path: Path) -> None:
        """Keep a copy of the file at ``path``."""
        self._attempt(lambda client: client.log_artifact(self.run_id, str(path)))

    def log_content(self, name: str, content: bytes) -> None:
        """Keep ``content`` as a file called ``name``."""

        def log(client: Any) -> None:
            with temporary_folder() as folder:
                write_bytes(folder / name, content, durable=False)
                client.log_artifact(self.run_id, str(folder / name))

        self._attempt(log)

    def log_folder(self, path: Path) -> None:
        """Keep a copy of the folder at ``path``, under its own name."""
        self._attempt(lambda client: client.log_artifacts(self.run_id, str(path), artifact_path=path.name))

    def log_model(self, path: Path, *, name: str, params: Mapping[str, str], metrics: Mapping[str, float]) -> None:
        """Record the model directory at ``path`` as a logged model of its own, so that MLflow ranks it with others.

        The directory is kept as it is; its ``metrics`` belong to the run and to the model.
        """
        finite = {key: value for key, value in metrics.items() if math.isfinite(value)}

        def log(client: Any) -> None:
            run = client.get_run(self.run_id)
            model = client.create_logged_model(
                run.info.experiment_id, name=name, source_run_id=self.run_id, params=dict(params), tags=run.data.tags
            )
            client.log_model_artifacts(model.model_id, str(path))
            for key, value in finite.items():
                client.log_metric(self.run_id, key, value, model_id=model.model_id)
            client.finalize_logged_model(model.model_id, "READY")

        self._attempt(log)

    def finish(self, status: Status) -> None:
        """Close the run; tried also when the store was lost on the way."""
        self._is_lost = False
        self._attempt(lambda client: client.set_terminated(self.run_id, status=status))

    def _attempt(self, call: Callable[[Any], object]) -> None:  # an MlflowClient, which has no types
        """Do ``call`` with the store's client; if it fails, say so and record nothing more."""
        if self._store is None or self._is_lost:
            return
        try:
            call(self._store.client)
        except Exception as error:  # MLflow, SQLAlchemy, requests and boto each raise their own
            self._is_lost = True
            logger.warning("MLflow: %s; what follows of this run is not recorded, and not sent later", reason(error))


def start_run(
    store: Store | None,
    *,
    name: str,
    tags: Mapping[str, str],
    run_id: str | None = None,
    parent_run_id: str | None = None,
) -> TrackedRun:
    """Begin a run, or go on with the one called ``run_id`` if the store still has it; either is a part of the parent.

    Runs that dead processes of this machine left open are closed as KILLED on the way.
    """
    if store is None:
        return TrackedRun(None, None)
    if parent_run_id is not None:
        tags = {**tags, PARENT_TAG: parent_run_id}
    all_tags = {**tags, HOST_TAG: socket.gethostname(), PROCESS_TAG: str(os.getpid()), "mlflow.source.name": "stanhop"}
    try:
        reopened = None if run_id is None else _reopen(store, run_id, all_tags)
        if store.is_local:
            _close_runs_of_dead_processes(store)
        if reopened is not None:
            return reopened
        started = store.client.create_run(store.experiment_id, run_name=name, tags=all_tags)
    except Exception as error:  # as in TrackedRun._attempt
        logger.warning("MLflow: %s; this run is not recorded, and not sent later either", reason(error))
        return TrackedRun(None, None)
    return TrackedRun(store, started.info.run_id)


@contextmanager
def recorded(store: Store | None, *, name: str, tags: Mapping[str, str]) -> Iterator[TrackedRun]:
    """A new run, closed as FINISHED, KILLED or FAILED according to how the block ends."""
    run = start_run(store, name=name, tags=tags)
    try:
        yield run
    except BaseException as error:
        run.finish("KILLED" if isinstance(error, StoppedError | KeyboardInterrupt) else "FAILED")
        raise
    run.finish("FINISHED")


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


def _reopen(store: Store, run_id: str, tags: Mapping[str, str]) -> TrackedRun | None:
    from mlflow.exceptions import MlflowException

    try:
        metrics = store.client.get_run(run_id).data.metrics
    except MlflowException:
        logger.warning("MLflow no longer has run %s; a new run is recorded", run_id)
        return None
    store.client.update_run(run_id, status="RUNNING")
    for key, value in tags.items():
        store.client.set_tag(run_id, key, value)
    last_steps = {name: max(entry.step for entry in store.client.get_metric_history(run_id, name)) for name in metrics}
    return TrackedRun(store, run_id, last_steps)


def _close_runs_of_dead_processes(store: Store) -> None:
    """A process that is killed outright leaves its run open for ever; the next one closes it."""
    host = socket.gethostname().replace("'", "")
    running = f"attributes.status = 'RUNNING' and tags.`{HOST_TAG}` = '{host}'"
    for found in store.client.search_runs([store.experiment_id], filter_string=running):
        process = found.data.tags.get(PROCESS_TAG, "")
        if process.isdecimal() and not is_alive(int(process)):
            store.client.set_terminated(found.info.run_id, status="KILLED")
