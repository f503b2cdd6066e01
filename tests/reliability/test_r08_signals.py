"""R8: a training that is asked to stop saves, says how to go on, exits 143 or 130, and resumes to the same bits."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.reliability.kit import samples, training
from tests.reliability.kit.jobs import PHASES
from tests.reliability.kit.nursery import Nursery
from tests.reliability.kit.sizes import sizes

SLOWEST_STOP_S = 3.0


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return samples.write_csv(tmp_path_factory.mktemp("data") / "sales.csv", samples.rows(samples.TRAINING_ROWS))


@pytest.fixture(scope="module")
def undisturbed(nursery: Nursery, data: Path) -> dict[str, object]:
    run_path = data.parent / "undisturbed"
    assert nursery.run("command", *training.options(data, run_path)).code == 0
    return training.end_of(run_path)


def stopped_and_resumed(
    nursery: Nursery, data: Path, run_path: Path, phase: str, number: signal.Signals, *, times: int
) -> list[str]:
    """Send the signal in ``phase``, then go on; what was wrong."""
    ended = nursery.run("signalled", phase, int(number), times, *training.options(data, run_path))
    wrong = []
    if ended.code != 128 + number:
        wrong.append(f"exit code {ended.code}: {ended.err}")
    if ended.err.count("error[") != 1 or "Traceback" in ended.err or number.name not in ended.err:
        wrong.append(f"not one line: {ended.err}")
    if list(run_path.rglob(".tmp-*")):
        wrong.append("a temporary file is left")
    going_on = training.resuming(data, run_path)
    if ("--resume" in going_on) != ("--resume" in ended.err):
        wrong.append(f"how to go on is not said right: {ended.err}")
    resumed = nursery.run("command", *going_on)
    return wrong if resumed.code == 0 else [*wrong, f"not resumed: {resumed.err}"]


@pytest.mark.slow
def test_in_every_phase_it_saves_and_resumes_to_the_same_bits(
    nursery: Nursery, data: Path, undisturbed: dict[str, object], tmp_path: Path, record: Callable[..., None]
) -> None:
    problems = {}
    for place, phase in enumerate(PHASES):
        number = signal.SIGINT if place % 4 == 3 else signal.SIGTERM
        run_path = tmp_path / str(place)
        wrong = stopped_and_resumed(nursery, data, run_path, phase, number, times=1 + place % 2)
        if not wrong and training.differences(training.end_of(run_path), undisturbed):
            wrong = ["other bits"]
        if wrong:
            problems[phase] = wrong
    assert not problems
    record(
        "R8",
        "a signal in each phase",
        f"{len(PHASES)} of {len(PHASES)} phases of a training: exit code 143 (130), one line, resumed bit-equal",
    )


@pytest.mark.parametrize("count", sizes(full=4, soak=40))
def test_at_a_random_time_it_stops_within_seconds(
    count: int,
    nursery: Nursery,
    data: Path,
    undisturbed: dict[str, object],
    tmp_path: Path,
    record: Callable[..., None],
) -> None:
    moments, longest_s = random.Random(3), 0.0
    for number in range(count):
        run_path = tmp_path / str(number)
        child = nursery.start("stepping", "0.01", *training.options(data, run_path))
        assert child.wait_for("step 1")
        time.sleep(moments.uniform(0, 0.4))
        began_s = time.monotonic()
        child.send(signal.SIGTERM)
        ended = child.end()
        longest_s = max(longest_s, time.monotonic() - began_s)
        assert ended.code == 143, ended.err
        assert nursery.run("command", *training.resuming(data, run_path)).code == 0
        assert not training.differences(training.end_of(run_path), undisturbed)
    assert longest_s < SLOWEST_STOP_S
    record("R8", "SIGTERM at random times", f"{count} of {count} exit with 143, the slowest within {longest_s:.1f} s")
