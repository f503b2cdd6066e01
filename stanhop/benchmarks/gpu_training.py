"""Training of the default network on a GPU: a step by step and as one CUDA graph, in three precisions; an epoch."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from stanhop.benchmarks import timing
from stanhop.benchmarks.timing import WallClock
from stanhop.config import ModelConfig, TrainConfig
from stanhop.model.network import build_network

NUM_CHANNELS, NUM_ROWS, NUM_WINDOWS = 7, 8640, 8449
"""ETTh1's channels, its training rows, and the windows of 168 -> 24 steps in these."""
PRECISIONS = ("float32", "tf32", "bfloat16")
WARM_UP_STEPS = 3


@dataclass(frozen=True)
class Sizes:
    """What is trained.

    Args:
        model: The network.
        batch_size: Windows a step.
        num_windows: Windows an epoch.
    """

    model: ModelConfig
    batch_size: int = 128
    num_windows: int = NUM_WINDOWS


DEFAULT = Sizes(ModelConfig(context_length=168))
TINY = Sizes(ModelConfig(context_length=48, model_dim=8, feedforward_dim=8), batch_size=2, num_windows=5)


class Windows:
    """All windows as one view of a series that lies on the device; a batch is gathered there."""

    def __init__(self, sizes: Sizes, device: torch.device) -> None:
        self.context_length = sizes.model.context_length
        length = self.context_length + sizes.model.prediction_length
        generator = torch.Generator().manual_seed(0)
        series = torch.randn(sizes.num_windows + length - 1, NUM_CHANNELS, generator=generator).to(device)
        self.view = series.unfold(0, length, 1).transpose(1, 2)  # (windows, length, channels)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Contexts and targets of the windows ``indices``."""
        windows = self.view[indices]
        return windows[:, : self.context_length], windows[:, self.context_length :]


class Trainer:
    """The default network with its optimiser; a step works on tensors that stay where they are."""

    def __init__(self, sizes: Sizes, device: torch.device, precision: str) -> None:
        torch.manual_seed(0)
        self.device, self.precision = device, precision
        self.network: nn.Module = build_network(sizes.model, NUM_CHANNELS).to(device).train()
        train = TrainConfig()
        self.gradient_clip = train.gradient_clip
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=train.learning_rate, weight_decay=train.weight_decay,
            capturable=device.type == "cuda",
        )  # fmt: skip
        self.windows = Windows(sizes, device)
        self.context, self.target = self.windows.batch(
            torch.arange(sizes.batch_size, device=device) % sizes.num_windows
        )

    def load(self, indices: Tensor) -> None:
        """Gather another batch into the tensors that ``step`` reads."""
        context, target = self.windows.batch(indices)
        self.context.copy_(context)
        self.target.copy_(target)

    def step(self) -> None:
        """Forward, backward, clipping, optimiser."""
        with self._autocast():
            loss = functional.l1_loss(self.network(self.context).float(), self.target)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), self.gradient_clip)
        self.optimizer.step()

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.precision == "bfloat16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return nullcontext()


def measure_precision(
    sizes: Sizes, device: torch.device, precision: str, *, num_rounds: int, limit: float
) -> dict[str, Any]:
    """Seconds a step in one precision, step by step and, on CUDA, as a graph; an epoch; memory at its highest.

    The share of the epoch that the GPU is busy is that of the graphs' own time in the epoch's.
    """
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        return _measure(Trainer(sizes, device, precision), sizes, num_rounds=num_rounds, limit=limit)
    finally:
        torch.set_float32_matmul_precision("highest")


def _measure(trainer: Trainer, sizes: Sizes, *, num_rounds: int, limit: float) -> dict[str, Any]:
    is_cuda = trainer.device.type == "cuda"
    synchronize: Callable[[], None] | None = torch.cuda.synchronize if is_cuda else None
    if is_cuda:
        torch.cuda.reset_peak_memory_stats()
    clock = WallClock(synchronize)
    eager = clock.sampler([trainer.step])
    found: dict[str, Any] = {"peak_bytes": torch.cuda.max_memory_allocated() if is_cuda else None}
    samplers = {"eager": eager}
    run = trainer.step
    if is_cuda:
        run = captured(trainer.step)
        samplers["graph"] = clock.sampler([run])
    samples = timing.in_turns(samplers, num_rounds=num_rounds, limit=limit)
    found["seconds"] = {name: vars(timing.timing(values)) for name, values in samples.items()}
    found["epoch_seconds"] = epoch_seconds(trainer, run, sizes, synchronize or (lambda: None))
    found["windows_per_second"] = sizes.num_windows / found["epoch_seconds"]
    if is_cuda:
        low, median, high = timing.ratio(samples["eager"], samples["graph"])
        found["eager_over_graph"] = {"low": low, "median": median, "high": high}
        num_steps = -(-sizes.num_windows // sizes.batch_size)
        found["busy_share"] = num_steps * found["seconds"]["graph"]["median"] / found["epoch_seconds"]
    return found


def captured(step: Callable[[], object]) -> Callable[[], None]:
    """``step`` as a CUDA graph, after it has run a few times on a stream of its own."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP_STEPS):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def epoch_seconds(trainer: Trainer, run: Callable[[], None], sizes: Sizes, synchronize: Callable[[], None]) -> float:
    """Seconds of an epoch on the wall clock: shuffled, gathered on the device; the last batch is filled up."""
    num_steps = -(-sizes.num_windows // sizes.batch_size)
    order = torch.randperm(num_steps * sizes.batch_size, device=trainer.device) % sizes.num_windows
    synchronize()
    started = time.perf_counter()
    for indices in order.split(sizes.batch_size):
        trainer.load(indices)
        run()
    synchronize()
    return time.perf_counter() - started
