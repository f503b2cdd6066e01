"""What the tests work on: a table, a small model for it, and the options of a training that takes a second."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from stanhop.config import DataConfig, ModelConfig, RunConfig
from stanhop.forecasting.bundle import Bundle, save_bundle
from stanhop.model.network import build_network
from stanhop.series.frame import Layout
from stanhop.series.scaling import Scaler

CHANNELS = ("load", "wind")
CONTEXT, STEPS = 24, 6
MODEL = ModelConfig(
    context_length=CONTEXT,
    prediction_length=STEPS,
    patch_length=6,
    model_dim=4,
    num_heads=2,
    feedforward_dim=5,
    num_memories=3,
)
TRAINING = (
    *("--prediction-length", "3", "--context-length", "12", "--set", "model.patch_length=4"),
    *("--set", "model.model_dim=8", "--set", "model.num_heads=2", "--set", "model.feedforward_dim=7"),
    *("--set", "model.separation=sparse_outeffhop", "--set", "model.dropout=0.2"),
    *("--epochs", "4", "--batch-size", "13", "--set", "train.patience=0", "--device", "cpu", "--seed", "5"),
    "--no-progress",
)
"""The network as it is shipped, learned alpha, dropout and two levels, only smaller: 4 epochs of 11 steps."""
TRAINING_ROWS = 213


def values(num_rows: int, *, seed: int = 0) -> np.ndarray:
    """``(rows, channels)`` of waves and noise, each channel on a level of its own."""
    random = np.random.default_rng(seed)
    steps = np.arange(num_rows)[:, None]
    noise = random.normal(size=(num_rows, len(CHANNELS)))
    waves = np.sin(2 * np.pi * (steps + seed) / 24 + np.arange(len(CHANNELS)))
    return np.round(10 * np.arange(1, len(CHANNELS) + 1) + waves + 0.1 * noise, 4)


def rows(num_rows: int = 40, *, seed: int = 0) -> list[list[str]]:
    """An hourly table as cells, header first."""
    stamps = np.datetime64("2021-03-01T00:00") + np.arange(num_rows) * np.timedelta64(1, "h")
    cells = [
        [str(stamp).replace("T", " "), *map(repr, line)]
        for stamp, line in zip(stamps, values(num_rows, seed=seed).tolist(), strict=True)
    ]
    return [["date", *CHANNELS], *cells]


def write_csv(path: Path, table: list[list[str]]) -> Path:
    """Write cells as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{','.join(line)}\n" for line in table))
    return path


def write_tables(folder: Path, count: int, *, distinct: int = 40) -> None:
    """``count`` tables in ``folder``, in subfolders of 500; the same ``distinct`` contents again and again."""
    folder.mkdir(parents=True)
    contents = [("".join(f"{','.join(line)}\n" for line in rows(seed=seed))).encode() for seed in range(distinct)]
    for number in range(count):
        path = folder / f"{number // 500:02}" / f"{number:05}.csv"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(contents[number % distinct])


def save_model(path: Path) -> Bundle:
    """A model directory with random weights for such tables."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = build_network(MODEL, len(CHANNELS))
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    bundle = Bundle(
        config=RunConfig(data=DataConfig(), model=MODEL),
        num_channels=len(CHANNELS),
        channels=CHANNELS,
        frequency="h",
        layout=Layout("wide", "date", None, CHANNELS),
        scalers={"": Scaler.fit(values(100, seed=7))},
        network=network.eval().requires_grad_(False),
        fingerprint="f1" * 32,
    )
    save_bundle(path, bundle)
    return bundle


def files_in(folder: Path) -> dict[str, bytes]:
    """Content of every file below ``folder`` by its path, but lock files."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("lock", ".lock")
    }
