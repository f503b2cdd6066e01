"""Writes the table of figures into ``docs/reliability.md`` from what the tests measured (``docs/reliability.json``).

make reliability                     # runs the tests, keeps their figures, renders the page
python docs/render_reliability.py    # renders only; --check fails where the page is out of date
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
PAGE, FIGURES = FOLDER / "reliability.md", FOLDER / "reliability.json"
BEGIN, END = "<!-- figures: made by render_reliability.py -->", "<!-- end of figures -->"


def table() -> str:
    """The figures as a table, a row for each with its day, and what they were measured on."""
    document = json.loads(FIGURES.read_text(encoding="utf-8"))
    rows = [
        f"| {each['goal']} | {each['part']} | {each['sentence']} | {each['measured']} |" for each in document["figures"]
    ]
    heads = ["| | what was tested | what was seen | when |", "|---|---|---|---|"]
    return "\n".join([*heads, *rows, "", f"Measured on {document['machine']}."])


def rendered(page: str) -> str:
    """``page`` with the table between its two marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def main(arguments: list[str]) -> int:
    """Write the page, or compare it."""
    page = PAGE.read_text(encoding="utf-8")
    if "--check" in arguments:
        return int(page != rendered(page))
    PAGE.write_text(rendered(page), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
