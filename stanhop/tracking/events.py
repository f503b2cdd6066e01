"""What happens to a run, as plain data, and how MLflow is told: at once, or later from a file.

Each kind can be told twice and stands in MLflow once, but for files, which are written over.
"""

from __future__ import annotations

import base64
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stanhop.storage import temporary_folder, write_bytes

Event = dict[str, Any]
"""``kind`` and what belongs to it; values that JSON knows, and NaN."""
REFUSALS = frozenset(
    ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "INVALID_STATE")
)
"""MLflow's codes for what would be refused again: the server is there and says no."""


def is_refusal(error: BaseException) -> bool:
    """Whether ``error`` is an answer of the store, and not its absence."""
    return getattr(error, "error_code", None) in REFUSALS


def params(values: Mapping[str, str]) -> Event:
    """Parameters of the run."""
    return {"kind": "params", "values": dict(values)}


def inputs(**parts: str) -> Event:
    """A data set that the run used, as MLflow's ``Dataset`` takes it."""
    return {"kind": "inputs", **parts}


def metrics(values: Mapping[str, float], *, step: int) -> Event:
    """Metrics at a step, now."""
    return {"kind": "metrics", "values": dict(values), "step": step, "time_ms": int(time.time() * 1000)}


def file(path: Path) -> Event:
    """A copy of a file."""
    return {"kind": "file", "path": str(path.absolute())}


def folder(path: Path) -> Event:
    """A copy of a folder, under its own name."""
    return {"kind": "folder", "path": str(path.absolute())}


def content(name: str, held: bytes) -> Event:
    """A file called ``name`` that holds ``held``."""
    return {"kind": "content", "name": name, "base64": base64.b64encode(held).decode()}


def model(path: Path, *, name: str, params: Mapping[str, str], metrics: Mapping[str, float]) -> Event:
    """A model directory as a logged model of its own; infinite metrics are left out."""
    finite = {key: value for key, value in metrics.items() if math.isfinite(value)}
    return {"kind": "model", "path": str(path.absolute()), "name": name, "params": dict(params), "metrics": finite}


def finish(status: str) -> Event:
    """The end of the run."""
    return {"kind": "finish", "status": status}


def tell(event: Event, client: Any, run_id: str, last_steps: dict[str, int]) -> None:
    """Tell MLflow what happened to the run ``run_id``.

    Args:
        event: As one of the functions above made it.
        client: An ``MlflowClient``, which has no types.
        run_id: The run.
        last_steps: The last step of each metric that MLflow has, which is not told again.

    Raises:
        Exception: whatever MLflow and what lies under it raise.
    """
    TELLERS[event["kind"]](event, client, run_id, last_steps)


def _tell_params(event: Event, client: Any, run_id: str, _: dict[str, int]) -> None:
    from mlflow.entities import Param

    client.log_batch(run_id, params=[Param(key, value) for key, value in event["values"].items()])


def _tell_inputs(event: Event, client: Any, run_id: str, _: dict[str, int]) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    data = Dataset(**{key: value for key, value in event.items() if key != "kind"})
    context = InputTag("mlflow.data.context", "train, validation, test")
    client.log_inputs(run_id, datasets=[DatasetInput(data, tags=[context])])


def _tell_metrics(event: Event, client: Any, run_id: str, last_steps: dict[str, int]) -> None:
    from mlflow.entities import Metric

    step = event["step"]
    unknown = {name: value for name, value in event["values"].items() if step > last_steps.get(name, -1)}
    client.log_batch(run_id, metrics=[Metric(name, unknown[name], event["time_ms"], step) for name in unknown])
    last_steps.update(dict.fromkeys(unknown, step))


def _tell_file(event: Event, client: Any, run_id: str, _: dict[str, int]) -> None:
    client.log_artifact(run_id, event["path"])


def _tell_folder(event: Event, client: Any, run_id: str, _: dict[str, int]) -> None:
    client.log_artifacts(run_id, event["path"], artifact_path=Path(event["path"]).name)


def _tell_content(event: Event, client: Any, run_id: str, _: dict[str, int]) -> None:
    with temporary_folder() as here:
        write_bytes(here / event["name"], base64.b64decode(event["base64"]), durable=False)
        client.log_artifact(run_id, str(here / event["name"]))


def _tell_model(event: Event, client: Any, run_id: str, _: dict[str, int]) -> None:
    run = client.get_run(run_id)
    experiment_id, name = run.info.experiment_id, event["name"]
    logged = client.create_logged_model(
        experiment_id, name=name, source_run_id=run_id, params=event["params"], tags=run.data.tags
    )
    client.log_model_artifacts(logged.model_id, event["path"])
    for key, value in event["metrics"].items():
        client.log_metric(run_id, key, value, model_id=logged.model_id)
    client.finalize_logged_model(logged.model_id, "READY")


def _tell_finish(event: Event, client: Any, run_id: str, _: dict[str, int]) -> None:
    client.set_terminated(run_id, status=event["status"])


TELLERS = {
    "params": _tell_params,
    "inputs": _tell_inputs,
    "metrics": _tell_metrics,
    "file": _tell_file,
    "folder": _tell_folder,
    "content": _tell_content,
    "model": _tell_model,
    "finish": _tell_finish,
}
