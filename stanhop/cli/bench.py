"""``stanhop bench``: what measures the program against others; one file a verb."""

from __future__ import annotations

import typer

from stanhop.cli import bench_quantization

app = typer.Typer(no_args_is_help=True, help="Run grids of experiments. Example: stanhop bench quantization")
for verb in (bench_quantization,):
    app.add_typer(verb.app)
