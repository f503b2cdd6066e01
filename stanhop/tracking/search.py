"""Runs as plain records: all of an experiment, filtered, or the one that a person means.

A store that is a file is read by SQL: MLflow's own search takes seconds for a few thousand runs, and importing MLflow
takes some more. Servers are asked through MLflow.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlparse

from stanhop.config import RunConfig, TrackingConfig, flatten
from stanhop.errors import Code, ConfigError, DataError, MachineError, masked, quoted
from stanhop.tracking.names import NAME_TAG, PARENT_TAG, PRESET_TAG
from stanhop.tracking.store import SQLITE, START_TIMEOUT_S, no_experiment, open_store, reason, store_uri

FITTED = "val/best_loss"
"""The metric that every finished training has, and nothing else."""
LEAST_ID = 6
"""Characters of an id that may stand for it."""
PAGE = 1000


@dataclass(frozen=True)
class RunRecord:
    """One run as its store holds it.

    Args:
        id: MLflow's id.
        name: Its name, which a training takes from its folder.
        status: ``FINISHED``, ``FAILED``, ``KILLED`` or ``RUNNING``.
        start_ms: When it began, in milliseconds since 1970.
        end_ms: When it ended; None while it runs.
        artifact_uri: Where its files are.
        params: The flattened configuration, as text.
        metrics: The last value of each metric.
        tags: Its tags.
    """

    id: str
    name: str
    status: str
    start_ms: int
    end_ms: int | None
    artifact_uri: str
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_fitted(self) -> bool:
        """Whether it is a training that came to its end, so that it can be compared with others."""
        return FITTED in self.metrics and "train.seed" in self.params

    @property
    def seed(self) -> int:
        """The seed of a training."""
        return int(self.params["train.seed"])

    @property
    def artifact_path(self) -> Path | None:
        """The folder with its files, if that is on this machine."""
        parts = urlparse(self.artifact_uri)
        return Path(unquote(parts.path)) if parts.scheme in ("file", "") else None

    def setting(self, key: str) -> str:
        """The value of a configuration key as text; the default, where the run is older than the key."""
        return self.params.get(key, DEFAULTS.get(key, ""))


DEFAULTS = {key: str(value) for key, value in flatten(RunConfig().model_dump(mode="json")).items()}


@dataclass(frozen=True)
class Filter:
    """Which runs are meant; None and an empty mapping mean all.

    Args:
        data: Name of the data set.
        preset: Name of the preset.
        separation: Separation of the network.
        tags: Values of tags; the name ``baseline`` means ``stanhop.baseline`` where no such tag is there.
        status: As in ``RunRecord``.
        is_fitted: Whether only finished trainings are.
    """

    data: str | None = None
    preset: str | None = None
    separation: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    status: str | None = None
    is_fitted: bool = False

    def takes(self, run: RunRecord) -> bool:
        """Whether ``run`` is one of them."""
        wanted = {"stanhop.dataset": self.data, PRESET_TAG: self.preset, "stanhop.separation": self.separation}
        has_tags = all(value is None or run.tags.get(name) == value for name, value in wanted.items())
        has_tags = has_tags and all(_tag(run, name) == value for name, value in self.tags.items())
        return has_tags and self.status in (None, run.status) and (run.is_fitted or not self.is_fitted)

    def __str__(self) -> str:
        named = [("--data", self.data), ("--preset", self.preset), ("--separation", self.separation)]
        named += [("--tag", f"{name}={value}") for name, value in self.tags.items()] + [("--status", self.status)]
        return " ".join(f"{option} {value}" for option, value in named if value is not None)


def find_runs(tracking: TrackingConfig, *, folder: Path, chosen: Filter | None = None) -> list[RunRecord]:
    """The runs of an experiment that ``chosen`` takes, newest first; nothing is made or changed.

    Args:
        tracking: Address of the store and name of the experiment.
        folder: Where the store lies if no address is given.
        chosen: Which runs; all if None.

    Raises:
        ConfigError: the address cannot be one of a store, or there is no such experiment.
        MachineError: the store cannot be read.
    """
    uri = store_uri(tracking, folder=folder)
    if uri.startswith(SQLITE):
        runs = _read_database(database_path(uri), tracking.experiment)
    else:
        runs = _ask_server(tracking, folder)
    return sorted(filter((chosen or Filter()).takes, runs), key=lambda run: (-run.start_ms, run.id))


def pick(runs: Sequence[RunRecord], text: str) -> RunRecord:
    """The run that ``text`` names: its id or the first six or more characters of it, its name, or its folder.

    Raises:
        DataError: there is none, or several.
    """
    name = Path(text).name
    found = [run for run in runs if run.id == text]
    found = found or [run for run in runs if run.name == name]
    if not found and len(text) >= LEAST_ID:
        found = [run for run in runs if run.id.startswith(text)]
    if len(found) == 1:
        return found[0]
    if found:
        ids = ", ".join(run.id[:12] for run in found[:4]) + (", …" if len(found) > 4 else "")
        raise DataError(Code.TRACKING, f"{len(found)} runs are called {quoted(text)}", fix=f"name one by its id: {ids}")
    fix = "`stanhop runs list` shows names and ids; --tracking-uri and --experiment say where to look"
    raise DataError(Code.TRACKING, f"there is no run {quoted(text)}", fix=fix)


def children_of(runs: Iterable[RunRecord], parent: RunRecord) -> list[RunRecord]:
    """The runs that are parts of ``parent``, oldest first."""
    return sorted((run for run in runs if run.tags.get(PARENT_TAG) == parent.id), key=lambda run: run.start_ms)


def database_path(uri: str) -> Path:
    """The file that the address of a SQLite store means."""
    return Path(unquote(uri.removeprefix(SQLITE).partition("?")[0])).absolute()


def _tag(run: RunRecord, name: str) -> str | None:
    return run.tags.get(name, run.tags.get(f"stanhop.{name}"))


def _read_database(path: Path, experiment: str) -> list[RunRecord]:
    if not path.exists():
        fix = "train a model first, or name another store with --tracking-uri"
        raise ConfigError(Code.TRACKING, "there is no tracking store", fix=fix, file=path)
    try:
        with closing(
            sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=START_TIMEOUT_S)
        ) as database:
            return _read_runs(database, experiment)
    except sqlite3.Error as error:
        problem = f"the tracking store cannot be read: {reason(error)}"
        fix = "see whether `mlflow ui` opens it, or name another store with --tracking-uri"
        raise MachineError(Code.TRACKING, problem, fix=fix, file=path) from error


def _read_runs(database: sqlite3.Connection, experiment: str) -> list[RunRecord]:
    names = database.execute("SELECT experiment_id, name FROM experiments WHERE lifecycle_stage = 'active'").fetchall()
    ids = [number for number, name in names if name == experiment]
    if not ids:
        raise no_experiment(experiment, [name for _, name in names])
    rows = database.execute(
        "SELECT run_uuid, name, status, start_time, end_time, artifact_uri FROM runs "
        "WHERE experiment_id = ? AND lifecycle_stage = 'active'",
        ids,
    ).fetchall()
    params: dict[str, dict[str, str]] = {row[0]: {} for row in rows}
    tags: dict[str, dict[str, str]] = {row[0]: {} for row in rows}
    metrics: dict[str, dict[str, float]] = {row[0]: {} for row in rows}
    for table, place in (("params", params), ("tags", tags)):
        for run_id, key, value in database.execute(f"SELECT run_uuid, key, value FROM {table}"):
            if run_id in place:
                place[run_id][key] = value or ""
    for run_id, key, number, is_nan in database.execute("SELECT run_uuid, key, value, is_nan FROM latest_metrics"):
        if run_id in metrics:
            metrics[run_id][key] = math.nan if is_nan else number
    return [
        RunRecord(
            id=run_id,
            name=name or tags[run_id].get(NAME_TAG, ""),
            status=status,
            start_ms=start_ms,
            end_ms=end_ms,
            artifact_uri=artifact_uri,
            params=params[run_id],
            metrics=metrics[run_id],
            tags=tags[run_id],
        )
        for run_id, name, status, start_ms, end_ms, artifact_uri in rows
    ]


def _ask_server(tracking: TrackingConfig, folder: Path) -> list[RunRecord]:
    store = open_store(tracking, folder=folder, is_required=True, makes_experiment=False)
    runs: list[RunRecord] = []
    token: str | None = None
    try:
        while token or not runs:
            page = store.client.search_runs([store.experiment_id], max_results=PAGE, page_token=token)
            runs += map(_from_mlflow, page)
            token = page.token
            if not token:
                break
    except Exception as error:  # MLflow and requests each raise their own
        problem = f"tracking store {quoted(masked(tracking.uri or ''))}: {reason(error)}"
        raise MachineError(Code.TRACKING, problem, fix="see whether the server answers") from error
    return runs


def _from_mlflow(run: Any) -> RunRecord:  # MLflow has no types
    info, data = run.info, run.data
    return RunRecord(
        id=info.run_id,
        name=info.run_name or "",
        status=info.status,
        start_ms=info.start_time,
        end_ms=info.end_time,
        artifact_uri=info.artifact_uri,
        params=dict(data.params),
        metrics=dict(data.metrics),
        tags=dict(data.tags),
    )
