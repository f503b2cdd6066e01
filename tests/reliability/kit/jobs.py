"""What the nursery's children do: commands of the program, undisturbed or with something that happens to them."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from stanhop.cli.app import main
from stanhop.config import TrackingConfig
from stanhop.forecasting.batch import RefusedInputsError, forecast_files
from stanhop.forecasting.bundle import load_bundle, save_bundle
from stanhop.quantization import compare as _preloaded  # noqa: F401 - what commands import when they run
from stanhop.quantization import int8 as _preloaded_too  # noqa: F401 - as above
from stanhop.tracking import dead_runs
from stanhop.tracking.run import start_run
from stanhop.tracking.store import Store, open_store
from stanhop.tracking.unsent import Unsent
from stanhop.training import fit as fit_module
from stanhop.training import outcome, saving
from stanhop.training.checkpoint import AtomicCheckpointIO, CheckpointFolder
from stanhop.training.journal import Journal
from stanhop.training.lightning_module import ForecastingModule
from tests.reliability.kit.audit import watched
from tests.reliability.kit.faults import Faults
from tests.reliability.kit.processes import most_mb

NO_DISK = 77
NEW_USER, NEW_MOUNTS, PRIVATE = 0x10000000, 0x00020000, 0x00044000
"""CLONE_NEWUSER, CLONE_NEWNS, MS_REC | MS_PRIVATE of Linux."""


def prepare() -> None:
    """What the nursery does once: it leaves the pictures of a training out, which take longer than the rest of it."""
    outcome.loss_plot = lambda *_, **__: b"losses"
    outcome.forecast_plot = lambda *_: b"forecast"


def say(line: str) -> None:
    """Print a line in one piece, at once."""
    os.write(1, f"{line}\n".encode())


def command(*arguments: str) -> int:
    """A command line."""
    return main(list(arguments))


def stepping(pause_s: str, *arguments: str) -> int:
    """A training that says each step, rests after it, and saves every tenth of a second."""
    saving.INTERVAL_S = 0.1
    original = ForecastingModule.training_step

    def training_step(self: ForecastingModule, batch: Any, batch_index: int) -> Any:
        say(f"step {self.trainer.global_step + 1}")
        time.sleep(float(pause_s))
        return original(self, batch, batch_index)

    ForecastingModule.training_step = training_step  # type: ignore[method-assign]
    return main(list(arguments))


def clock_jumping(*arguments: str) -> int:
    """A command while the clock on the wall goes back an hour at each look at it."""
    now, looks = time.time, []

    def jumping() -> float:
        looks.append(1)
        return now() - 3_600.0 * len(looks)

    time.time = jumping
    code = main(list(arguments))
    say(f"jumped {len(looks)} times" if looks else "nobody looked")
    return code


def with_few_files(number: str, *arguments: str) -> int:
    """A command that may have only so many files open."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (int(number), int(number)))
    return main(list(arguments))


def with_little_memory(megabytes: str, *arguments: str) -> int:
    """A command that may take only so much more memory than there is taken already."""
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = taken + int(megabytes) * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    return main(list(arguments))


def inspecting(path: str) -> int:
    """A look at a table, and the most memory, in MB, that this process has taken."""
    code = main(["data", "inspect", path])
    say(f"{most_mb()}")
    return code


def struck(call: str, error: str, *arguments: str) -> int:
    """A command whose ``call``-th change of the disk fails with ``error``, or ``kill`` makes it the last."""
    faults = Faults(int(call), error=None if error == "kill" else int(error))
    with faults.installed():
        code = main(list(arguments))
    say(f"calls {len(faults.calls)}")
    for name in faults.calls if call == "0" else []:
        say(f"call {name}")
    return code


def overwriting(call: str, error: str, source: str, target: str) -> int:
    """Put the model directory ``source`` in the place of the one at ``target``, struck as above."""
    faults = Faults(int(call), error=None if error == "kill" else int(error))
    bundle = load_bundle(source)
    with faults.installed():
        save_bundle(Path(target), bundle, overwrite=True)
    say(f"calls {len(faults.calls)}")
    return 0


def batch(*arguments: str) -> int:
    """A batch that says what became of each file."""
    model, source, output, *jobs = arguments
    options: dict[str, Any] = {"num_jobs": int(jobs[0])} if jobs else {}
    try:
        forecast_files(model, [source], Path(output), progress=lambda event: say(event.outcome), **options)
    except RefusedInputsError:
        return 3
    return 0


def on_a_small_disk(size: str, *arguments: str) -> int:
    """A command in the folder of a new file system of that size; exit code 77 where none can be made."""
    if not _enter_small_disk(size):
        return NO_DISK
    code, folder = main(list(arguments)), Path.cwd()
    for path in sorted(folder.rglob("*.csv")):
        say(f"table {path.read_text().count(chr(10))}")
    say(f"left over {len(list(folder.rglob('.tmp-*')))}")
    return code


def tracked_on_a_small_disk(size: str) -> int:
    """A run whose disk is full after its first metric, and one of the next process; exit code as above."""
    if not _enter_small_disk(size):
        return NO_DISK
    process = os.fork()
    if process == 0:
        code = 1
        try:
            run = start_run(open_store(TrackingConfig(), folder=Path.cwd()), name="mine", tags={})
            run.log_metrics({"val/loss": 1.0}, step=1)
            with suppress(OSError), Path("filler").open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(512))
            run.log_metrics({"val/loss": 0.5}, step=2)
            run.finish("FINISHED")
            code = 0
        finally:
            os._exit(code)
    say(f"exit code {os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])}")
    Path("filler").unlink()
    start_run(open_store(TrackingConfig(), folder=Path.cwd()), name="next", tags={}).finish("FINISHED")
    return list_runs()


def _enter_small_disk(size: str) -> bool:
    """Make a file system of that size and go there; False where this machine lets nobody."""
    libc = ctypes.CDLL(None, use_errno=True)
    folder = Path("disk").absolute()
    folder.mkdir()
    is_root, options = os.geteuid() == 0, f"size={size}".encode()
    user, group = os.geteuid(), os.getegid()
    if libc.unshare(NEW_MOUNTS | (0 if is_root else NEW_USER)):
        return False
    if not is_root:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    libc.mount(None, b"/", None, PRIVATE, None)
    if libc.mount(b"none", bytes(folder), b"tmpfs", 0, options):
        return False
    os.chdir(folder)
    return True


PHASES = {
    "while the data are read": (fit_module, "load_series", 1),
    "while the store is opened": (fit_module, "_open_store", 1),
    "before the first step": (saving.Saver, "on_train_start", 1),
    "in the first step": (ForecastingModule, "training_step", 1),
    "in the middle of an epoch": (ForecastingModule, "training_step", 8),
    "in the last step of an epoch": (ForecastingModule, "training_step", 11),
    "in the first step of an epoch": (ForecastingModule, "training_step", 12),
    "in validation": (ForecastingModule, "validation_step", 3),
    "at the end of an epoch": (Journal, "on_train_epoch_end", 2),
    "while a checkpoint is written": (AtomicCheckpointIO, "save_checkpoint", 2),
    "while its manifest is written": (CheckpointFolder, "add", 2),
    "after the last epoch": (fit_module, "_bundle", 1),
    "while the model is measured": (outcome, "evaluate", 1),
}
"""Moments of a training: whose function, its name, and at which of its calls."""


def signalled(phase: str, number: str, times: str, *arguments: str) -> int:
    """A training that gets a signal in ``phase``."""
    owner, name, count = PHASES[phase]
    original, calls = getattr(owner, name), []

    def call(*given: Any, **options: Any) -> Any:
        calls.append(name)
        if len(calls) == count:
            say("signalled")
            for _ in range(int(times)):
                os.kill(os.getpid(), signal.Signals(int(number)))
        return original(*given, **options)

    setattr(owner, name, call)
    return main(list(arguments))


def audited(allowed: str, *arguments: str) -> int:
    """A command under watch: what it did that it must not is said afterwards; it may write below ``allowed``."""
    found = watched(Path(allowed))
    code = main(list(arguments))
    for event in found:
        say(f"event {event}")
    say(f"seen {found.num_seen}")
    return code


def tracked(name: str, uri: str = "") -> int:
    """A run with three metrics in the store of this folder, or at an address."""
    run = start_run(open_store(TrackingConfig(uri=uri or None), folder=Path.cwd()), name=name, tags={})
    for step in (1, 2, 3):
        run.log_metrics({"val/loss": 1 / step}, step=step)
    run.finish("FINISHED")
    return 0


def abandoned(name: str, uri: str, machine: str = "") -> int:
    """A run of a process that is killed outright after its first metric, on this machine or one called otherwise."""
    if machine:
        dead_runs.this_machine = lambda: machine  # type: ignore[assignment]  # as after a restart
    run = start_run(open_store(TrackingConfig(uri=uri), folder=Path.cwd()), name=name, tags={})
    run.log_metrics({"val/loss": 1.0}, step=1)
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def list_runs(uri: str = "", experiment: str = "stanhop", metric: str = "val/loss") -> int:
    """Print every run of a store with its status and the steps of its metric."""
    store = open_store(TrackingConfig(uri=uri or None, experiment=experiment), folder=Path.cwd())
    rows = [
        [
            run.info.run_name,
            run.info.status,
            [each.step for each in store.client.get_metric_history(run.info.run_id, metric)],
        ]
        for run in store.client.search_runs([store.experiment_id])
    ]
    say(json.dumps(rows))
    return 0


def unsent_struck(call: str) -> int:
    """Three metrics while no store answers; the process dies at the ``call``-th change of the disk."""
    faults = Faults(int(call), error=None)
    away = Store(None, "", False, "http://127.0.0.1:9", "stanhop", Path.cwd() / "unsent", is_reachable=False)  # type: ignore[arg-type]  # nobody asks for it
    said = os.open("said", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with faults.installed():
        run = start_run(away, name="mine", tags={})
        for step in (1, 2, 3):
            run.log_metrics({"val/loss": 1 / step}, step=step)
            os.write(said, f"{step}\n".encode())
    say(f"calls {len(faults.calls)}")
    return 0


def kept_steps() -> int:
    """Print the steps of the metrics that were kept in this folder."""
    files = list(Path("unsent").glob("*.jsonl"))
    say(json.dumps([event["step"] for path in files for event in Unsent(path).events() if event["kind"] == "metrics"]))
    return 0
