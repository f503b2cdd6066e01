"""The MLflow tracking store: where it lies, how it is opened, and what is said when it cannot be.

MLflow is imported inside functions only: it takes a second, and a run without tracking works without it.
"""

from __future__ import annotations

import logging
import os
import re
import sqlite3
import threading
import warnings
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from stanhop.config import TrackingConfig
from stanhop.errors import Code, ConfigError, MachineError, UserError, masked, quoted
from stanhop.storage import locked, make_directory

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

DATABASE = "mlflow.db"
ARTIFACTS = "mlruns"
UNSENT = "mlflow-unsent"
"""Folder of what a store that does not answer will be told later."""
SQLITE = "sqlite:///"
SERVERS = ("http", "https", "databricks", "postgresql", "mysql", "mssql")
START_TIMEOUT_S = 10.0
"""How long a server may take to answer before training starts without it."""
LOCK_TIMEOUT_S = 120.0
"""How long to wait for another process that makes the same database; MLflow needs seconds for it."""
WAY_OUT = "move it away, name another store with --tracking-uri, or add --no-tracking"

ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",  # what fails is told by whoever asked for it, without MLflow's traceback
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # standard output is for our result
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "4",  # seconds; with one retry a dead server costs 8 instead of MLflow's 16 minutes
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0",
}
"""Variables that MLflow reads when it is imported; what the user set stays."""


@dataclass(frozen=True)
class Store:
    """An open tracking store.

    Args:
        client: MLflow's client, bound to the store.
        experiment_id: The experiment that runs go to.
        is_local: Whether the store is a file of this machine.
        uri: Its address.
        experiment: Name of the experiment.
        unsent_folder: Where is kept what it could not be told.
        is_reachable: Whether it answered; otherwise ``client`` and ``experiment_id`` mean nothing.
    """

    client: MlflowClient
    experiment_id: str
    is_local: bool
    uri: str
    experiment: str
    unsent_folder: Path = Path(UNSENT)
    is_reachable: bool = True

    @property
    def life_folder(self) -> Path:
        """Where processes that record a run show that they are alive: all that share a file find one another."""
        return path_of(self.uri).parent / ARTIFACTS if self.is_local else self.unsent_folder


def store_uri(tracking: TrackingConfig, *, folder: Path) -> str:
    """The address of the store: the configured one, else ``mlflow.db`` in ``folder``, where ``mlflow ui`` looks.

    Raises:
        ConfigError: the address is a folder (MLflow refuses such stores) or of a kind we do not know.
    """
    if tracking.uri is None:
        # MLflow decodes %, and takes what follows a ? for options
        return SQLITE + str(folder.absolute() / DATABASE).replace("%", "%25").replace("?", "%3F")
    kind = re.match(r"([a-z]+)(\+[a-z0-9]+)?:", tracking.uri)
    if tracking.uri.startswith(SQLITE) or (kind is not None and kind[1] in SERVERS) or tracking.uri == "databricks":
        return tracking.uri
    problem = f"tracking.uri is {quoted(masked(tracking.uri))}, which is no database and no server"
    fix = f"write {SQLITE}{DATABASE}, or http://…; `mlflow migrate-filestore` moves an old folder of runs"
    raise ConfigError(Code.TRACKING, problem, fix=fix)


def open_store(
    tracking: TrackingConfig, *, folder: Path, is_required: bool = False, makes_experiment: bool = True
) -> Store:
    """Open the store that ``tracking`` names and find or make its experiment.

    Args:
        tracking: Address and experiment.
        folder: Where the store lies if no address is given.
        is_required: Whether a server that does not answer is an error; otherwise it is a warning.
        makes_experiment: Whether an experiment that a server does not have is made; otherwise it is an error.

    Returns:
        The store; one that is not reachable if it is a server that does not answer.

    Raises:
        ConfigError: the address cannot be one of a store, or there is no such experiment.
        MachineError: the store is a broken or unwritable file, or a required server does not answer.
    """
    uri = store_uri(tracking, folder=folder)
    os.environ.update({name: value for name, value in ENVIRONMENT.items() if name not in os.environ})
    _import_mlflow()
    unsent = folder.absolute() / UNSENT
    if uri.startswith(SQLITE):
        return replace(_open_file(uri, tracking.experiment), unsent_folder=unsent)
    try:
        return replace(_open_server(uri, tracking.experiment, makes=makes_experiment), unsent_folder=unsent)
    except UserError:
        raise
    except Exception as error:  # MLflow, SQLAlchemy, requests and the drivers of databases each raise their own
        problem = f"tracking store {quoted(masked(uri))}: {reason(error)}"
        if is_required:
            raise MachineError(Code.TRACKING, problem, fix="start it, or add --no-tracking") from error
        logger.warning("%s; what is to be recorded is kept in %s", problem, unsent)
        # nobody asks for the client of a store that is not reachable
        return Store(None, "", False, uri, tracking.experiment, unsent, is_reachable=False)  # type: ignore[arg-type]  # as said


def open_again(store: Store) -> Store:
    """``store`` with a client that answers.

    Raises:
        Exception: it does not answer, as MLflow says it.
    """
    if store.is_local:
        return replace(_open_file(store.uri, store.experiment), unsent_folder=store.unsent_folder)
    return replace(_open_server(store.uri, store.experiment), unsent_folder=store.unsent_folder)


def no_experiment(name: str, known: Sequence[str]) -> ConfigError:
    """The error about an experiment that is not among the ``known`` ones."""
    fix = f"name one with --experiment: {', '.join(known)}" if known else "train a model first"
    return ConfigError(Code.TRACKING, f"the tracking store has no experiment {quoted(name)}", fix=fix)


def _open_server(uri: str, experiment: str, *, makes: bool = True) -> Store:
    return _within(START_TIMEOUT_S, lambda: _open(uri, experiment, artifacts=None, makes=makes))


def reason(error: BaseException) -> str:
    """The first line of what a library says, without credentials, short; of a database, what it says itself."""
    wrapped: BaseException | None = error
    while wrapped is not None:
        if isinstance(original := getattr(wrapped, "orig", None), BaseException):  # SQLAlchemy's name for it
            return reason(original)
        wrapped = wrapped.__cause__ or wrapped.__context__
    lines = masked(str(error)).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]


def _import_mlflow() -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            import mlflow.store.tracking.sqlalchemy_store  # noqa: F401 - its table definitions warn on import
    except ImportError as error:
        fix = "install mlflow, or add --no-tracking"
        raise MachineError(Code.TRACKING, f"MLflow cannot be imported: {reason(error)}", fix=fix) from error


def path_of(uri: str) -> Path:
    """The database file that the address of a local store names."""
    return Path(unquote(uri.removeprefix(SQLITE).partition("?")[0])).absolute()


def _open_file(uri: str, experiment: str) -> Store:
    """Open a database of this machine; the first to come makes its tables while the others wait."""
    path = path_of(uri)
    artifacts = path.parent / ARTIFACTS
    make_directory(artifacts)
    try:
        with locked(artifacts / f".{path.name}.lock", timeout_s=LOCK_TIMEOUT_S):
            if not path.exists():
                logger.info("making the tracking store %s", path)
            _check_file(path)
            return _open(uri, experiment, artifacts=artifacts)
    except MachineError:
        raise
    except Exception as error:  # MLflow, SQLAlchemy, alembic and sqlite3 each raise their own
        problem = f"the tracking store cannot be used: {reason(error)}"
        raise MachineError(Code.TRACKING, problem, fix=WAY_OUT, file=path) from error


def _check_file(path: Path) -> None:
    """Touch the database as MLflow will: MLflow itself would try a broken one again for 100 seconds."""
    mode = "rw" if path.exists() else "rwc"
    with closing(
        sqlite3.connect(f"file:{quote(str(path))}?mode={mode}", uri=True, timeout=START_TIMEOUT_S)
    ) as database:
        database.execute("SELECT name FROM sqlite_master").fetchall()
        database.execute("BEGIN IMMEDIATE")
        database.execute("ROLLBACK")


def _open(uri: str, experiment: str, *, artifacts: Path | None, makes: bool = True) -> Store:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    found = client.get_experiment_by_name(experiment)
    if found is None and not makes:
        raise no_experiment(experiment, [each.name for each in client.search_experiments()])
    if found is None:
        # Without a place of their own artifacts would go to the folder that is current when they are logged.
        place = None if artifacts is None else artifacts.as_uri()
        made = client.create_experiment(experiment, artifact_location=place)
        return Store(client, made, artifacts is not None, uri, experiment)
    if found.lifecycle_stage != "active":
        problem = f"experiment {quoted(experiment)} was deleted in the tracking store"
        fix = f"name another with --experiment, or run `mlflow experiments restore -x {found.experiment_id}`"
        raise MachineError(Code.TRACKING, problem, fix=fix)
    return Store(client, found.experiment_id, artifacts is not None, uri, experiment)


def _within(seconds: float, function: Callable[[], Store]) -> Store:
    """The result of ``function``, or TimeoutError; a call that hangs is left behind in its thread."""
    answers: list[Any] = []  # the result, or the exception

    def call() -> None:
        try:
            answers.append(function())
        except Exception as error:
            answers.append(error)

    thread = threading.Thread(target=call, daemon=True, name="open-tracking-store")
    thread.start()
    thread.join(seconds)
    if not answers:
        raise TimeoutError(f"no answer within {seconds:.0f} s")
    if isinstance(answers[0], Exception):
        raise answers[0]
    answer: Store = answers[0]
    return answer
