"""``stanhop bench``: what measures the program against others; one file a verb."""

from __future__ import annotations

import typer

from stanhop.cli import bench_kernels

app = typer.Typer(
    no_args_is_help=True, help="Measure against others. Example: stanhop bench kernels --shapes etth1-time --quick"
)
for verb in (bench_kernels,):
    app.add_typer(verb.app)
