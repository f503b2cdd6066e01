"""Trainings in processes of their own: killed outright, asked to stop, and several that train together."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.reliability.kit.processes import children_of, is_soon_gone

pytestmark = pytest.mark.slow
MOST_SECONDS_TO_END = 60.0

PROGRAM = """
import os, sys, time
from pathlib import Path
from stanhop.config import ModelConfig, RunConfig, TrackingConfig, TrainConfig
from stanhop.errors import UserError, render
from stanhop.series.synthetic import generate
from stanhop.training import saving
from stanhop.training.fit import fit
from stanhop.training.lightning_module import ForecastingModule

RANK = os.environ.get("LOCAL_RANK", "0")
if os.environ.get("KILLED_AT_ONCE") == RANK:
    os.kill(os.getpid(), 9)
saving.INTERVAL_S = 0.05
original = ForecastingModule.training_step
def training_step(self, batch, batch_index):
    time.sleep(float(os.environ.get("PAUSE_S", "0")))
    os.write(1, f"step {self.trainer.global_step + 1}\\n".encode())  # in one piece: two processes share the pipe
    if os.environ.get("NAN_IN_PROCESS") == str(self.trainer.global_rank) and self.trainer.global_step == 7:
        return original(self, batch, batch_index) * float("nan")
    if os.environ.get("NO_MEMORY_IN_PROCESS") == str(self.trainer.global_rank) and self.trainer.global_step == 7:
        sys.exit(4)  # as the command line does
    if os.environ.get("DEAF_PROCESS") == RANK and self.trainer.global_step == 7:
        os.write(1, b"deaf\\n")
        time.sleep(600)  # as a backend that waits for a process that is dead
    return original(self, batch, batch_index)
ForecastingModule.training_step = training_step

config = RunConfig(
    model=ModelConfig(context_length=11, prediction_length=3, patch_length=4, model_dim=6, num_heads=2),
    train=TrainConfig(max_epochs=4, batch_size=13, seed=5, device="cpu", devices=int(os.environ.get("DEVICES", "1"))),
    tracking=TrackingConfig(enabled=False),
)
try:
    fit(config, run_path=Path(sys.argv[1]), resume="--resume" in sys.argv, series_set=generate(num_steps=213))
except UserError as error:
    print(render(error), file=sys.stderr)
    sys.exit(error.exit_code)
"""
"""4 epochs of 11 steps by one process, of 6 steps by two; prints every step."""


class Training:
    """A training that runs in a process of its own."""

    def __init__(self, folder: Path, *, resume: bool = False, **environment: str) -> None:
        program = folder.parent / "program.py"
        program.write_text(PROGRAM)
        options = ["--resume"] if resume else []
        self.process = subprocess.Popen(
            [sys.executable, str(program), str(folder), *options],
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_for_step(self, step: int) -> None:
        self.wait_for(f"step {step}")

    def wait_for(self, said: str) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line == f"{said}\n":
                return
        pytest.fail(f"it ended before {said}: {self.end()[1]}")

    def end(self) -> tuple[int, str]:
        """Exit code and standard error."""
        _, error = self.process.communicate(timeout=200)
        return self.process.returncode, error

    def helpers(self) -> list[int]:
        """Processes that it has started."""
        return children_of(self.process.pid)


def weights(folder: Path) -> bytes:
    return (folder / "model" / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    assert Training(folder).end()[0] == 0
    return folder


@pytest.fixture(scope="module")
def undisturbed_pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed-pair") / "run"
    assert Training(folder, DEVICES="2").end()[0] == 0
    return folder


def test_a_run_killed_at_random_times_ends_the_same(undisturbed: Path, tmp_path: Path) -> None:
    folder, kills = tmp_path / "run", 0
    moments = random.Random(11)
    while kills < 5:
        training = Training(folder, resume=(folder / "checkpoints" / "manifest.json").exists(), PAUSE_S="0.02")
        assert training.process.stdout is not None
        if not training.process.stdout.readline().startswith("step"):
            break
        time.sleep(moments.uniform(0, 0.4))
        training.process.kill()
        kills += training.end()[0] == -signal.SIGKILL
        if not (folder / "checkpoints" / "manifest.json").exists():
            for path in sorted(folder.rglob("*"), reverse=True):
                path.unlink() if path.is_file() else path.rmdir()
    assert kills >= 3, "the kills must hit a training at work"
    code, error = Training(folder, resume=True).end()
    assert code == 0, error
    assert weights(folder) == weights(undisturbed)
    assert not list(folder.rglob(".tmp-*"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_gives_the_exit_code(
    number: signal.Signals, code: int, undisturbed: Path, tmp_path: Path
) -> None:
    training = Training(tmp_path / "run", PAUSE_S="0.05")
    training.wait_for_step(15)
    training.process.send_signal(number)
    training.process.send_signal(number)
    began_s = time.monotonic()
    found, error = training.end()
    assert time.monotonic() - began_s < 10
    assert found == code
    assert error.count("error[") == 1
    assert f"stopped by {number.name} after step" in error
    assert "Traceback" not in error
    assert Training(tmp_path / "run", resume=True).end()[0] == 0
    assert weights(tmp_path / "run") == weights(undisturbed)


def test_two_processes_train_together_and_resume_bit_for_bit(undisturbed_pair: Path, tmp_path: Path) -> None:
    training = Training(tmp_path / "run", DEVICES="2", PAUSE_S="0.05")
    training.wait_for_step(9)
    training.process.send_signal(signal.SIGTERM)
    code, error = training.end()
    assert code == 143
    assert error.count("error[") == 1, error
    code, error = Training(tmp_path / "run", resume=True, DEVICES="2").end()
    assert code == 0, error
    assert weights(tmp_path / "run") == weights(undisturbed_pair)
    assert error.count("epoch 4/4") == 1, "one process speaks for both"


def test_a_process_that_helps_and_is_killed_is_named_and_the_run_goes_on_bit_for_bit(
    undisturbed_pair: Path, tmp_path: Path
) -> None:
    training = Training(tmp_path / "run", DEVICES="2", PAUSE_S="0.05")
    training.wait_for_step(9)
    (helper,) = training.helpers()
    os.kill(helper, signal.SIGKILL)
    code, error = training.end()
    assert (code, error.count("error[E402]")) == (4, 1), error
    assert "killed by SIGKILL" in error
    assert "--resume" in error
    assert "Traceback" not in error
    assert Training(tmp_path / "run", resume=True, DEVICES="2").end()[0] == 0
    assert weights(tmp_path / "run") == weights(undisturbed_pair)


def test_a_process_that_helps_ends_with_the_main_one_and_the_run_goes_on_bit_for_bit(
    undisturbed_pair: Path, tmp_path: Path
) -> None:
    training = Training(tmp_path / "run", DEVICES="2", PAUSE_S="0.05")
    training.wait_for_step(9)
    (helper,) = training.helpers()
    training.process.kill()
    code, error = training.end()  # of standard error, which the two share
    assert code == -signal.SIGKILL
    assert is_soon_gone(helper)
    assert "Traceback" not in error
    assert Training(tmp_path / "run", resume=True, DEVICES="2").end()[0] == 0
    assert weights(tmp_path / "run") == weights(undisturbed_pair)


@pytest.mark.parametrize("deaf", ["0", "1"])
def test_a_process_whose_backend_waits_for_a_dead_one_is_ended(deaf: str, tmp_path: Path) -> None:
    training = Training(tmp_path / "run", DEVICES="2", DEAF_PROCESS=deaf)
    training.wait_for("deaf")
    (helper,) = training.helpers()
    os.kill(helper if deaf == "0" else training.process.pid, signal.SIGKILL)
    began_s = time.monotonic()
    code, error = training.end()
    assert time.monotonic() - began_s < MOST_SECONDS_TO_END
    assert is_soon_gone(helper)
    assert "Traceback" not in error
    assert (code, error.count("error[E402]")) == ((4, 1) if deaf == "0" else (-signal.SIGKILL, 0)), error
    assert ("--resume" in error) == (deaf == "0")


def test_memory_that_only_one_process_lacks_is_the_machine_s_problem(tmp_path: Path) -> None:
    code, error = Training(tmp_path / "run", DEVICES="2", NO_MEMORY_IN_PROCESS="1").end()
    assert (code, error.count("error[E402]")) == (4, 1), error
    assert "ended with exit code 4" in error
    assert "--resume" in error


def test_a_process_that_never_comes_to_help_is_not_waited_for(tmp_path: Path) -> None:
    code, error = Training(tmp_path / "run", DEVICES="2", KILLED_AT_ONCE="1").end()
    assert (code, error.count("error[E402]")) == (4, 1), error
    assert "start it again" in error, "there is no checkpoint"


def test_nor_does_one_wait_for_a_main_process_that_is_gone(tmp_path: Path) -> None:
    training = Training(tmp_path / "run", DEVICES="2")
    while not training.helpers():
        assert training.process.poll() is None, training.end()
        time.sleep(0.01)
    (helper,) = training.helpers()
    training.process.kill()
    training.end()
    assert is_soon_gone(helper)


@pytest.mark.parametrize("process", ["0", "1"])
def test_two_processes_end_together_when_one_diverges(process: str, tmp_path: Path) -> None:
    code, error = Training(tmp_path / "run", DEVICES="2", NAN_IN_PROCESS=process).end()
    assert code == 5, error
    assert error.count("error[E501]") == 1
    assert "is nan at step 8 of epoch 2" in error
    assert not (tmp_path / "run" / "model").exists()
