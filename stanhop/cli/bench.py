"""``stanhop bench``: what measures the program against others; one file a verb."""

from __future__ import annotations

import typer

from stanhop.cli import bench_accuracy, bench_kernels, bench_quantization

app = typer.Typer(
    no_args_is_help=True, help="Measure against others. Example: stanhop bench accuracy --data ETTh1 --seeds 1,2,3"
)
for verb in (bench_accuracy, bench_kernels, bench_quantization):
    app.add_typer(verb.app)
