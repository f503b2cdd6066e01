"""``stanhop quantize``: an int8 model directory from a float one, unless that costs too much accuracy."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from stanhop.cli.layers import config_for_data
from stanhop.cli.options import READ_FLAGS, TRACKING_FLAGS, Flags, Model, NoProgress, Overwrite, command
from stanhop.cli.output import Output, aligned
from stanhop.errors import Code, ModelError, UsageError, quoted

if TYPE_CHECKING:
    from torch import nn

    from stanhop.forecasting.bundle import Bundle
    from stanhop.model.int8 import Quantization
    from stanhop.quantization.compare import Comparison
    from stanhop.series.frame import SeriesSet

app = typer.Typer()
REPORT = "quantization.json"
Backends = Literal["dynamic", "static", "onnx"]

Scheme = Annotated[
    Literal["w8a8", "w8a16", "w8a32"],
    typer.Option(
        "--scheme", help="Bits of weights and activations; 16: bfloat16, 32: float32, weights alone are int8."
    ),
]
Backend = Annotated[
    Backends,
    typer.Option(
        "--backend",
        help="Ranges of 8-bit activations: from each row as it comes, or measured (fast when compiled); "
        "onnx: measured, computed by ONNX Runtime (fast as it is; extra: onnx).",
    ),
]
Calibration = Annotated[
    str | None,
    typer.Option(
        "--calibration",
        metavar="NAME|FILE",
        help="Data to measure ranges (training rows) and accuracy on; the model's own if not given.",
    ),
]
Limit = Annotated[
    str,
    typer.Option("--max-degradation", metavar="SHARE", help="By how much the squared error may grow: 1% or 0.01."),
]
Smoothing = Annotated[
    float | None,
    typer.Option("--smoothing", min=0, max=1, help="Strength of SmoothQuant, such as 0.5.", show_default=False),
]
Target = Annotated[
    Path | None,
    typer.Option("--output", metavar="DIR", help="The new model directory; beside the old one if not given."),
]


@command(app, flags=READ_FLAGS | TRACKING_FLAGS)
def quantize(
    model: Model,
    scheme: Scheme = "w8a8",
    backend: Backend = "dynamic",
    calibration: Calibration = None,
    max_degradation: Limit = "1%",
    smoothing: Smoothing = None,
    split: Annotated[
        Literal["train", "validation", "test"],
        typer.Option("--split", help="Whose windows decide; the test rows should decide nothing."),
    ] = "validation",
    target: Target = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Measure and report; write and record nothing.")] = False,
    overwrite: Overwrite = False,
    no_progress: NoProgress = False,
    *,
    flags: Flags,
    output: Output,
) -> None:
    """Turn the linear maps of a model into int8, compare both models, and write the new one.

    Nothing is written when the squared error grows by more than --max-degradation (exit code 2). What is written is a
    model directory that `stanhop forecast` and `stanhop evaluate` take like any other.

    Example: stanhop quantize --model runs/ETTh1-1/model

    Example: stanhop quantize --model runs/ETTh1-1/model --backend onnx --max-degradation 0.5% --output fast
    """
    from stanhop.forecasting.bundle import load_bundle, save_bundle
    from stanhop.quantization.compare import compare
    from stanhop.quantization.int8 import refuse_quantized
    from stanhop.quantization.onnx import require_exportable
    from stanhop.series.load import load_series
    from stanhop.storage import refuse_existing
    from stanhop.tracking.store import open_store, store_uri

    limit = _share(max_degradation)
    quantization = _quantization(scheme, backend)
    bundle = load_bundle(model)
    refuse_quantized(bundle)
    if backend == "onnx":
        require_exportable(bundle)
    target = target or model.with_name(f"{model.name}-{scheme}" + ("" if backend == "dynamic" else f"-{backend}"))
    if not (overwrite or dry_run):
        refuse_existing(target)
    config = config_for_data(bundle.config, calibration, flags)
    series_set = load_series(config.data)
    output.notes(series_set.notes)
    if config.tracking.enabled and not dry_run:
        store_uri(config.tracking, folder=Path.cwd())  # what can be no store is refused before anything is computed

    def progress(step: str) -> None:
        if output.is_human and not no_progress:
            output.notes([step])

    before = dataclasses.replace(bundle, config=config)
    after, twin = _quantized(before, quantization, series_set, smoothing, progress)
    comparison = compare(before, after, series_set, split=split, twin=twin, progress=progress)
    written, run_id = None, None
    if not (dry_run or comparison.exceeds(limit)):
        store = open_store(config.tracking, folder=Path.cwd()) if config.tracking.enabled else None  # may make files
        save_bundle(target, dataclasses.replace(after, config=bundle.config), overwrite=overwrite)
        written = target
        run_id = _recorded(store, before, {"float32": model, _name(quantization): target}, comparison, series_set)
    _print(comparison, quantization, written, run_id, output)
    if comparison.exceeds(limit):
        grown = f"the squared error grew by {100 * comparison.degradation:.2f} %, more than {max_degradation}"
        fix = "raise --max-degradation, or try --scheme w8a16, --smoothing 0.5 or the other --backend"
        if not dry_run:
            raise ModelError(Code.DEGRADED, f"{grown}; nothing was written", fix=fix)
        output.notes([f"{grown}: without --dry-run this would be refused; {fix}"])


def _share(text: str) -> float:
    """``1%`` or ``0.01`` as 0.01."""
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        problem = f"--max-degradation: {quoted(text)} is no share"
        raise UsageError(Code.USAGE, problem, fix="write 1% or 0.01")
    return value


def _quantization(scheme: Literal["w8a8", "w8a16", "w8a32"], backend: Backends) -> Quantization:
    from stanhop.model.int8 import Quantization

    if scheme == "w8a8":
        return Quantization(scheme, "static", "onnxruntime") if backend == "onnx" else Quantization(scheme, backend)
    if backend != "dynamic":
        problem = f"--backend {backend} is about 8-bit activations, which {scheme} does not have"
        raise UsageError(Code.USAGE, problem, fix="use --scheme w8a8, or leave --backend out")
    return Quantization(scheme, "bfloat16" if scheme == "w8a16" else "float32")


def _quantized(
    bundle: Bundle, quantization: Quantization, series_set: SeriesSet, smoothing: float | None, progress: Any
) -> tuple[Bundle, nn.Module]:
    """The quantised model, and the torch network with its integers, which is its own but for ONNX."""
    from stanhop.quantization.int8 import quantize_bundle
    from stanhop.quantization.onnx import onnx_bundle
    from stanhop.quantization.windows import calibration_contexts

    windows = []
    if quantization.activations == "static" or smoothing is not None:
        progress("calibrating on training windows")
        windows = calibration_contexts(bundle, series_set)
    in_torch = dataclasses.replace(quantization, runtime="torch")
    quantized = quantize_bundle(bundle, in_torch, calibration=windows, smoothing=smoothing)
    if quantization.runtime == "torch":
        return quantized, quantized.network
    progress("writing the network as ONNX")
    return onnx_bundle(quantized), quantized.network


def _name(quantization: Quantization) -> str:
    if quantization.runtime == "onnxruntime":
        return f"{quantization.scheme}-onnx"
    return f"{quantization.scheme}-{quantization.activations}"


def _recorded(
    store: Any, bundle: Bundle, models: dict[str, Path], comparison: Comparison, series_set: SeriesSet
) -> str | None:
    """Record both models in one run, each with its own figures."""
    from stanhop.quantization.compare import as_metrics, as_plain
    from stanhop.tracking.run import recorded, run_tags

    tags = run_tags(bundle.config, series_set, dataset=Path(bundle.config.data.source).name)
    with recorded(store, name=f"quantize-{bundle.config.model.separation}", tags=tags) as run:
        run.log_config(bundle.config)
        run.log_content(REPORT, (json.dumps(as_plain(comparison), indent=2) + "\n").encode())
        run.log_metrics({"quantization/degradation": comparison.degradation})
        for (name, path), figures in zip(models.items(), (comparison.before, comparison.after), strict=True):
            run.log_model(path, name=name, params={"quantization": name}, metrics=as_metrics(figures, comparison.split))
    return run.run_id


def _print(
    comparison: Comparison, quantization: Quantization, written: Path | None, run_id: str | None, output: Output
) -> None:
    from stanhop.quantization.compare import as_plain, table

    document = {
        **as_plain(comparison),
        "scheme": quantization.scheme,
        "activations": quantization.activations,
        "runtime": quantization.runtime,
        "model": written,
        "run_id": run_id,
    }
    facts = [
        ("measured on", f"{comparison.split} windows"),
        (
            "scheme",
            f"{quantization.scheme}, {quantization.activations} activations, computed by {quantization.runtime}",
        ),
        *([("MLflow", run_id)] if run_id else []),
        ("model", written or "not written"),
    ]
    output.result(document, human=f"{aligned(table(comparison))}\n\n{aligned(facts)}")
