"""Processes that train together: when one of them dies, the others end soon, and the user learns how to go on.

Left alone, Lightning kills the main process as well, which then says nothing, and a process that helps outlives the
main one where its backend never notices that nobody answers any more.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from lightning_fabric.utilities.distributed import _set_num_threads_if_needed
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher

from stanhop.errors import Code, MachineError, render

MAIN_PROCESS = "STANHOP_MAIN_PROCESS"
"""Variable of the environment by which a process that helps knows whom, were that one dead before it looks."""
POLL_S = 0.2
LONGEST_TO_NOTICE_S = 10.0
"""How long a process may wait for one that is dead until its backend says so; then it is ended."""
LONGEST_TO_BE_GONE_S = 2.0
"""Between the end of a process's connections, by which others notice, and its own."""


class Companions(DDPStrategy):
    """Lightning's strategy for several processes, but for what follows on the death of one.

    Args:
        how_to_go_on: Tells the user, at the time it is asked, how to go on after that.
    """

    def __init__(self, how_to_go_on: Callable[[], str]) -> None:
        super().__init__()
        self._how_to_go_on = how_to_go_on

    def _configure_launcher(self) -> None:
        assert self.cluster_environment is not None
        self._launcher = _Launcher(self.cluster_environment, self.num_processes, self.num_nodes)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """A block in which the processes train.

        Raises:
            MachineError: the block fails because one that helps was killed, or had not enough of the machine.
        """
        is_over = threading.Event()
        if self.num_processes > 1:
            threading.Thread(target=self._end_if_stuck, args=(is_over,), daemon=True, name="companions").start()
        try:
            yield
        except BaseException as error:
            death = self._wait_for_death() if isinstance(error, RuntimeError) else None  # as backends raise
            if self._launcher is not None:
                self._launcher.kill(signal.SIGKILL)  # those that help would wait for this one
            if death is None:
                raise
            raise self._error(death) from error
        finally:
            is_over.set()

    def _end_if_stuck(self, is_over: threading.Event) -> None:
        """End this process if one that helps is dead and the backend does not say so."""
        while not is_over.wait(POLL_S):
            death = self._death()
            if death is not None and not is_over.wait(LONGEST_TO_NOTICE_S):
                error = self._error(death)
                os.write(2, f"{render(error)}\n".encode())
                os._exit(error.exit_code)

    def _death(self) -> str | None:
        """How one of the processes that help has ended, if it is the machine's doing."""
        for code in (process.poll() for process in self._processes()):
            if code is not None and code < 0:
                return f"was killed by {signal.Signals(-code).name}, as where memory is short"
            if code == MachineError.exit_code:
                return f"ended with exit code {code}, for the reason that it gave"
        return None

    def _wait_for_death(self) -> str | None:
        end_s = time.monotonic() + LONGEST_TO_BE_GONE_S
        while (death := self._death()) is None and self._processes() and time.monotonic() < end_s:
            time.sleep(POLL_S)
        return death

    def _processes(self) -> Sequence[Any]:
        return self._launcher.procs if isinstance(self._launcher, _SubprocessScriptLauncher) else []

    def _error(self, death: str) -> MachineError:
        return MachineError(Code.ENVIRONMENT, f"a process that helped to train {death}", fix=self._how_to_go_on())


class _Launcher(_SubprocessScriptLauncher):
    """Lightning's, without the observer that kills the main process."""

    def launch(self, function: Callable[..., Any], *args: Any, trainer: Any = None, **kwargs: Any) -> Any:
        """Start the processes that help, then train."""
        self.cluster_environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        if not self.cluster_environment.creates_processes_externally:
            os.environ[MAIN_PROCESS] = str(os.getpid())
            self._call_children_scripts()
        _set_num_threads_if_needed(num_processes=self.num_processes)
        return function(*args, **kwargs)


@contextmanager
def leaving_with_the_main_process() -> Iterator[None]:
    """A block in which this process helps another; when that is dead, it leaves without a word.

    Raises:
        SystemExit: the block fails because the main process is dead.
    """
    parent = int(os.environ.get(MAIN_PROCESS, os.getppid()))
    is_over = threading.Event()
    threading.Thread(target=_end_if_bereft, args=(parent, is_over), daemon=True, name="companions").start()
    try:
        yield
    except RuntimeError:
        time.sleep(LONGEST_TO_BE_GONE_S)
        if os.getppid() != parent:
            raise SystemExit(0) from None
        raise
    finally:
        is_over.set()


def _end_if_bereft(parent: int, is_over: threading.Event) -> None:
    """End this process if its parent is dead and the backend does not say so."""
    while not is_over.wait(POLL_S):
        if os.getppid() != parent and not is_over.wait(LONGEST_TO_NOTICE_S):
            os._exit(0)
