"""What a process does that this program promises not to do, as Python's audit hook sees it.

A hook cannot be taken off again: use it in a process that ends.  It does not see ``torch.load(weights_only=True)``,
which has an unpickler of its own; that ``torch.load`` is called in one place only is checked by
``tests/test_architecture.py``.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Any

NEVER = ("socket.getaddrinfo", "socket.gethostbyname", "subprocess.Popen", "os.system", "os.exec", "pickle.find_class")
HARMLESS = ("/dev/", "/proc/")


class Events(list[str]):
    """What was seen that must not be."""

    num_seen = 0
    """Events of any kind: a hook that sees nothing proves nothing."""


def watched(allowed: Path) -> Events:
    """Watch this process from now on; files may be written below ``allowed`` and in the cache of Python only."""
    found = Events()

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        found.num_seen += 1
        if event in NEVER:
            found.append(f"{event} {arguments[:2]}")
        elif event == "socket.connect" and arguments[0].family in (socket.AF_INET, socket.AF_INET6):
            found.append(f"{event} {arguments[1]}")
        elif event == "open" and _writes(arguments) and not _is_allowed(arguments[0], allowed):
            found.append(f"write {arguments[0]}")

    sys.addaudithook(hook)
    return found


def _writes(arguments: tuple[Any, ...]) -> bool:
    flags = arguments[2]
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def _is_allowed(name: Any, allowed: Path) -> bool:
    if isinstance(name, int):
        return True
    path = os.path.abspath(os.fsdecode(name))  # noqa: PTH100 - links stay what they are
    return path.startswith((f"{allowed}{os.sep}", *HARMLESS)) or "__pycache__" in path
