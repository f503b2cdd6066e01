"""Faults on the disk: the i-th call by which ``storage.py`` changes it fails, or is the last thing a process does.

SQLite tests this way: for i = 1, 2, … until no call is left to strike, do the work, and look at what is left.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stanhop import storage

ERRORS = (errno.ENOSPC, errno.EACCES, errno.EIO, errno.EMFILE)
DEEPEST = 12
"""Frames between a call of the operating system and ``storage.py``."""


class Faults:
    """Counts the calls of ``storage.py`` that change the disk and strikes at one of them.

    Args:
        call: At which, counted from 1; 0 only counts.
        error: The error number it fails with; None kills the process there.
    """

    def __init__(self, call: int, *, error: int | None) -> None:
        self._call = call
        self._error = error
        self.calls: list[str] = []
        """What was called: the operation and the kind of file, as ``replace step-*.ckpt``."""

    @property
    def has_struck(self) -> bool:
        """Whether there was such a call."""
        return 0 < self._call <= len(self.calls)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Strike within the block."""
        names = ("open", "fsync", "replace", "rename", "mkdir", "unlink", "rmdir")
        before = {name: getattr(os, name) for name in (*names, "fdopen")}
        for name in names:
            setattr(os, name, self._striking(name, before[name]))
        os.fdopen = lambda *arguments, **options: _Writer(before["fdopen"](*arguments, **options), self)  # type: ignore[assignment]
        try:
            yield
        finally:
            for name, function in before.items():
                setattr(os, name, function)

    def _striking(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            is_change = name != "open" or bool(arguments[1] & os.O_CREAT)
            if is_change and _is_called_by_storage():
                self.strike_if_due(name, arguments[-1] if name in ("replace", "rename") else arguments[0])
            return function(*arguments, **options)

        return call

    def is_due(self, operation: str, target: Any) -> bool:
        """Count a call; whether it is the one."""
        self.calls.append(f"{operation} {_kind(target)}")
        return len(self.calls) == self._call

    def strike_if_due(self, operation: str, target: Any) -> None:
        """Count a call, and strike if it is the one."""
        if self.is_due(operation, target):
            self.strike()

    def strike(self) -> None:
        """Fail, or die."""
        if self._error is None:
            os.kill(os.getpid(), signal.SIGKILL)
        else:
            raise OSError(self._error, os.strerror(self._error))


class _Writer:
    """A file whose write may stop half-way."""

    def __init__(self, file: Any, faults: Faults) -> None:
        self._file = file
        self._faults = faults

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *details: Any) -> None:
        self._file.__exit__(*details)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, content: bytes) -> int:
        if _is_called_by_storage() and self._faults.is_due("write", self._file.fileno()):
            self._file.write(content[: len(content) // 2])
            self._file.flush()
            self._faults.strike()
        return int(self._file.write(content))


def _is_called_by_storage() -> bool:
    frame = sys._getframe(2)
    for _ in range(DEEPEST):
        if frame.f_code.co_filename == storage.__file__:
            return True
        if frame.f_back is None:
            return False
        frame = frame.f_back
    return False


def _kind(target: Any) -> str:
    """The name of a file without what is different each time."""
    path = Path(f"/proc/self/fd/{target}").readlink() if isinstance(target, int) else Path(target)
    name = path.name
    if name.startswith(storage.TEMPORARY_PREFIX):
        return "temporary"
    return re.sub(r"\d{4,}", "*", re.sub(r"-[0-9a-f]{12}(?=\.json|$)", "-*", name))
