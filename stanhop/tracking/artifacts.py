"""The files of a run: read where they lie, or fetched from a server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stanhop.config import TrackingConfig
from stanhop.errors import Code, MachineError
from stanhop.storage import temporary_folder
from stanhop.tracking.search import RunRecord
from stanhop.tracking.store import open_store, reason


@contextmanager
def artifact(run: RunRecord, name: str, tracking: TrackingConfig, *, folder: Path) -> Iterator[Path | None]:
    """The file or folder called ``name`` among the files of ``run``, while the block lasts; None if there is none.

    Raises:
        MachineError: the server that has it does not answer.
    """
    if run.artifact_path is not None:
        path = run.artifact_path / name
        yield path if path.exists() else None
        return
    store = open_store(tracking, folder=folder, is_required=True)
    assert store is not None
    with temporary_folder() as place:
        try:
            names = {file.path for file in store.client.list_artifacts(run.id)}
            fetched = Path(store.client.download_artifacts(run.id, name, str(place))) if name in names else None
        except Exception as error:  # MLflow, requests and boto each raise their own
            problem = f"the files of run {run.id} cannot be fetched: {reason(error)}"
            raise MachineError(Code.TRACKING, problem, fix="see whether the server answers") from error
        yield fetched
