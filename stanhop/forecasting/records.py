"""What each output of a batch was made from, so that a batch that starts again does only what is left to do."""

from __future__ import annotations

import json
import os
from pathlib import Path

from pydantic import ValidationError

from stanhop.config import Section
from stanhop.storage import remove_file, safe_name, sha256_of_file, write_bytes

FOLDER = ".stanhop"
LARGEST_RECORD = 2**20


class Record(Section):
    """What one input became.

    A record is written before the files it speaks of.  So every output that a batch left behind has one, whenever the
    batch was killed, and a file without a record is somebody else's.
    """

    name: str
    """The table, relative to the output folder, with ``/`` between folders."""
    made_from: dict[str, str]
    """Everything that decides the bytes of the outputs."""
    outputs: dict[str, str]
    """SHA-256 of each file that was written: the table and, if asked for, its plot."""
    batch_size: int
    """Series computed together; where memory did not suffice for what was asked, the last digits depend on it."""


class Records:
    """The records of one output folder, one small file each.

    Args:
        root: The output folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / FOLDER

    def read(self, name: str) -> Record | None:
        """The record of the table ``name``; None where there is none that can be read."""
        path = self._path(name)
        try:
            if path.is_symlink() or path.stat().st_size > LARGEST_RECORD:
                return None
            record = Record.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            return None
        return record if record.name == name else None

    def write(self, record: Record) -> None:
        """Keep ``record``; after a power cut it may be gone, and is then made again from equal outputs."""
        # A file name may hold bytes that are no text; pydantic would not write them.
        content = json.dumps(record.model_dump(), indent=2) + "\n"
        write_bytes(self._path(record.name), content.encode("ascii"), durable=False)

    def remove(self, name: str) -> None:
        """Forget the table ``name``."""
        remove_file(self._path(name))

    def is_output(self, path: Path) -> bool:
        """Whether the file at ``path`` is a table that an earlier batch wrote into this folder."""
        try:
            name = absolute(path).relative_to(absolute(self.root))
        except ValueError:
            return False
        return self.read(name.as_posix()) is not None

    def is_sound(self, name: str, sha256: str) -> bool:
        """Whether the file ``name`` of the output folder is there and as it was written."""
        path = self.root / name
        try:
            return not path.is_symlink() and sha256_of_file(path) == sha256
        except OSError:
            return False

    def _path(self, name: str) -> Path:
        return self.folder / f"{safe_name(name)}.json"


def absolute(path: Path) -> Path:
    """``path`` from the root of the file system, without ``..``; symlinks stay what they are."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - Path.resolve() follows symlinks
