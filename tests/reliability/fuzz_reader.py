"""Damages tables for hours and compares the two readers: ``python -m tests.reliability.fuzz_reader [SECONDS]``.

With Atheris installed (``pip install atheris``) the damage is guided by the coverage of the reader; without it, damage
is random, as in the tests, from another seed each time.  The first table on which the readers do not agree ends it.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.reliability.kit.sizes import soaked

NUM_TABLES = 50
SECONDS = float(sys.argv[1]) if len(sys.argv) > 1 else float(soaked(full=60, soak=3_600))


def guided(atheris: Any, folder: Path) -> None:
    """Let Atheris choose the bytes; it ends the process when the time is over or something is found."""
    with atheris.instrument_imports(include=["stanhop.series"]):  # so nothing of it may be imported before
        from stanhop.config import DataConfig
        from tests.reliability.test_r02_reader_and_oracle import judge, sound_table

    corpus, path = folder / "corpus", folder / "table.csv"
    corpus.mkdir()
    for seed in range(NUM_TABLES):
        (corpus / str(seed)).write_bytes(sound_table(seed))
    options = [f"-max_total_time={SECONDS:.0f}", "-max_len=4096", str(corpus)]
    atheris.Setup([sys.argv[0], *options], lambda content: void(judge(path, content, DataConfig())))
    atheris.Fuzz()


def void(_: str) -> None:
    """Atheris wants nothing back."""


def unguided(folder: Path) -> int:
    """Random damage for a while; how many tables there were."""
    from tests.reliability.kit.mutations import mutated
    from tests.reliability.test_r02_reader_and_oracle import POLICIES, judge, sound_table

    moment, end_s, count = random.Random(), time.monotonic() + SECONDS, 0
    tables = [sound_table(seed) for seed in range(NUM_TABLES)]
    while time.monotonic() < end_s:
        judge(folder / "table.csv", mutated(moment.choice(tables), moment), moment.choice(POLICIES))
        count += 1
    return count


def main() -> None:
    """Fuzz until something is found, or the time is over."""
    with tempfile.TemporaryDirectory() as name:
        try:
            import atheris
        except ModuleNotFoundError:
            count = unguided(Path(name))
            sys.stdout.write(f"{count:,} damaged tables, not guided by coverage: no disagreement\n")
        else:
            guided(atheris, Path(name))


if __name__ == "__main__":
    main()
