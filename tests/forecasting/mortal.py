"""Workers that die: of a file, once or always; at their start; or of a defect."""

from __future__ import annotations

import os
import signal
from multiprocessing.connection import Connection

from stanhop.errors import UserError
from stanhop.forecasting import workers
from stanhop.forecasting.making import Made, Maker, Recipe
from stanhop.forecasting.tasks import Task

ALWAYS, ONCE, DEFECT = "deadly.csv", "deadly-once.csv", "defective.csv"
"""Names of inputs."""


def serve(connection: Connection, model: str, recipe: Recipe, num_threads: int) -> None:
    """As the worker's, which some inputs kill as a machine that is short of memory does."""
    answer = Maker.answer

    def mortal(self: Maker, task: Task) -> Made | UserError:
        path = task.source.path
        has_died = path.with_suffix(".died")
        if path.name == ALWAYS or (path.name == ONCE and not has_died.exists()):
            has_died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if path.name == DEFECT:
            raise ZeroDivisionError("a defect of ours")
        return answer(self, task)

    Maker.answer = mortal  # type: ignore[method-assign]  # in a process of its own
    workers.serve(connection, model, recipe, num_threads)


def stillborn(connection: Connection, model: str, recipe: Recipe, num_threads: int) -> None:
    """Never gets ready."""
    os.kill(os.getpid(), signal.SIGKILL)
