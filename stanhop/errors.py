"""The errors a user can meet: each knows its exit code, its place in the input and the way to mend it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any


class Code(StrEnum):
    """Stable names of problems, printed as ``error[E104]`` so that people and scripts can look them up."""

    USAGE = "E001"
    """An option, argument or verb that does not exist or does not fit."""
    INTERNAL = "E002"
    """A defect of this program."""

    FILE = "E101"
    """A path that is missing, not a regular file, empty, or changed while it was read."""
    FORMAT = "E102"
    """Bytes that are not the text or table the name promises: another format, encoding, NUL, byte-order mark."""
    STRUCTURE = "E103"
    """Rows, quotes or separators that do not form a table."""
    COLUMN = "E104"
    """A column that is missing, repeated, or of the wrong kind."""
    VALUE = "E105"
    """A cell that is not a finite number."""
    MISSING = "E106"
    """Values that are missing while no policy says what to do."""
    TIME = "E107"
    """A time stamp that cannot be read, or can be read in two ways."""
    DUPLICATE = "E108"
    """Two rows for the same time."""
    FREQUENCY = "E109"
    """A grid of times that is irregular, has gaps, or is not the model's."""
    LENGTH = "E110"
    """A series too short for what is asked of it."""
    CHANNELS = "E111"
    """Channels that are not those the model was trained on."""
    DATASET = "E112"
    """A named data set that is unknown or not at hand."""

    CONFIG = "E201"
    """A configuration key or value."""

    MODEL = "E301"
    """A path that is not a model directory, or one of another format version."""
    MODEL_DAMAGED = "E302"
    """A model directory whose files are not what its manifest says."""
    CHECKPOINT = "E303"
    """A training checkpoint that is missing, damaged, or of another run."""

    DEGRADED = "E304"
    """A quantised model whose loss grew by more than was allowed."""

    OUTPUT = "E401"
    """An output that exists already, or would overwrite an input."""
    ENVIRONMENT = "E402"
    """Disk, permission, memory, lock or device."""
    DOWNLOAD = "E403"
    """A data set that could not be fetched, or whose checksum is wrong."""
    TRACKING = "E404"
    """The tracking store."""

    DIVERGED = "E501"
    """A loss or gradient that is not finite."""
    PARTIAL = "E601"
    """A batch in which some inputs were refused."""
    STOPPED = "E602"
    """A training that a signal ended."""


class UserError(Exception):
    """A problem that is not a defect of this program.

    Args:
        code: Its stable name.
        problem: What is wrong, lower case, in the user's spelling, with the offending value.
        fix: What to do about it, if there is something.
        file: The file that is meant.
        line: Its physical line, counted from 1.
        column: The column's name.
    """

    exit_code = 2

    def __init__(
        self,
        code: Code,
        problem: str,
        *,
        fix: str | None = None,
        file: Path | str | None = None,
        line: int | None = None,
        column: str | None = None,
    ) -> None:
        self.code = code
        self.problem = problem
        self.fix = fix
        self.file = None if file is None else str(file)
        self.line = line
        self.column = column
        super().__init__(self.message)

    @property
    def message(self) -> str:
        """``file:line: column 'name': problem; fix`` with the parts that are known."""
        place = ""
        if self.file is not None:
            place = f"{self.file}:{self.line}: " if self.line is not None else f"{self.file}: "
        column = f"column {quoted(self.column)}: " if self.column is not None else ""
        fix = f"; {self.fix}" if self.fix else ""
        return f"{place}{column}{self.problem}{fix}"


class UsageError(UserError):
    """The command line was not understood."""


class DataError(UserError, ValueError):
    """A series, table or data set that cannot be used as it is."""


class ConfigError(UserError, ValueError):
    """A configuration that does not hold together."""


class ModelError(UserError, ValueError):
    """A model directory or checkpoint that cannot be used."""


class OutputError(UserError):
    """An output that would destroy something."""


class PartialBatchError(UserError):
    """Some inputs of a batch were refused; all others were written."""

    exit_code = 3


class MachineError(UserError):
    """The machine, not the input: disk, permission, memory, lock, tracking store, download."""

    exit_code = 4


class DivergedError(UserError):
    """Training produced a loss or gradient that is not finite."""

    exit_code = 5


class StoppedError(UserError):
    """A signal ended the work; what could be kept was saved.

    Args:
        problem: Which signal, and what was saved.
        signal_number: The signal; the exit code is 128 more, as shells expect.
        fix: How to go on.
    """

    def __init__(self, problem: str, *, signal_number: int, fix: str | None = None) -> None:
        self.exit_code = 128 + signal_number
        super().__init__(Code.STOPPED, problem, fix=fix)


class InternalError(UserError):
    """A defect of this program, in the one line that tells the user about it."""

    exit_code = 1


KINDS: dict[str, type[UserError]] = {
    kind.__name__: kind for kind in (UsageError, DataError, ConfigError, ModelError, OutputError, MachineError)
}
"""What one process may tell another."""


def to_plain(error: UserError) -> dict[str, Any]:
    """``error`` as plain data, for another process; ``from_plain`` makes an equal one of it."""
    parts = {name: getattr(error, name) for name in ("problem", "fix", "file", "line", "column")}
    return {"kind": type(error).__name__, "code": str(error.code), **parts}


def from_plain(plain: Mapping[str, Any]) -> UserError:
    """The error that ``to_plain`` wrote down."""
    parts = {name: plain[name] for name in ("fix", "file", "line", "column")}
    return KINDS[plain["kind"]](Code(plain["code"]), plain["problem"], **parts)


LONGEST_VALUE = 40
CREDENTIALS = re.compile(r"(?<=://)[^/\s]+@")


def quoted(value: object) -> str:
    """Show ``value`` in a message: as ``repr``, at most 40 characters, control characters escaped."""
    text = ascii(str(value)) if not str(value).isprintable() else repr(str(value))
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 2]}…{text[-1]}"


def masked(text: str) -> str:
    """Hide user names and passwords that addresses in ``text`` carry."""
    return CREDENTIALS.sub("***@", text)


def render(error: UserError) -> str:
    """The one line that standard error gets."""
    line = masked(error.message).replace("\n", " ").replace("\r", " ")
    return f"stanhop: error[{error.code}]: {_visible(line)}"


def render_json(error: UserError) -> str:
    """The same for programs: one line of JSON with the parts apart."""
    parts = {
        "code": str(error.code),
        "problem": masked(error.problem),
        "file": None if error.file is None else masked(error.file),
        "line": error.line,
        "column": error.column,
        "hint": error.fix,
        "exit_code": error.exit_code,
    }
    return json.dumps({"error": parts})


def _visible(text: str) -> str:
    """``text`` with its control characters escaped, so that a file's name cannot write on the terminal."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)
