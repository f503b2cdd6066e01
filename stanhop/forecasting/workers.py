"""Processes that make the outputs of a batch side by side; they read and compute, and the batch alone writes.

Each holds one task at a time, so that it is known which one a process held that died.  It is started afresh and not
forked, since the threads of torch do not live through a fork, and with as many threads as the batch has, since the bits
of a forecast depend on their number.  What the two sides tell one another is JSON and the bytes of files.
"""

from __future__ import annotations

import json
import multiprocessing
import signal
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import islice
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from stanhop.errors import Code, MachineError, UserError, from_plain, to_plain
from stanhop.forecasting.bundle import Bundle, load_bundle, save_bundle
from stanhop.forecasting.inputs import InputFile
from stanhop.forecasting.making import Made, Maker, Recipe
from stanhop.forecasting.tasks import Task
from stanhop.storage import temporary_folder

PROCESSES = multiprocessing.get_context("spawn")
MOST_SECONDS_TO_DIE = 10.0
GUARD = "a program that asks for several jobs must do so below if __name__ == '__main__'"


@dataclass(frozen=True)
class Death:
    """A worker ended without an answer.

    Args:
        exit_code: What it ended with; a signal's number, negative, if one killed it.
    """

    exit_code: int

    def __str__(self) -> str:
        return f"was killed by signal {-self.exit_code}" if self.is_by_signal else f"ended with {self.exit_code}"

    @property
    def is_by_signal(self) -> bool:
        """Whether it was killed, as by a machine that is short of memory."""
        return self.exit_code < 0


class Workers:
    """Makes the outputs of tasks in several processes.

    Args:
        bundle: The model.
        recipe: How to apply it.
        num_workers: Processes at most; they are started as they are needed.
        folder: Where a copy of the model lies for as long as they work.
    """

    def __init__(self, bundle: Bundle, recipe: Recipe, *, num_workers: int, folder: Path) -> None:
        self._bundle = bundle
        self._recipe = recipe
        self._num_workers = num_workers
        self._folder = folder

    def make_all(self, tasks: Iterable[Task]) -> Generator[tuple[Task, Made | UserError]]:
        """Each of ``tasks`` with what it became, in the order in which they are done.

        A task whose process dies is done once more at the end, with none beside it; if that process dies as well, the
        task is answered by a ``MachineError`` that names its file.

        Raises:
            MachineError: a process cannot be started, or the first one dies before it is ready.
        """
        bereft: list[Task] = []
        with ExitStack() as stack:
            model: list[Path] = []

            def start() -> _Worker:
                if not model:  # a batch with nothing left to do does not need it
                    model.append(stack.enter_context(temporary_folder(self._folder)) / "model")
                    save_bundle(model[0], self._bundle)
                return _Worker(model[0], self._recipe)

            with closing(_answered(tasks, start, num_workers=self._num_workers)) as answers:
                for task, answer in answers:
                    if isinstance(answer, Death):
                        bereft.append(task)
                    else:
                        yield task, answer
            with closing(_answered(bereft, start, num_workers=1)) as answers:
                for task, answer in answers:
                    yield task, _died_twice(task, answer) if isinstance(answer, Death) else answer


def _answered(
    tasks: Iterable[Task], start: Callable[[], _Worker], *, num_workers: int
) -> Generator[tuple[Task, Made | UserError | Death]]:
    """Each of ``tasks`` with what a worker says to it, of whom there are ``num_workers`` at most."""
    left, has_begun = iter(tasks), False
    idle: list[_Worker] = []
    busy: dict[Connection, _Worker] = {}

    def hand_out() -> None:
        for task in islice(left, num_workers - len(busy)):
            worker = idle.pop() if idle else start()
            worker.take(task)
            busy[worker.connection] = worker

    try:
        hand_out()
        while busy:
            for worker in [busy[connection] for connection in wait(list(busy)) if isinstance(connection, Connection)]:
                answer = worker.hear()
                if answer is None:
                    has_begun = True
                    continue
                if isinstance(answer, Death) and not has_begun:
                    raise _cannot_begin(answer)
                del busy[worker.connection]
                if not isinstance(answer, Death):
                    idle.append(worker)
                task = worker.task
                hand_out()  # before this answer is dealt with, so that nobody waits for that
                yield task, answer
    finally:
        for worker in (*idle, *busy.values()):
            worker.stop()


class _Worker:
    """One process, as the batch sees it.

    Args:
        model: The model directory.
        recipe: How to apply it.

    Raises:
        MachineError: it cannot be started.
    """

    task: Task

    def __init__(self, model: Path, recipe: Recipe) -> None:
        self._is_ready = False
        try:
            self.connection, other = PROCESSES.Pipe()
            arguments = (other, str(model), recipe, torch.get_num_threads())
            self._process = PROCESSES.Process(target=serve, args=arguments, daemon=True)
            with _interrupts_held_back():  # a terminal sends them to every process; it is the batch that ends
                self._process.start()
            other.close()  # so that the end of the process is the end of the connection
        except OSError as error:
            problem = f"cannot start a process for --jobs: {error.strerror}"
            raise MachineError(Code.ENVIRONMENT, problem, fix="use fewer --jobs") from error

    def take(self, task: Task) -> None:
        """Hand ``task`` over; if nobody is there any more to take it, ``hear`` says so."""
        self.task = task
        with suppress(OSError):
            self.connection.send_bytes(_task_bytes(task))

    def hear(self) -> Made | UserError | Death | None:
        """What it says next about its task; None if that is only that it is ready.

        Raises:
            UserError: it cannot get ready.
        """
        try:
            answer = _receive(self.connection)
        except (EOFError, OSError):
            return self.stop()
        if self._is_ready:
            return answer
        if answer is not None:
            raise answer if isinstance(answer, UserError) else AssertionError("nobody makes anything before that")
        self._is_ready = True
        return None

    def stop(self) -> Death:
        """See to it that it is gone; how it went, if it went by itself."""
        self.connection.close()
        self._process.kill()
        self._process.join(MOST_SECONDS_TO_DIE)
        return Death(self._process.exitcode or 0)


def serve(connection: Connection, model: str, recipe: Recipe, num_threads: int) -> None:
    """Be a worker: load the model, then answer tasks until nobody asks any more.

    Args:
        connection: To the batch.
        model: The model directory.
        recipe: How to apply it.
        num_threads: Threads of torch.
    """
    torch.set_num_threads(num_threads)
    try:
        maker = Maker(load_bundle(model), recipe)
        _say(connection, {"ready": True})
        while (asked := _asked(connection)) is not None:
            _answer(connection, maker.answer(_task_of(asked)))
    except UserError as error:
        _answer(connection, error)
    except Exception:
        _say(connection, {"defect": traceback.format_exc()})


def _asked(connection: Connection) -> bytes | None:
    """The next task, or None if the batch is over, or dead."""
    try:
        return connection.recv_bytes()
    except (EOFError, OSError):
        return None


def _answer(connection: Connection, answer: Made | UserError) -> None:
    if isinstance(answer, UserError):
        _say(connection, {"error": to_plain(answer)})
    else:
        head = {"names": list(answer.contents), "batch_size": answer.batch_size, "notes": list(answer.notes)}
        _say(connection, {"made": head}, *answer.contents.values())


def _say(connection: Connection, head: dict[str, Any], *contents: bytes) -> None:
    with suppress(OSError):  # nobody listens any more, as ``_asked`` will find
        connection.send_bytes(json.dumps(head).encode("ascii"))  # file names that are no text are escaped
        for content in contents:
            connection.send_bytes(content)


def _receive(connection: Connection) -> Made | UserError | None:
    """What ``serve`` says: an answer, or None for being ready."""
    said = json.loads(connection.recv_bytes())
    if "defect" in said:
        raise RuntimeError(f"in a process for --jobs:\n{said['defect']}")
    if "error" in said:
        return from_plain(said["error"])
    if "made" not in said:
        return None
    head = said["made"]
    contents = {name: connection.recv_bytes() for name in head["names"]}
    return Made(contents, head["batch_size"], tuple(head["notes"]))


def _task_bytes(task: Task) -> bytes:
    return json.dumps(asdict(task), default=str).encode("ascii")


def _task_of(content: bytes) -> Task:
    parts = json.loads(content)
    source = InputFile(**{name: Path(path) for name, path in parts.pop("source").items()})
    return Task(source=source, **parts)


def _cannot_begin(death: Death) -> MachineError:
    fix = "use fewer --jobs" if death.is_by_signal else GUARD
    return MachineError(Code.ENVIRONMENT, f"a process for --jobs {death} before it was ready", fix=fix)


def _died_twice(task: Task, death: Death) -> MachineError:
    problem = f"the process that was to forecast it {death}, twice"
    fix = "forecast it apart, on a machine with more memory"
    return MachineError(Code.ENVIRONMENT, problem, fix=fix, file=task.source.path)


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """What is started in the block never gets a SIGINT."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
