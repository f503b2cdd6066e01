"""Processes to kill: a parent that has imported everything forks one for each job, in a tenth of a second.

The parent is a process of its own, never the one of pytest, and runs no tensor operation, so that its children
compute the same bits as a process that was started the long way.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.reliability.kit.processes import is_there

ROOT = Path(__file__).parents[3]
PRELOADED = ("tests.reliability.kit.jobs",)
"""What every job needs; the jobs themselves come last."""
POLL_S = 0.002
LONGEST_WAIT_S = 120.0


class Child:
    """One job under way."""

    def __init__(self, nursery: Nursery, process: int, folder: Path) -> None:
        self._nursery = nursery
        self.process = process
        self._out, self._err = folder / "out", folder / "err"

    @property
    def out(self) -> str:
        """What it has printed so far."""
        return self._out.read_text(errors="replace")

    @property
    def err(self) -> str:
        """What it has printed on standard error so far."""
        return self._err.read_text(errors="replace")

    def wait_for(self, line: str) -> bool:
        """Wait until it prints ``line``; False if it ends before that."""
        return self.wait_until(lambda: line in self.out.splitlines())

    def speaks(self) -> bool:
        """Wait until it prints anything; False if it ends before that."""
        return self.wait_until(lambda: bool(self.out))

    def wait_until(self, is_there: Callable[[], bool]) -> bool:
        """Wait until something is so; False if the job ends before that."""
        end_s = time.monotonic() + LONGEST_WAIT_S
        while time.monotonic() < end_s:
            if is_there():
                return True
            if not self._is_running():
                return is_there()
            time.sleep(POLL_S)
        raise TimeoutError(f"{self.out[-500:]} {self.err[-500:]}")

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if there is still somebody to take it."""
        try:
            os.kill(self.process, number)
        except ProcessLookupError:
            return

    def end(self) -> Ended:
        """Wait for its end."""
        answer = self._nursery.ask({"wait": self.process})
        return Ended(int(answer["code"]), self.out, self.err)

    def _is_running(self) -> bool:
        return is_there(self.process)  # once it has ended, it stays a zombie until the nursery is asked for it


@dataclass(frozen=True)
class Ended:
    """How a job ended: its exit code (negative for a signal that killed it), and what it had printed."""

    code: int
    out: str
    err: str


class Nursery:
    """Starts jobs.

    Args:
        folder: Where what they print is kept.
        modules: What to import before the first one.
    """

    def __init__(self, folder: Path, *, modules: tuple[str, ...] = PRELOADED) -> None:
        self._folder = folder
        self._count = 0
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self._server = subprocess.Popen(
            [sys.executable, "-c", f"from {__name__} import serve; serve()", *modules],
            env=environment,
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.wait(timeout=60)
        self._server.stdout.close()

    def start(
        self, job: str, *arguments: object, cwd: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> Child:
        """Start the function ``job`` of ``kit/jobs.py`` with ``arguments`` as text."""
        self._count += 1
        folder = self._folder / f"job-{self._count}"
        folder.mkdir()
        request = {
            "job": job,
            "arguments": [str(argument) for argument in arguments],
            "cwd": str(cwd or folder),
            "environment": dict(environment or {}),
            "out": str(folder / "out"),
            "err": str(folder / "err"),
        }
        return Child(self, int(self.ask(request)["process"]), folder)

    def run(self, job: str, *arguments: object, **options: Any) -> Ended:
        """Start a job and wait for its end."""
        return self.start(job, *arguments, **options).end()

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """One question to the parent process."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        answer: dict[str, Any] = json.loads(self._server.stdout.readline())
        return answer


def serve() -> None:
    """Be the parent process: fork a child for each line on standard input that names a job."""
    jobs = [importlib.import_module(name) for name in sys.argv[1:]][-1]
    jobs.prepare()
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            _, status = os.waitpid(request["wait"], 0)
            _answer({"code": os.waitstatus_to_exitcode(status)})
            continue
        for name in ("out", "err"):  # before anybody looks for them
            Path(request[name]).touch()
        process = os.fork()
        if process == 0:
            _live(jobs, request)
        _answer({"process": process})


def _answer(answer: Mapping[str, int]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def _live(jobs: Any, request: dict[str, Any]) -> None:
    """Be the child; this never returns."""
    code = 1
    try:
        for descriptor, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(request[name], os.O_WRONLY | os.O_APPEND), descriptor)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(request["cwd"])
        os.environ.update(request["environment"])
        code = int(getattr(jobs, request["job"])(*request["arguments"]) or 0)
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
