"""What could not be told to the tracking store: kept in a file for each run, and sent when the store is back.

The first line of a file says whose it is; each further line is one event.  A file is deleted when all of it is sent,
and sending it twice changes nothing: a run is found again by the tag ``stanhop.record``, which is its name here.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stanhop.errors import MachineError, masked
from stanhop.storage import append_line, locked, remove_file
from stanhop.tracking.dead_runs import is_under_way
from stanhop.tracking.events import Event, is_refusal, tell
from stanhop.tracking.names import PARENT_TAG
from stanhop.tracking.store import Store, reason

logger = logging.getLogger(__name__)

PREFIX = "unsent-"
"""Before the name of a record, where the id of a run is asked for and MLflow has given none yet."""
RECORD_TAG = "stanhop.record"
SUFFIX = ".jsonl"


class Unsent:
    """The file of one run.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def of(cls, folder: Path, record: str | None = None) -> Unsent:
        """That of the run called ``record``; a new one if it has no name yet."""
        return cls(folder / f"{record or secrets.token_hex(8)}{SUFFIX}")

    @property
    def record(self) -> str:
        """The run's name."""
        return self.path.name.removesuffix(SUFFIX)

    def begin(self, store: Store, *, run_id: str | None, name: str, tags: Mapping[str, str]) -> None:
        """Begin, or go on after another process: say which store it is for, and which run.

        Raises:
            MachineError: it cannot be written.
        """
        head = {
            "kind": "run",
            "store": masked(store.uri),
            "experiment": store.experiment,
            "run_id": run_id,
            "name": name,
            "tags": dict(tags),
        }
        self.add(head)

    def add(self, event: Event) -> None:
        """Keep ``event``.

        Raises:
            MachineError: it cannot be written.
        """
        append_line(self.path, json.dumps(event))

    def events(self) -> list[Event]:
        """All that was kept, heads included; a line that a killed process left incomplete is passed over."""
        events = []
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict) and "kind" in event:
                events.append(event)
        return events


@dataclass(frozen=True)
class Sent:
    """A run that was sent.

    Args:
        run_id: MLflow's id of it.
        last_steps: The last step of each metric there.
        num_events: What was told.
    """

    run_id: str
    last_steps: dict[str, int]
    num_events: int


def send(unsent: Unsent, store: Store, *, is_over: bool) -> Sent:
    """Tell ``store`` all of ``unsent``, and delete the file.

    Args:
        unsent: Of one run.
        store: One that answers.
        is_over: Whether the run has ended; it is then closed as KILLED if it does not say how.

    Raises:
        Exception: the store is away again, as MLflow says it; the file is kept then.
    """
    events = unsent.events()
    head = [event for event in events if event["kind"] == "run"][-1]
    run_id = _run_id(head, unsent.record, store)
    last_steps = known_steps(store, run_id)
    told = [event for event in events if event["kind"] != "run"]
    if is_over and (not told or told[-1]["kind"] != "finish"):
        told.append({"kind": "finish", "status": "KILLED"})
    for event in told:
        try:
            tell(event, store.client, run_id, last_steps)
        except FileNotFoundError as error:
            logger.warning("MLflow: %s of run %s is gone and not recorded", error.filename, head["name"])
        except Exception as error:
            if not is_refusal(error):
                raise
            logger.warning("MLflow refuses %s of run %s: %s", event["kind"], head["name"], reason(error))
    remove_file(unsent.path)
    return Sent(run_id, last_steps, len(told))


def send_all(store: Store) -> int:
    """Tell ``store`` what runs of ended processes could not; the number of runs sent. Those under way are left alone.

    Raises:
        Exception: as ``send``.
    """
    sent = 0
    for unsent in pending(store):
        head = [event for event in unsent.events() if event["kind"] == "run"][-1]
        if is_under_way(store, head["tags"]):
            continue
        try:
            with locked(unsent.path.with_suffix(".lock")):
                if unsent.path.exists():
                    send(unsent, store, is_over=True)
                    sent += 1
        except MachineError:  # another process sends it
            continue
        remove_file(unsent.path.with_suffix(".lock"))
    return sent


def pending(store: Store) -> Iterator[Unsent]:
    """The files for ``store``."""
    for path in sorted(store.unsent_folder.glob(f"*{SUFFIX}")):
        unsent = Unsent(path)
        heads = [event for event in unsent.events() if event["kind"] == "run"]
        if heads and (heads[-1]["store"], heads[-1]["experiment"]) == (masked(store.uri), store.experiment):
            yield unsent


def known_steps(store: Store, run_id: str) -> dict[str, int]:
    """The last step of each metric that MLflow has of a run."""
    names = store.client.get_run(run_id).data.metrics
    return {name: max(entry.step for entry in store.client.get_metric_history(run_id, name)) for name in names}


def find_record(store: Store, record: str) -> str | None:
    """MLflow's id of the run that was kept here as ``record``, if it was sent."""
    found = store.client.search_runs([store.experiment_id], filter_string=f"tags.`{RECORD_TAG}` = '{record}'")
    return str(found[0].info.run_id) if found else None


def _run_id(head: Event, record: str, store: Store) -> str:
    """The run that ``head`` speaks of; it is made if it is not there."""
    known: str | None = head["run_id"] or find_record(store, record)
    if known is not None:
        store.client.update_run(known, status="RUNNING")
        return known
    tags = {**head["tags"], RECORD_TAG: record}
    parent = tags.get(PARENT_TAG, "")
    if parent.startswith(PREFIX):
        tags[PARENT_TAG] = find_record(store, parent.removeprefix(PREFIX)) or parent
    created: Any = store.client.create_run(store.experiment_id, run_name=head["name"], tags=tags)
    return str(created.info.run_id)
