"""A training that is one of many of a command: the same command begins it, goes on with it, or finds it complete."""

from __future__ import annotations

from pathlib import Path

from stanhop.config import RunConfig
from stanhop.series.frame import SeriesSet
from stanhop.training.checkpoint import MANIFEST
from stanhop.training.checks import Advice
from stanhop.training.fit import fit
from stanhop.training.outcome import CHECKPOINTS, FitResult

ADVICE = Advice(
    go_on="go on with the same command",
    make_room="choose another folder for the whole command, or delete this one",
)


def has_begun(run_path: Path) -> bool:
    """Whether there is a checkpoint in ``run_path`` to go on from."""
    return (run_path / CHECKPOINTS / MANIFEST).exists()


def fit_once(
    config: RunConfig,
    *,
    run_path: Path,
    series_set: SeriesSet,
    progress: bool = True,
    parent_run_id: str | None = None,
    preset: str | None = None,
) -> FitResult:
    """Train in ``run_path`` until the training there is complete, from where it was stopped if it was.

    Arguments and errors are those of ``fit``; without one, nothing is done twice.
    """
    return fit(
        config,
        run_path=run_path,
        resume=has_begun(run_path),
        progress=progress,
        series_set=series_set,
        parent_run_id=parent_run_id,
        preset=preset,
        advice=ADVICE,
    )
