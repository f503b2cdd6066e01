"""What each ingredient of the default network is worth: trained without it, from the same seeds, on the same rows.

    STANHOP_DATA_DIR=... python benchmarks/ablation.py --data ETTh1 --seeds 1 2 3

Every line changes one thing of the data set's preset. Errors are those of the **validation** rows, in scaled units:
the test rows decide nothing about the network. Trainings lie in ``runs/ablation`` (``--output``), and a second call
goes on where the first was stopped. The result goes to ``benchmarks/results/<data>/ablation.json`` and ``.md``
(``--results``).
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MethodType
from typing import Any
from unittest import mock

import torch
from torch import nn

from stanhop import storage
from stanhop.benchmarks.table import machine
from stanhop.cli.layers import run_layers
from stanhop.config import Layer, ModelConfig, RunConfig, nest, resolve
from stanhop.forecasting.bundle import load_bundle
from stanhop.forecasting.bundle import network as bundle_network
from stanhop.forecasting.evaluation import evaluate
from stanhop.model.block import AcrossChannels, Residual, TandemBlock
from stanhop.model.network import STanHopNet, build_network
from stanhop.series.load import load_series
from stanhop.training import lightning_module
from stanhop.training.evidence import standard_errors_above_zero
from stanhop.training.once import fit_once

RESULTS = Path(__file__).parent / "results"
UNTOLD: dict[str, Any] = {"model.time_features": []}
WITHOUT_MEMORIES: dict[str, Any] = {"model.joint_memories": 0}


class Nothing(nn.Module):
    """Adds nothing to what it stands beside."""

    def forward(self, _: torch.Tensor) -> float:
        """0."""
        return 0.0


def without_linear_paths(network: STanHopNet) -> None:
    """Leave the linear maps from context to horizon out."""
    network.direct, network.joint = Nothing(), None
    network.begin_as_linear = MethodType(lambda self, weight: None, network)


def without_channels(network: STanHopNet) -> None:
    """Leave the stage across channels out of every block, so that each channel is forecast by itself."""
    _cut_blocks(network, keep=slice(0, 2))


def without_time(network: STanHopNet) -> None:
    """Leave retrieval across time out of every block; its feed-forward step stays."""
    _cut_blocks(network, keep=slice(1, None))


def without_learned_memories(network: STanHopNet) -> None:
    """Channels retrieve from one another alone."""
    for module in network.modules():
        if isinstance(module, AcrossChannels):
            module.learned_memories = Nothing()


def without_other_channels(network: STanHopNet) -> None:
    """Channels retrieve from learned memories alone."""
    for module in network.modules():
        if isinstance(module, AcrossChannels):
            module.between_channels = Nothing()


def without_scales(network: STanHopNet) -> None:
    """What channels say of one another counts in full from the first step on."""
    for module in network.modules():
        if isinstance(module, Residual):
            module.scale = None


def without_encoder(network: STanHopNet) -> None:
    """The linear paths alone: a linear model."""
    network.encoder, network.read_outs = nn.ModuleList(), nn.ModuleList()


def _cut_blocks(network: STanHopNet, *, keep: slice) -> None:
    for level in network.encoder:
        steps = list(level[-1])
        assert isinstance(level[-1], TandemBlock)
        level[-1] = nn.Sequential(*steps[keep])


@dataclass(frozen=True)
class Variant:
    """The preset with one thing changed.

    Args:
        name: What the table calls it.
        changes: Keys that differ.
        cut: What is taken out of the network that they make.
    """

    name: str
    changes: dict[str, Any] = field(default_factory=dict)
    cut: Callable[[STanHopNet], None] = lambda _: None


def variants_of(config: RunConfig) -> list[Variant]:
    """Every variant of a preset, the preset itself first."""
    model, train = config.model, config.train
    losses = [loss for loss in ("mae", "mse", "huber") if loss != train.loss]
    return [
        Variant("the preset"),
        Variant("without the linear paths", {"train.stacking": False}, cut=without_linear_paths),
        Variant("linear paths alone", cut=without_encoder),
        Variant("without retrieval across time", cut=without_time),
        Variant("without the stage across channels", cut=without_channels),
        Variant("without learned memories", cut=without_learned_memories),
        Variant("without other channels' patches", cut=without_other_channels),
        *([] if model.joint_rank else [Variant("without the scale of the stage across channels", cut=without_scales)]),
        Variant("without the moving average of the weights", {"train.ema_decay": 0.0}),
        _switched("stacking", "train.stacking", train.stacking),
        *[
            Variant(f"start {each}", {"train.start": each})
            for each in ("ridge", "mean", "random")
            if each != train.start
        ],
        *[
            Variant(
                f"rank {rank} of the joint path",
                {"model.joint_rank": rank} | ({} if rank else UNTOLD | WITHOUT_MEMORIES),
            )
            for rank in (0, 64)
            if rank != model.joint_rank
        ],
        *([Variant("without time features", UNTOLD)] if model.joint_rank else []),
        *([Variant("without memories of the joint path", WITHOUT_MEMORIES)] if model.joint_rank else []),
        _switched("instance norm", "model.instance_norm", model.instance_norm),
        *([_switched("mean reversion", "model.mean_reversion", model.mean_reversion)] if model.instance_norm else []),
        _switched("seasonal profile", "model.seasonal_profile", model.seasonal_profile),
        _switched("channel embedding", "model.channel_embedding", model.channel_embedding),
        Variant("one level", {"model.num_levels": 1}),
        Variant("three levels", {"model.num_levels": 3}),
        Variant("no merging", {"model.merge_size": 1}),
        *[Variant(f"loss {loss}", {"train.loss": loss}) for loss in losses],
        *[Variant(f"dropout {rate}", {"model.dropout": rate}) for rate in (0.0, 0.1, 0.3) if rate != model.dropout],
        *[
            Variant(f"context {steps}", {"model.context_length": steps})
            for steps in (168, 336, 720)
            if steps != model.context_length
        ],
        Variant("learning rate halved in steps", {"train.schedule": "halving"}),
    ]


def _switched(name: str, key: str, is_on: bool) -> Variant:
    return Variant(f"{'without' if is_on else 'with'} {name}", {key: not is_on})


@contextmanager
def built(cut: Callable[[STanHopNet], None]) -> Iterator[None]:
    """Networks that are trained and loaded within the block are ``cut``."""

    def build(config: ModelConfig, num_channels: int) -> nn.Module:
        network = build_network(config, num_channels)
        assert isinstance(network, STanHopNet)
        cut(network)
        return network

    with (
        mock.patch.object(lightning_module, "build_network", build),
        mock.patch.object(bundle_network, "build_network", build),
    ):
        yield


@dataclass(frozen=True)
class Run:
    """One training.

    Args:
        figures: Validation errors, parameters and time.
        squared_errors: Mean of each validation window, ``(windows,)``, in order of time.
    """

    figures: dict[str, float]
    squared_errors: torch.Tensor


def measured(variant: Variant, base: list[Layer], seed: int, folder: Path) -> Run:
    """Train in ``folder``, and measure on the validation rows."""
    config = resolve([*base, Layer(variant.name, nest(variant.changes | {"train.seed": seed}))])
    data, horizon = Path(config.data.source).stem, config.model.prediction_length
    path = folder / storage.safe_name(f"{data}-{horizon}-{variant.name}-{seed}".replace(" ", "_"))
    series_set = load_series(config.data)
    with built(variant.cut):
        result = fit_once(config, run_path=path, progress=False, series_set=series_set)
        found = evaluate(load_bundle(result.model_path), series_set, split="validation")
    figures = {
        "mse": found.metrics["mse_scaled"],
        "mae": found.metrics["mae_scaled"],
        "parameters": result.metrics["size/num_parameters"],
        "seconds": result.metrics["time/train_s"],
    }
    return Run(figures, torch.from_numpy(found.windows.rows["mse_scaled"].astype(float)))


def summary(variant: Variant, runs: list[Run], base: list[Run], *, horizon: int) -> dict[str, Any]:
    """Means, deviations, and the change against the preset, seed by seed; of MSE in standard errors, too.

    These are over stretches of time of what all seeds make on average, as a training judges what it decides.
    """
    pairs = list(zip(runs, base, strict=True))
    more = torch.stack([run.squared_errors - own.squared_errors for run, own in pairs]).mean(dim=0)
    row: dict[str, Any] = {
        "variant": variant.name,
        "changes": variant.changes,
        "runs": [run.figures for run in runs],
        "mse_change_standard_errors": standard_errors_above_zero(more, shortest=horizon),
    }
    for figure in ("mse", "mae"):
        values = [run.figures[figure] for run in runs]
        changes = [100 * (run.figures[figure] / own.figures[figure] - 1) for run, own in pairs]
        for name, each in ((figure, values), (f"{figure}_change_percent", changes)):
            row[name] = {"mean": statistics.fmean(each), "deviation": statistics.stdev(each) if len(each) > 1 else None}
    seconds = statistics.fmean(run.figures["seconds"] for run in runs)
    return row | {"parameters": runs[0].figures["parameters"], "seconds": seconds}


def to_markdown(rows: list[dict[str, Any]]) -> str:
    """The table."""
    head = "| | MSE | change, % | in standard errors | MAE | change, % | parameters | seconds |"
    lines = [head, "|---|---|---|---|---|---|---|---|"]
    for row in rows:
        cells = [_figure(row[name], digits) for name, digits in
                 (("mse", 4), ("mse_change_percent", 1), ("mae", 4), ("mae_change_percent", 1))]  # fmt: skip
        clear = row["mse_change_standard_errors"]
        cells.insert(2, "" if clear is None else f"{clear:+.1f}")
        lines.append(f"| {row['variant']} | {' | '.join(cells)} | {row['parameters']:,.0f} | {row['seconds']:.0f} |")
    return "\n".join(lines) + "\n"


def _figure(spread: dict[str, float | None], digits: int) -> str:
    sign = "+" if digits == 1 else ""
    deviation = "" if spread["deviation"] is None else f" ± {spread['deviation']:.{digits}f}"
    return f"{spread['mean']:{sign}.{digits}f}{deviation}"


def main() -> None:
    """Train, measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="ETTh1", help="a named data set, or a file")
    parser.add_argument("--prediction-length", type=int, default=24)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change one key of the preset")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="variants to train beside the preset")
    parser.add_argument("--output", type=Path, default=Path("runs/ablation"), help="where the trainings are kept")
    parser.add_argument("--results", type=Path, help="where the table goes")
    options = parser.parse_args()
    horizon = Layer("--prediction-length", {"model": {"prediction_length": options.prediction_length}})
    base = run_layers(
        data=options.data, preset=None, files=[], assignments=options.set, flags=[horizon],
        environment={"STANHOP_TRACKING__ENABLED": "false"},
    )  # fmt: skip
    variants = [each for each in variants_of(resolve(base)) if not options.only or each.name in options.only]
    if variants[0].name != "the preset":
        variants.insert(0, Variant("the preset"))
    rows: list[dict[str, Any]] = []
    presets: list[Run] = []
    for variant in variants:
        runs = [measured(variant, base, seed, options.output) for seed in options.seeds]
        presets = presets or runs
        rows.append(summary(variant, runs, presets, horizon=options.prediction_length))
        print(to_markdown(rows[-1:]).splitlines()[-1], flush=True)
    document = {
        "what": "validation errors in scaled units, mean and deviation over seeds; changes are paired by seed",
        "data": options.data,
        "prediction_length": options.prediction_length,
        "seeds": options.seeds,
        "machine": machine(),
        "rows": rows,
    }
    stem = "ablation" if options.prediction_length == 24 else f"ablation-{options.prediction_length}"
    folder = options.results or RESULTS / Path(options.data).stem.lower()
    storage.make_directory(folder)
    storage.write_text(folder / f"{stem}.json", json.dumps(document, indent=2) + "\n")
    storage.write_text(folder / f"{stem}.md", to_markdown(rows))


if __name__ == "__main__":
    main()
