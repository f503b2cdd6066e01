"""The run in MLflow that holds all runs of one folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from stanhop.config import TrackingConfig
from stanhop.storage import write_text
from stanhop.tracking.run import TrackedRun, closing, start_run
from stanhop.tracking.store import Store, open_store

PARENT = "parent.json"
"""The file in the folder that says which run it is."""


@contextmanager
def parent_run(
    folder: Path, tracking: TrackingConfig, *, tags: Mapping[str, str]
) -> Iterator[tuple[Store | None, TrackedRun]]:
    """The store, and the run that holds all others: the one of ``folder`` if there is one already."""
    store = open_store(tracking, folder=Path.cwd()) if tracking.enabled else None
    path = folder / PARENT
    known = json.loads(path.read_text(encoding="utf-8"))["run_id"] if path.exists() else None
    run = start_run(store, name=folder.name, tags=dict(tags), run_id=known)
    if run.run_id not in (None, known):
        write_text(path, json.dumps({"run_id": run.run_id}) + "\n")
    with closing(run):
        yield store, run
