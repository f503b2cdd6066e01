"""What is checked before a training begins: that the machine can do it, and that its folder may be written to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from stanhop.config import TrainConfig
from stanhop.errors import Code, ConfigError, ModelError, OutputError
from stanhop.forecasting.forecaster import choose_device
from stanhop.storage import TEMPORARY_PREFIX
from stanhop.training.checkpoint import MANIFEST
from stanhop.training.outcome import CHECKPOINTS, CONFIG, LOCK, OUR_NAMES


@dataclass(frozen=True)
class Advice:
    """What a user is told to do about a run, in the options of the command at hand.

    Args:
        go_on: About one that a signal stopped; ``{run_path}`` stands for its folder.
        make_room: About a folder in which there is something already.
    """

    go_on: str
    make_room: str


OF_TRAIN = Advice(
    go_on="go on with the same command and --resume --output {run_path}",
    make_room="choose another folder, go on with --resume, or add --overwrite",
)


def check_machine(train: TrainConfig) -> None:
    """Refuse what this machine cannot do.

    Raises:
        UsageError: CUDA is asked for and not there.
        ConfigError: more CUDA devices than there are, or a precision that CPUs do not have.
    """
    is_cuda = choose_device(train.device).type == "cuda"
    if is_cuda and train.devices > torch.cuda.device_count():
        problem = f"train.devices is {train.devices}, but this machine has {torch.cuda.device_count()} CUDA devices"
        raise ConfigError(Code.CONFIG, problem, fix="lower --devices")
    if not is_cuda and train.precision == "16-mixed":
        problem = "train.precision is 16-mixed, which needs a CUDA device"
        raise ConfigError(Code.CONFIG, problem, fix="use --precision bf16-mixed or 32-true")


def check_run_path(run_path: Path, *, resume: bool, overwrite: bool, advice: Advice) -> None:
    """Refuse a folder that this run must not write to.

    Raises:
        ModelError: there is nothing to resume.
        OutputError: the folder holds a run that is not to be replaced, or something else.
    """
    if run_path.exists() and not run_path.is_dir():
        raise OutputError(Code.OUTPUT, "is not a folder", fix="choose another name", file=run_path)
    names = {entry.name for entry in run_path.iterdir()} if run_path.exists() else set()
    if resume:
        if not (run_path / CHECKPOINTS).is_dir():
            fix = "name the folder of the run with --output, or start a new run without --resume"
            raise ModelError(Code.CHECKPOINT, "there is no checkpoint to go on from", fix=fix, file=run_path)
    elif overwrite and names - OUR_NAMES:
        problem = f"is not the folder of a run, or holds other things ({sorted(names - OUR_NAMES)[0]})"
        raise OutputError(Code.OUTPUT, problem, fix="choose another folder", file=run_path)
    elif not overwrite and names - {LOCK} and not _holds_nothing_yet(run_path, names):
        raise OutputError(Code.OUTPUT, "exists already", fix=advice.make_room, file=run_path)


def _holds_nothing_yet(run_path: Path, names: set[str]) -> bool:
    """Whether a run began there and ended before its first checkpoint, so that there is nothing to lose."""
    names = {name for name in names if not name.startswith(TEMPORARY_PREFIX)}
    has_begun = LOCK in names or {CONFIG, CHECKPOINTS} <= names
    is_no_more = names <= {CONFIG, CHECKPOINTS, LOCK}
    return has_begun and is_no_more and not (run_path / CHECKPOINTS / MANIFEST).exists()
