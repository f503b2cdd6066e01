"""Runs that stay open because their process was killed outright: the next process that can tell closes them.

A process that records a run holds a lock on a file until the run ends.  Whoever finds such a file and can lock it knows
that the process is gone, be it with its machine or its container.

Who works in another folder finds no file, but may still look for the process.  A server is told by many machines, and
names of hosts repeat among containers: there that is done only where its number means the same, on the same kernel
since the same start, in the same name space of processes.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from stanhop.errors import MachineError, masked
from stanhop.storage import is_alive, locked, remove_file, sha256_of
from stanhop.tracking.store import Store

HOST_TAG = "stanhop.host"
PROCESS_TAG = "stanhop.process"
MACHINE_TAG = "stanhop.machine"
LIFE_TAG = "stanhop.life"
SUFFIX = ".alive"
BOOT_ID, PROCESS_NAMES = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")


class Life:
    """The sign that the process of a run is alive, for as long as it is or until the run ends.

    Args:
        store: What the run is recorded in.
    """

    def __init__(self, store: Store) -> None:
        self.token = secrets.token_hex(8)
        self._path = store.life_folder / f"{_key(store)}{self.token}{SUFFIX}"
        self._lock = ExitStack()
        try:
            self._lock.enter_context(locked(self._path))
        except MachineError:  # a folder that takes no file or no lock gives no sign, and nobody will look for one
            self._lock.close()

    def end(self) -> None:
        """The run has ended."""
        self._lock.close()
        with suppress(MachineError):  # then it is there, and says nothing
            remove_file(self._path)


def is_under_way(store: Store, tags: Mapping[str, str]) -> bool:
    """Whether the process that recorded a run with these tags in ``store`` is alive, as far as one can tell."""
    path = store.life_folder / f"{_key(store)}{tags.get(LIFE_TAG)}{SUFFIX}"
    if not path.exists():
        return tags.get(HOST_TAG) == socket.gethostname() and is_alive(int(tags[PROCESS_TAG]))
    try:
        with locked(path):
            return False
    except MachineError:
        return True


def process_tags() -> dict[str, str]:
    """What tells whose a run is."""
    machine = this_machine()
    tags = {HOST_TAG: socket.gethostname(), PROCESS_TAG: str(os.getpid())}
    return tags if machine is None else {**tags, MACHINE_TAG: machine}


def this_machine() -> str | None:
    """A name of where the number of a process means the same as here; None where the system does not tell."""
    try:
        return f"{BOOT_ID.read_text().strip()}-{PROCESS_NAMES.stat().st_ino}"
    except OSError:
        return None


def close_dead_runs(store: Store) -> None:
    """Close, as KILLED, the runs in the experiment of ``store`` whose processes are no more, as far as one can tell."""
    for path in sorted(store.life_folder.glob(f"{_key(store)}*{SUFFIX}")):
        with suppress(MachineError):  # it lives
            with locked(path):
                for found in _running(store, LIFE_TAG, path.name.removesuffix(SUFFIX).removeprefix(_key(store))):
                    store.client.set_terminated(found.info.run_id, status="KILLED")
            remove_file(path)
    _close_those_of_this_machine(store)


def _close_those_of_this_machine(store: Store) -> None:
    tag, value = (HOST_TAG, socket.gethostname()) if store.is_local else (MACHINE_TAG, this_machine())
    if value is None:
        return
    for found in _running(store, tag, value):
        process = found.data.tags.get(PROCESS_TAG, "")
        if process.isdecimal() and not is_alive(int(process)):
            store.client.set_terminated(found.info.run_id, status="KILLED")


def _key(store: Store) -> str:
    """What the names of files begin with whose runs are in the experiment of ``store``."""
    return f"{sha256_of(f'{masked(store.uri)} {store.experiment}'.encode())[:12]}-"


def _running(store: Store, tag: str, value: str) -> Any:
    """Runs under way, as far as ``store`` knows, with this tag."""
    query = f"attributes.status = 'RUNNING' and tags.`{tag}` = '{value.replace(chr(39), '')}'"
    return store.client.search_runs([store.experiment_id], filter_string=query)
