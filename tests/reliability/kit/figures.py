"""What the tests of the promises measured: printed at the end of a run, and kept as JSON where it is asked for."""

from __future__ import annotations

import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FILE_VARIABLE = "STANHOP_FIGURES"
"""The file that figures are added to; `docs/render_reliability.py` makes the page of it."""

MEASURED: list[dict[str, str]] = []
"""Of this run, in the order of the tests."""


def record(goal: str, part: str, sentence: str) -> None:
    """Keep what a test saw.

    Args:
        goal: The promise it belongs to, such as ``R5``.
        part: What of it was looked at; a later run takes the place of an earlier one.
        sentence: The figure, with the number of cases it rests on.
    """
    today = datetime.now(UTC).date().isoformat()
    take({"goal": goal, "part": part, "sentence": sentence, "measured": today})


def take(figure: dict[str, str]) -> None:
    """Keep a figure that was recorded here or in another process of this run."""
    MEASURED[:] = [each for each in MEASURED if (each["goal"], each["part"]) != (figure["goal"], figure["part"])]
    MEASURED.append(figure)


def lines() -> list[str]:
    """What to print, a line for each figure."""
    return [f"{each['goal']:4}{each['part']}: {each['sentence']}" for each in MEASURED]


def keep() -> None:
    """Add the figures of this run to the file that the environment names, if it names one."""
    name = os.environ.get(FILE_VARIABLE)
    if not name or not MEASURED:
        return
    path = Path(name)
    document: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"figures": []}
    fresh = {(each["goal"], each["part"]) for each in MEASURED}
    kept = [each for each in document["figures"] if (each["goal"], each["part"]) not in fresh]
    document["figures"] = sorted([*kept, *MEASURED], key=lambda each: (int(each["goal"][1:]), each["part"]))
    document["machine"] = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
