"""Several processes for one batch: the same bytes, and no death of one of them goes unnoticed or is waited for."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from stanhop.errors import Code, DataError, MachineError
from stanhop.forecasting import workers
from stanhop.forecasting.batch import Event, RefusedInputsError, forecast_files
from stanhop.forecasting.bundle import Bundle
from stanhop.forecasting.inputs import InputFile
from stanhop.forecasting.tasks import Task
from tests.forecasting import mortal
from tests.reliability.kit import processes

IDS = tuple(f"s{number}" for number in range(5))


@pytest.fixture
def folder(write_wide: Callable[..., Path], write_long: Callable[..., Path], tmp_path: Path) -> Path:
    """Four files that can be forecast, one of them long, and one that cannot."""
    write_wide(tmp_path / "in" / "a.csv", seed=1)
    write_wide(tmp_path / "in" / "b.csv", seed=2)
    write_wide(tmp_path / "in" / "sub" / "a.csv", seed=3)
    write_long(tmp_path / "in" / "long.csv", IDS)
    (tmp_path / "in" / "bad.csv").write_text("ds,flow,level,rain\n2021-03-04 00:00,1,x,3\n")
    return tmp_path / "in"


def contents_of(root: Path) -> dict[str, bytes]:
    """Every file below ``root`` but the lock, by its relative path."""
    paths = [path for path in sorted(root.rglob("*")) if path.is_file() and path.name != "lock"]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


def forecast(bundle: Bundle, folder: Path, output: Path, **options: object) -> RefusedInputsError:
    """A batch in which something is refused."""
    with pytest.raises(RefusedInputsError) as caught:
        forecast_files(bundle, [folder], output, **options)
    return caught.value


def test_two_processes_write_the_bytes_that_one_writes(
    interval_bundle: Bundle, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"plot": True, "levels": (80.0,)}
    alone = forecast(interval_bundle, folder, tmp_path / "alone", **options)
    events: list[Event] = []
    together = forecast(interval_bundle, folder, tmp_path / "two", num_jobs=2, progress=events.append, **options)
    assert contents_of(tmp_path / "two") == contents_of(tmp_path / "alone")
    names = [[path.name for path in error.result.written] for error in (alone, together)]
    assert names[0] == names[1] == ["a.csv", "b.csv", "long.csv", "a.csv"]
    (refused,) = together.result.refused
    assert (refused.error.file, refused.error.line, refused.error.column) == (str(folder / "bad.csv"), 2, "level")
    assert refused.error.message == alone.result.refused[0].error.message
    assert sorted(event.done for event in events) == [1, 2, 3, 4, 5]
    assert any("59 rows" in note for event in events for note in event.notes)

    monkeypatch.setattr(workers.PROCESSES, "Process", None)  # nobody is needed for what is done
    (folder / "bad.csv").unlink()
    again = forecast_files(interval_bundle, [folder], tmp_path / "two", num_jobs=2, **options)
    assert len(again.skipped) == 4
    one = forecast_files(interval_bundle, [folder / "a.csv"], tmp_path / "one", num_jobs=8)
    assert len(one.written) == 1


@pytest.mark.slow
def test_a_file_whose_process_dies_is_done_again_and_listed_if_it_dies_once_more(
    bundle: Bundle, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forecast(bundle, folder, tmp_path / "whole")
    expected = contents_of(tmp_path / "whole")
    for name in (mortal.ALWAYS, mortal.ONCE):
        (folder / name).write_bytes((folder / "a.csv").read_bytes())
    monkeypatch.setattr(workers, "serve", mortal.serve)
    error = forecast(bundle, folder, tmp_path / "out", num_jobs=2)
    assert error.exit_code == 3
    with (tmp_path / "out" / "errors.csv").open(newline="") as file:
        rows = {row["file"]: row["message"] for row in csv.DictReader(file)}
    assert list(rows) == ["bad.csv", mortal.ALWAYS]
    assert "was killed by signal 9, twice" in rows[mortal.ALWAYS]
    found = contents_of(tmp_path / "out")
    assert found[mortal.ONCE] == found["a.csv"]
    assert {name: found[name] for name in ("a.csv", "b.csv", "long.csv", "sub/a.csv")}.items() <= expected.items()
    assert not list((tmp_path / "out").rglob(".tmp-*"))
    assert not processes.workers_of(os.getpid())


@pytest.mark.slow
def test_processes_that_cannot_start_are_an_error_of_the_machine(
    bundle: Bundle, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "serve", mortal.stillborn)
    with pytest.raises(MachineError, match=r"was killed by signal 9 before it was ready; use fewer --jobs"):
        forecast_files(bundle, [folder], tmp_path / "out", num_jobs=2)
    assert not (tmp_path / "out").exists()

    def refused(*_: object, **__: object) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(workers.PROCESSES, "Process", refused)
    with pytest.raises(MachineError, match=r"cannot start a process .* temporarily unavailable; use fewer --jobs"):
        forecast_files(bundle, [folder], tmp_path / "out", num_jobs=2)


@pytest.mark.slow
def test_a_defect_in_a_process_is_one_of_the_program(
    bundle: Bundle, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / mortal.DEFECT).write_bytes((folder / "a.csv").read_bytes())
    monkeypatch.setattr(workers, "serve", mortal.serve)
    with pytest.raises(RuntimeError, match=r"(?s)in a process for --jobs.*ZeroDivisionError: a defect of ours"):
        forecast_files(bundle, [folder], tmp_path / "out", num_jobs=2)


def test_what_crosses_between_processes_comes_out_as_it_went_in() -> None:
    source = InputFile(Path(os.fsdecode(b"in/caf\xe9.csv")), Path("caf\udce9.csv"))  # a name that is no text
    task = Task(source, "caf\udce9.csv", None, "csv")
    assert workers._task_of(workers._task_bytes(task)) == task


@pytest.mark.slow
def test_a_program_without_a_guard_is_told_so(bundle_path: Path, folder: Path, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\nfrom pathlib import Path\nfrom stanhop.forecasting.batch import forecast_files\n"
        "forecast_files(sys.argv[1], [sys.argv[2]], Path(sys.argv[3]), num_jobs=2)\n"
    )
    command = [sys.executable, str(program), str(bundle_path), str(folder), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert "must do so below if __name__ == '__main__'" in done.stderr.splitlines()[-1]


def test_an_interrupt_from_the_terminal_reaches_no_worker() -> None:
    with workers._interrupts_held_back():
        assert signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_errors_survive_the_way_between_processes() -> None:
    error = DataError(Code.VALUE, "'x' is not a number", fix="correct it", file="a.csv", line=3, column="flow")
    copy = workers.from_plain(workers.to_plain(error))
    assert (type(copy), copy.message, copy.code) == (DataError, error.message, error.code)
