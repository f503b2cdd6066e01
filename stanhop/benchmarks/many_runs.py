"""A tracking store with many finished trainings, made by copying rows, to see how fast runs are found and compared."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from stanhop.config import RunConfig, TrackingConfig, flatten, nest
from stanhop.forecasting.window_errors import ROW, WINDOW_METRICS, WindowErrors
from stanhop.storage import make_directory, write_bytes
from stanhop.tracking.names import WINDOW_ERRORS
from stanhop.tracking.store import ARTIFACTS, DATABASE, open_store

SEPARATIONS = ("outeffhop", "softmax", "gsh", "sparsemax")
DROPOUTS = (0.0, 0.1, 0.2, 0.3, 0.4)
FIRST_MS = 1_700_000_000_000
EXPERIMENT = "stanhop"
RUN_COLUMNS = "run_uuid, name, source_type, source_name, entry_point_name, user_id, status, start_time, end_time"
"""Those of MLflow's table ``runs`` that a run of ours fills, with four more."""


def fill_store(folder: Path, *, num_runs: int, num_windows: int) -> None:
    """Put ``num_runs`` trainings into the store in ``folder``: 20 variants, as many seeds as it takes.

    Each has the parameters, tags and metrics of a real one and errors of ``num_windows`` windows: noise that all runs
    share, a little that is the variant's and a little that is the seed's.

    Args:
        folder: With ``mlflow.db`` and ``mlruns``, made if they are not there.
        num_runs: How many.
        num_windows: Test windows of each.
    """
    store = open_store(TrackingConfig(experiment=EXPERIMENT), folder=folder)
    assert store is not None
    rng = np.random.default_rng(1)
    shared = rng.gamma(2.0, 0.2, size=num_windows)
    variants = [(separation, dropout) for separation in SEPARATIONS for dropout in DROPOUTS]
    with closing(sqlite3.connect(folder / DATABASE)) as database:
        for number in range(num_runs):
            variant, seed = number % len(variants), 1 + number // len(variants)
            separation, dropout = variants[variant]
            config = RunConfig.model_validate(
                nest({"model.separation": separation, "model.dropout": dropout, "train.seed": seed})
            )
            noise = rng.normal(size=num_windows)
            errors = shared * (1 + 0.01 * variant + 0.005 * rng.normal() + 0.1 * noise)
            run_id = uuid.uuid5(uuid.NAMESPACE_OID, str(number)).hex
            place = folder / ARTIFACTS / run_id / "artifacts"
            _insert(database, store.experiment_id, run_id, config, errors, number=number, place=place)
            make_directory(place)
            write_bytes(place / WINDOW_ERRORS, _windows(errors).to_bytes(), durable=False)
        database.commit()


def _windows(errors: np.ndarray) -> WindowErrors:
    rows = np.zeros(len(errors), ROW)
    rows["origin"] = np.arange(len(errors))
    for name in WINDOW_METRICS:
        rows[name] = errors
    return WindowErrors(rows)


def _insert(
    database: sqlite3.Connection,
    experiment_id: str,
    run_id: str,
    config: RunConfig,
    errors: np.ndarray,
    *,
    number: int,
    place: Path,
) -> None:
    begun = FIRST_MS + 60_000 * number
    name = f"synthetic-{number + 1}"
    row = [run_id, name, "UNKNOWN", "", "", "ada", "FINISHED", begun, begun + 30_000]
    _insert_rows(
        database,
        "runs",
        f"{RUN_COLUMNS}, source_version, lifecycle_stage, artifact_uri, experiment_id",
        [[*row, "", "active", place.as_uri(), experiment_id]],
    )
    params = {key: str(value) for key, value in flatten(config.model_dump(mode="json")).items()}
    _insert_rows(database, "params", "key, value, run_uuid", [[key, params[key], run_id] for key in params])
    tags = {
        "mlflow.runName": name,
        "stanhop.version": "0.1.0",
        "stanhop.dataset": "synthetic",
        "stanhop.dataset_sha256": "0" * 64,
        "stanhop.preset": "synthetic",
        "stanhop.separation": config.model.separation,
        "stanhop.seed": str(config.train.seed),
    }
    _insert_rows(database, "tags", "key, value, run_uuid", [[key, tags[key], run_id] for key in tags])
    mean = float(errors.mean())
    metrics = {f"test/{each}": mean for each in (*WINDOW_METRICS, "rmse", "mase", "skill_vs_snaive", "num_windows")}
    metrics |= {"val/best_loss": mean, "val/best_epoch": 3.0, "time/train_s": 30.0, "size/model_bytes": 3e5}
    columns = "key, value, timestamp, step, is_nan, run_uuid"
    rows = [[key, value, begun, 3, False, run_id] for key, value in metrics.items()]
    _insert_rows(database, "latest_metrics", columns, rows)
    _insert_rows(database, "metrics", columns, rows)


def _insert_rows(database: sqlite3.Connection, table: str, columns: str, rows: Sequence[Sequence[object]]) -> None:
    marks = ", ".join("?" * len(rows[0]))
    database.executemany(f"INSERT INTO {table} ({columns}) VALUES ({marks})", rows)
