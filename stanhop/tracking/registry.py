"""Model versions in MLflow's registry, and the aliases that say which of them is the champion."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from stanhop.errors import Code, DataError, MachineError, quoted
from stanhop.tracking.search import RunRecord
from stanhop.tracking.store import Store, reason

Alias = Literal["champion", "challenger"]
MODEL_FOLDER = "model"
"""The model directory among the files of a run."""


@dataclass(frozen=True)
class Promotion:
    """What an alias was given to.

    Args:
        name: The registered model.
        version: Its version that has the alias now.
        alias: The alias.
        previous: The version that had it before; None if there was none.
        is_new: Whether the version was registered for this.
    """

    name: str
    version: str
    alias: str
    previous: str | None
    is_new: bool

    @property
    def uri(self) -> str:
        """What MLflow and ``download_artifacts`` take."""
        return f"models:/{self.name}@{self.alias}"


def model_name(dataset: str) -> str:
    """``stanhop-`` and the data set, in characters that a registry takes."""
    data = dataset.rsplit(".", 1)[0].lower()
    return f"stanhop-{re.sub(r'[^a-z0-9_-]+', '-', data).strip('-') or 'model'}"


def served_model_name(dataset: str) -> str:
    """The name for models that MLflow serves: versions of one registered model are of one kind."""
    return f"{model_name(dataset)}-served"


def register(store: Store, run_id: str, folder: str, *, name: str, alias: Alias, tags: Mapping[str, str]) -> Promotion:
    """Make ``folder`` among the files of a run a new version of ``name``, and give it ``alias``.

    Raises:
        DataError: the name is none that a registry takes.
        MachineError: the registry cannot be used, or the folder is not there.
    """
    with _reported():
        require_registered(store.client, name)
        source = f"{store.client.get_run(run_id).info.artifact_uri}/{folder}"
        version = store.client.create_model_version(name, source=source, run_id=run_id, tags=dict(tags))
        return give_alias(store, name, str(version.version), alias, is_new=True)


def promote(store: Store, run: RunRecord, *, name: str, alias: Alias) -> Promotion:
    """Give ``alias`` to the version of the registered model ``name`` that is the model directory of ``run``.

    The version is registered if it is not there yet; the directory stays where it is.

    Raises:
        DataError: the run has no model directory.
        MachineError: the registry cannot be used.
    """
    with _reported():
        if MODEL_FOLDER not in {file.path for file in store.client.list_artifacts(run.id)}:
            fix = "promote a finished training; `stanhop runs list` shows which are"
            raise DataError(Code.TRACKING, f"run {quoted(run.name)} holds no model directory", fix=fix)
        source = f"{run.artifact_uri}/{MODEL_FOLDER}"
        version = _version_of(store.client, name, source)
        is_new = version is None
        if version is None:
            tags = {key: value for key, value in run.tags.items() if key.startswith("stanhop.")}
            version = store.client.create_model_version(name, source=source, run_id=run.id, tags=tags)
        return give_alias(store, name, str(version.version), alias, is_new=is_new)


def promote_version(store: Store, *, name: str, version: str, alias: Alias) -> Promotion:
    """Give ``alias`` to a version that is registered already.

    Raises:
        DataError: there is no such version.
        MachineError: the registry cannot be used.
    """
    with _reported():
        known = {str(each.version) for each in store.client.search_model_versions(f"name = '{_checked(name)}'")}
        if version not in known:
            listed = ", ".join(sorted(known, key=int)) or "none"
            problem = f"the registered model {quoted(name)} has no version {quoted(version)}"
            raise DataError(Code.TRACKING, problem, fix=f"its versions: {listed}")
        return give_alias(store, name, version, alias, is_new=False)


def give_alias(store: Store, name: str, version: str, alias: Alias, *, is_new: bool) -> Promotion:
    """Give ``alias`` to ``version`` of ``name``, which must be there."""
    previous = store.client.get_registered_model(name).aliases.get(alias)
    store.client.set_registered_model_alias(name, alias, version)
    return Promotion(name, version, alias, None if previous is None else str(previous), is_new)


def require_registered(client: Any, name: str) -> None:  # MLflow has no types
    """Make the registered model ``name`` if it is not there."""
    if not client.search_registered_models(f"name = '{_checked(name)}'"):
        client.create_registered_model(name, description="Forecasts of STanHop-Net.")


def _version_of(client: Any, name: str, source: str) -> Any:
    """The version of ``name`` that was made from ``source``; None if there is none."""
    require_registered(client, name)
    versions = client.search_model_versions(f"name = '{name}'")
    return next((version for version in versions if version.source == source), None)


def _checked(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,100}", name):
        problem = f"{quoted(name)} cannot be the name of a registered model"
        raise DataError(Code.TRACKING, problem, fix="use letters, digits, -, _ and .")
    return name


@contextmanager
def _reported() -> Iterator[None]:
    """Errors of the registry as ours; MLflow's remarks on the way are not for users."""
    loggers = [logging.getLogger(name) for name in ("mlflow", "mlflow.store.model_registry")]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (DataError, MachineError):
        raise
    except Exception as error:  # MLflow, SQLAlchemy and requests each raise their own
        problem = f"the model registry cannot be used: {reason(error)}"
        raise MachineError(Code.TRACKING, problem, fix="see whether `mlflow ui` shows it") from error
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
