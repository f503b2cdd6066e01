"""``stanhop bench kernels``: separation and retrieval against every peer, on the same tensors in one process."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from stanhop.cli.options import Device, command
from stanhop.cli.output import Output
from stanhop.errors import Code, MachineError

if TYPE_CHECKING:
    import torch

app = typer.Typer()

QUICK_ROUNDS, QUICK_SECONDS = 3, 1.0

Shapes = Annotated[
    str | None,
    typer.Option(
        "--shapes", metavar="NAME[,NAME]...", help="Groups of shapes; those meant for the device if not given."
    ),
]
Cache = Annotated[
    Literal["auto", "warm", "cold", "both", "host"],
    typer.Option(
        "--cache",
        help="Whether tensors may lie in the cache; host: they may, and the time of launching counts. "
        "auto: warm on a CPU, both on a GPU.",
    ),
]
Threads = Annotated[
    int | None, typer.Option("--threads", min=1, help="Threads on a CPU; as many as torch takes if not given.")
]


@command(app)
def kernels(
    shapes: Shapes = None,
    device: Device = "auto",
    repetitions: Annotated[int, typer.Option("--repetitions", min=1, help="Rounds, each way once a round.")] = 50,
    seconds: Annotated[
        float, typer.Option("--seconds", min=0.01, help="Time of one phase of a case, after which no round begins.")
    ] = 3.0,
    cache: Cache = "auto",
    threads: Threads = None,
    quick: Annotated[bool, typer.Option("--quick", help="3 rounds, and a cache that is warm: a first look.")] = False,
    tiny: Annotated[
        bool, typer.Option("--tiny", help="Cut all sizes to what Triton's interpreter takes; times mean nothing.")
    ] = False,
    folder: Annotated[
        Path, typer.Option("--output", metavar="FOLDER", help="Where the document and the plots go.")
    ] = Path("benchmarks/results"),
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Keep what the document has, measured here with the same settings, and add to it."
        ),
    ] = False,
    *,
    output: Output,
) -> None:
    """Measure separation and retrieval against every peer that is installed, and write a document and plots.

    Each way is first compared with the definition in float64, outputs and gradients. Then all are timed in turns:
    forward, backward, both.

    Example: stanhop bench kernels --shapes rows,etth1-time --threads 1

    Example: stanhop bench kernels --device cuda --shapes etth1-time,long --cache cold
    """
    import torch

    from stanhop.benchmarks.kernels.cases import cases_of, names_of
    from stanhop.benchmarks.kernels.document import run, to_text
    from stanhop.benchmarks.kernels.measure import Settings
    from stanhop.benchmarks.kernels.plots import plots_of
    from stanhop.benchmarks.machine import machine
    from stanhop.benchmarks.timing import MOST_COPIES
    from stanhop.storage import write_bytes

    if threads is not None:
        torch.set_num_threads(threads)
    chosen = _device(device)
    names = names_of(chosen.type) if shapes is None else [name.strip() for name in shapes.split(",")]
    cases = list(cases_of(names, chosen, is_tiny=tiny))
    settings = Settings(
        num_rounds=QUICK_ROUNDS if quick else repetitions,
        limit=QUICK_SECONDS if quick else seconds,
        caches=_caches(cache, chosen, quick=quick),
        most_copies=2 if tiny else MOST_COPIES,
    )
    path = folder / f"kernels-{chosen.type}.json"
    words = ["stanhop bench kernels", "--device", chosen.type, "--shapes", ",".join(names), "--cache", cache]
    words += ["--quick"] if quick else ["--repetitions", str(repetitions), "--seconds", f"{seconds:g}"]
    words += ["--threads", str(threads)] if threads is not None else []
    document = run(
        cases,
        settings,
        path=path,
        machine=machine(chosen),
        command=" ".join([*words, "--tiny"] if tiny else words),
        resume=resume,
        report=lambda line: output.notes([line]),
    )
    plots = []
    for name, content in plots_of(document).items():
        plots.append(folder / f"kernels-{chosen.type}-{name}.png")
        write_bytes(plots[-1], content)
    answer = {"document": path, "plots": plots, **document}
    output.result(answer, human=f"{to_text(document)}\n\n{path}")


def _device(name: str) -> torch.device:
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise MachineError(Code.ENVIRONMENT, "--device cuda: there is no CUDA device here", fix="use --device cpu")
    is_cuda = name != "cpu" and torch.cuda.is_available()
    return torch.device("cuda" if is_cuda else "cpu")


def _caches(cache: str, device: torch.device, *, quick: bool) -> tuple[str, ...]:
    if cache == "both" or (cache == "auto" and device.type == "cuda" and not quick):
        return ("warm", "cold")
    return ("warm",) if cache == "auto" else (cache,)
