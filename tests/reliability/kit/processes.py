"""The processes that another one has started, and the memory they take, as Linux tells it."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

STARTED_BY_MULTIPROCESSING = b"spawn_main"
MOST_SECONDS_TO_END = 10.0
"""For a process that has closed its files, or was told to end, on a machine that is busy."""
POLL_S = 0.02


def children_of(process: int) -> list[int]:
    """Processes that ``process`` has started."""
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def workers_of(process: int) -> list[int]:
    """Workers of ``process`` that live; the tracker of multiprocessing is none."""
    found = []
    for child in children_of(process):
        with suppress(OSError):  # it has just ended
            if STARTED_BY_MULTIPROCESSING in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(child)
    return found


def is_there(process: int) -> bool:
    """Whether ``process`` runs; one that has ended and that nobody asked for does not."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def is_soon_gone(process: int) -> bool:
    """Whether ``process`` ends within seconds: its pipes are closed before it is."""
    end_s = time.monotonic() + MOST_SECONDS_TO_END
    while is_there(process) and time.monotonic() < end_s:
        time.sleep(POLL_S)
    return not is_there(process)


def most_mb(process: int | str = "self") -> float:
    """The most memory that ``process`` has taken; ``ru_maxrss`` would be that of its parent as well."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024
