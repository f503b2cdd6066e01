"""Runs that stay open because their process was killed outright: the next process of the same machine closes them.

A server is told by many machines, and names of hosts repeat among containers.  There a process is looked for only where
its number means the same: on the same kernel since the same start, in the same name space of processes.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

from stanhop.storage import is_alive
from stanhop.tracking.store import Store

HOST_TAG = "stanhop.host"
PROCESS_TAG = "stanhop.process"
MACHINE_TAG = "stanhop.machine"
BOOT_ID, PROCESS_NAMES = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")


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
    """Close, as KILLED, the runs in the experiment of ``store`` whose processes ran here and are no more."""
    tag, value = (HOST_TAG, socket.gethostname()) if store.is_local else (MACHINE_TAG, this_machine())
    if value is None:
        return
    running = f"attributes.status = 'RUNNING' and tags.`{tag}` = '{value.replace(chr(39), '')}'"
    for found in store.client.search_runs([store.experiment_id], filter_string=running):
        process = found.data.tags.get(PROCESS_TAG, "")
        if process.isdecimal() and not is_alive(int(process)):
            store.client.set_terminated(found.info.run_id, status="KILLED")
