"""Whether others than the user could have changed a model directory, which checksums cannot tell."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterable
from pathlib import Path

logger = logging.getLogger(__name__)

ROOT = 0


def warn_of_strangers(directory: Path, names: Iterable[str]) -> None:
    """Log a warning if ``directory`` or one of the files ``names`` in it is another user's, or writable by everyone."""
    for path in (directory, *(directory / name for name in names)):
        status = path.stat()
        if status.st_uid not in (ROOT, os.geteuid()):
            logger.warning("%s belongs to another user, who can change the model", path)
            return
        if status.st_mode & stat.S_IWOTH:
            logger.warning("%s can be changed by every user of this machine; chmod -R o-w it", path)
            return
