"""R19: files are written, tables and checkpoints read, and the network asked in one place of the source each."""

from __future__ import annotations

import ast
from collections.abc import Callable

from tests.test_architecture import FILES, breaches, ids


def test_what_belongs_in_one_place_is_done_nowhere_else(record: Callable[..., None]) -> None:
    found = {ids(path): sorted(breaches(ast.parse(path.read_text()), ids(path))) for path in FILES}
    assert not {name: what for name, what in found.items() if what}
    record("R19", "one place for each risk", f"{len(FILES)} files of source: 0 do what belongs elsewhere or nowhere")
