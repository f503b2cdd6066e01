r"""Outliers: how far the largest activations stand out, as the OutEffHop paper measures it.

For each output of a module and each sample x of it (here a window), with mean m and unbiased deviation s of all its
elements,

    kurtosis = mean((x - m)^4) / (s^4 + 1e-6)        inf-norm = max|x|

Both are averaged over the samples; the *average kurtosis* is the mean and the *maximum inf-norm* the maximum over the
outputs that are counted. A Gaussian has kurtosis 3. The constant crushes outputs of small scale (it makes that of a
Gaussian of deviation 0.03 a 1.3), so the kurtosis without it stands beside.

Source: Hu et al. 2024, arXiv:2404.03828; Bondarenko et al. 2023, arXiv:2306.12929, section 5, and their code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from stanhop.errors import Code, ModelError
from stanhop.hopfield.layers import HopfieldLayer
from stanhop.model.block import FeedForward, TandemBlock
from stanhop.model.onnx import OnnxNetwork
from stanhop.model.published_layers import PublishedDecoderLayer, PublishedFeedForward, PublishedTandemBlock

Counted = Literal["blocks", "feedforward", "norms", "decoder", "all"]
"""Which outputs count: those of the tandem blocks, their feed-forward parts, the LayerNorms, the decoder layers (which
the published networks have, and Table 2 of the OutEffHop paper is about), or all modules."""
COUNTED: tuple[Counted, ...] = get_args(Counted)
KINDS: dict[Counted, tuple[type[nn.Module], ...]] = {
    "blocks": (TandemBlock, PublishedTandemBlock),
    "feedforward": (FeedForward, PublishedFeedForward),
    "norms": (nn.LayerNorm,),
    "decoder": (PublishedDecoderLayer,),
}

PUBLISHED_CONSTANT = 1e-6
"""What the published formula adds to s^4."""
FLAT = 1e-6
"""Deviation, relative to the largest element, below which a sample is constant and has no kurtosis."""


@dataclass(frozen=True)
class OutputOutliers:
    """What one module's output looks like.

    Args:
        name: The module, by its dotted name.
        kind: The class of the module.
        kurtosis: By the published formula, mean over the samples.
        kurtosis_scale_free: Without the constant, over the samples that are not constant; NaN where all are.
        inf_norm: Mean over the samples of the largest magnitude.
        is_repeated: Whether this is the tensor that the module before handed over (dropout, the end of a sequence):
            it is in the table under both names and counts once among "all".
        counted: The selections it belongs to.
    """

    name: str
    kind: str
    kurtosis: float
    kurtosis_scale_free: float
    inf_norm: float
    is_repeated: bool
    counted: tuple[Counted, ...]


@dataclass(frozen=True)
class OutlierSummary:
    """The figures of a selection of outputs."""

    average_kurtosis: float
    average_kurtosis_scale_free: float
    max_inf_norm: float
    num_outputs: int


@dataclass(frozen=True)
class OutlierReport:
    """Every output of a network over some windows."""

    outputs: tuple[OutputOutliers, ...]
    num_windows: int

    @property
    def selections(self) -> tuple[Counted, ...]:
        """Those that any output of this network belongs to."""
        return tuple(counted for counted in COUNTED if any(counted in output.counted for output in self.outputs))

    def summary(self, counted: Counted) -> OutlierSummary:
        """The mean kurtosis and the largest inf-norm over the outputs of ``counted``."""
        chosen = [output for output in self.outputs if counted in output.counted]
        return OutlierSummary(
            average_kurtosis=_mean([output.kurtosis for output in chosen]),
            average_kurtosis_scale_free=_mean(
                [output.kurtosis_scale_free for output in chosen if not math.isnan(output.kurtosis_scale_free)]
            ),
            max_inf_norm=max((output.inf_norm for output in chosen), default=math.nan),
            num_outputs=len(chosen),
        )

    def to_plain(self) -> dict[str, Any]:
        """The report as plain data: summaries by selection, then every output."""
        return {
            "num_windows": self.num_windows,
            "summary": {counted: asdict(self.summary(counted)) for counted in self.selections},
            "outputs": [asdict(output) for output in self.outputs],
        }

    def metrics(self) -> dict[str, float]:
        """The summaries by the names that MLflow records them under."""
        return {
            f"outliers/{counted}/{name}": float(value)
            for counted in self.selections
            for name, value in asdict(self.summary(counted)).items()
            if name != "num_outputs" and not math.isnan(value)
        }


def measure_outliers(
    network: nn.Module, contexts: Iterable[Tensor], *, progress: Callable[[int], None] | None = None
) -> OutlierReport:
    """Run ``network`` over ``contexts`` and measure the output of every module.

    The projections of learned memories are constants, no activations, and left out; so is the forecast itself, whose
    scale is that of the series. Of a module that puts out several tensors the first counts. The weights inside a
    retrieval are no output of a module and not here.

    Args:
        network: In evaluation mode.
        contexts: Scaled contexts ``(batch, context_length, columns)``.
        progress: Called with the number of windows done after each batch.

    Raises:
        ModelError: the network is an ONNX file, which shows nothing but its forecast.
    """
    if isinstance(network, OnnxNetwork):
        problem = "the model is an ONNX file, whose inner outputs cannot be seen"
        raise ModelError(Code.MODEL, problem, fix="give the model that it was made from")
    recorder = _Recorder(network)
    num_windows = 0
    with recorder.listening(), torch.inference_mode():
        for batch in contexts:
            recorder.begin()
            network(batch)
            num_windows += len(batch)
            if progress is not None:
                progress(num_windows)
    return OutlierReport(tuple(recorder.rows()), num_windows)


def kurtosis(samples: Tensor, *, constant: float = PUBLISHED_CONSTANT) -> Tensor:
    """Pearson's kurtosis of each row by the published formula.

    Args:
        samples: ``(samples, …)``; all but the first axis is one sample.
        constant: Added to the fourth power of the deviation.

    Returns:
        ``(samples,)`` in float64; NaN for a row of one element.
    """
    fourth, variance = _moments(samples)
    return fourth / (variance.square() + constant)


def kurtosis_scale_free(samples: Tensor) -> Tensor:
    """The same without a constant, so that scaling a row changes nothing; NaN for a constant row."""
    return _scale_free(*_moments(samples), inf_norm(samples))


def inf_norm(samples: Tensor) -> Tensor:
    """The largest magnitude in each row of ``(samples, …)``, ``(samples,)`` in float64."""
    return samples.flatten(1).abs().amax(dim=1).double()


def _moments(samples: Tensor) -> tuple[Tensor, Tensor]:
    """The fourth central moment of each row and its unbiased variance, in float64."""
    rows = samples.double().flatten(1)
    squares = (rows - rows.mean(dim=1, keepdim=True)).square_()
    variance = squares.sum(dim=1) / (rows.shape[1] - 1)  # of one element: 0 / 0, NaN
    return squares.square_().mean(dim=1), variance


def _scale_free(fourth: Tensor, variance: Tensor, largest: Tensor) -> Tensor:
    is_flat = variance.sqrt() <= FLAT * largest
    return (fourth / variance.square()).masked_fill(is_flat, math.nan)


class _Recorder:
    """Sums of the statistics by module, filled by hooks."""

    def __init__(self, network: nn.Module) -> None:
        constant = _projections_of_learned_memories(network)
        self._modules = {name: each for name, each in network.named_modules() if name and each not in constant}
        self._sums: dict[str, list[float]] = {}  # kurtosis, scale-free kurtosis, its rows, inf-norm, rows
        self._is_repeated: dict[str, bool] = {}
        self._last: tuple[Tensor, list[float]] | None = None

    def begin(self) -> None:
        """A new batch comes: nothing in it is handed on from the one before."""
        self._last = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """While it is entered, every module's output is taken in."""
        handles = [
            module.register_forward_hook(lambda _module, _inputs, output, name=name: self._take(name, output))
            for name, module in self._modules.items()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _take(self, name: str, output: Tensor | tuple[Tensor, ...]) -> None:
        output = output if isinstance(output, Tensor) else output[0]
        is_repeated = self._last is not None and _is_same(self._last[0], output)
        statistics = self._last[1] if is_repeated and self._last is not None else _statistics(output)
        self._last = (output, statistics)
        self._is_repeated[name] = is_repeated
        sums = self._sums.setdefault(name, [0.0] * len(statistics))
        self._sums[name] = [total + new for total, new in zip(sums, statistics, strict=True)]

    def rows(self) -> Iterator[OutputOutliers]:
        """The statistics of each module, in the order they ran first."""
        for name, (total, free, num_free, norm, num_rows) in self._sums.items():
            module, is_repeated = self._modules[name], self._is_repeated[name]
            yield OutputOutliers(
                name=name,
                kind=type(module).__name__,
                kurtosis=total / num_rows,
                kurtosis_scale_free=free / num_free if num_free else math.nan,
                inf_norm=norm / num_rows,
                is_repeated=is_repeated,
                counted=_counted(module, is_repeated=is_repeated),
            )


def _statistics(output: Tensor) -> list[float]:
    (fourth, variance), largest = _moments(output), inf_norm(output)
    scale_free = _scale_free(fourth, variance, largest)
    is_defined = ~scale_free.isnan()
    return [
        float((fourth / (variance.square() + PUBLISHED_CONSTANT)).sum()),
        float(scale_free[is_defined].sum()),
        float(is_defined.sum()),
        float(largest.sum()),
        float(len(output)),
    ]


def _is_same(one: Tensor, other: Tensor) -> bool:
    """Whether both are views of the same elements."""
    return one.data_ptr() == other.data_ptr() and one.numel() == other.numel()


def _counted(module: nn.Module, *, is_repeated: bool) -> tuple[Counted, ...]:
    named = [counted for counted, kinds in KINDS.items() if isinstance(module, kinds)]
    return (*named, *(() if is_repeated else ("all",)))


def _projections_of_learned_memories(network: nn.Module) -> set[nn.Module]:
    """Modules of ``network`` that read nothing of a window."""
    constant: set[nn.Module] = set()
    for module in network.modules():
        if isinstance(module, HopfieldLayer):
            constant |= {module.hopfield.memory_proj, module.hopfield.values_proj}
        elif isinstance(module, PublishedTandemBlock):
            constant |= {module.from_memories.memory_proj, module.from_memories.values_proj}
    return constant


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
