"""What is measured: shapes by name, the separations that meet there, and the tensors of both."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stanhop.errors import Code, UsageError, quoted

Tensors = dict[str, Tensor]
"""``scores`` of rows, or ``query``, ``memory`` and ``values`` of a retrieval; ``alpha``, (heads,), if it is learned."""


@dataclass(frozen=True)
class Shape:
    """Sizes of one retrieval, or of rows of scores alone.

    Args:
        name: Within its group.
        batch: Sequences.
        heads: Heads.
        queries: Queries of a sequence.
        memories: Memories of a sequence.
        head_dim: Features of a head; 0 where only rows of scores are separated, without a read-out.
        is_shared: Whether all sequences ask the same memories.
    """

    name: str
    batch: int
    heads: int
    queries: int
    memories: int
    head_dim: int
    is_shared: bool = False

    @property
    def is_rows(self) -> bool:
        """Whether there is nothing but scores."""
        return self.head_dim == 0

    def num_bytes(self, dtype: torch.dtype, phase: str) -> int:
        """Bytes that ``phase`` has to move at the least: each input read once, each result written once.

        Forward: query, memory, values and read-out. Backward: these three, the read-out's gradient, and three
        gradients. Rows: scores and weights; backward one more.
        """
        if self.is_rows:
            cells = self.batch * self.heads * self.queries * self.memories
            counts = {"forward": 2, "backward": 3, "both": 5}
            return counts[phase] * cells * dtype.itemsize
        queries = self.batch * self.heads * self.queries * self.head_dim
        memories = (1 if self.is_shared else self.batch) * self.heads * self.memories * self.head_dim
        forward, backward = 2 * queries + 2 * memories, 3 * queries + 4 * memories
        return {"forward": forward, "backward": backward, "both": forward + backward}[phase] * dtype.itemsize

    def num_flops(self, phase: str) -> float:
        """Multiplications and additions of the products: two of them forward, five backward."""
        product = 2.0 * self.batch * self.heads * self.queries * self.memories * self.head_dim
        return {"forward": 2 * product, "backward": 5 * product, "both": 7 * product}[phase]


@dataclass(frozen=True)
class Rule:
    """How scores become weights.

    Args:
        name: As the tables call it.
        alpha: A number, or one a head if it is learned.
        no_op: Whether a memory of score and value 0 competes.
        is_causal: Whether a query sees no memory after its own place; only some peers know no other way.
    """

    name: str
    alpha: float | tuple[float, ...]
    no_op: bool
    is_causal: bool = False

    @property
    def is_learned(self) -> bool:
        """Whether alpha has a gradient."""
        return isinstance(self.alpha, tuple)

    def alpha_of(self, given: Tensors) -> float | Tensor:
        """The alpha to compute ``given`` with, ``(heads,)`` if it is learned."""
        if isinstance(self.alpha, tuple):
            return given["alpha"]
        return self.alpha

    def broadcast_alpha_of(self, given: Tensors) -> float | Tensor:
        """The same as it broadcasts against scores."""
        alpha = self.alpha_of(given)
        return alpha[:, None, None] if isinstance(alpha, Tensor) else alpha


SOFTMAX = Rule("softmax", 1.0, no_op=False)
OUTEFFHOP = Rule("outeffhop", 1.0, no_op=True)
GSH = Rule("gsh", (1.2, 1.4, 1.6, 1.8), no_op=False)
SPARSE_OUTEFFHOP = Rule("sparse_outeffhop", (1.2, 1.4, 1.6, 1.8), no_op=True)
ENTMAX_14 = Rule("entmax 1.4", 1.4, no_op=False)
ENTMAX_15 = Rule("entmax 1.5", 1.5, no_op=False)
SPARSEMAX = Rule("sparsemax", 2.0, no_op=False)
LEARNED_NEAR = tuple(Rule(f"gsh near {alpha}", (alpha,) * 4, no_op=False) for alpha in (1.1, 1.4, 1.9))


@dataclass(frozen=True)
class Case:
    """One shape under one rule, on one device in one precision."""

    group: str
    shape: Shape
    rule: Rule
    dtype: torch.dtype
    device: torch.device

    @property
    def name(self) -> str:
        """Unique among all cases."""
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{self.group}/{self.shape.name}, {self.rule.name}, {dtype}"

    def tensors(self, *, seed: int = 0, dtype: torch.dtype | None = None) -> Tensors:
        """Standard normal patterns as the layers make them, heads side by side, or scores; leaves with gradients."""
        generator = torch.Generator(self.device).manual_seed(seed)
        shape, dtype = self.shape, dtype or self.dtype

        def normal(*sizes: int) -> Tensor:
            return torch.randn(*sizes, generator=generator, device=self.device).to(dtype)

        if shape.is_rows:
            found = {"scores": normal(shape.batch, shape.heads, shape.queries, shape.memories)}
        else:
            batch = 1 if shape.is_shared else shape.batch
            found = {
                "query": normal(shape.batch, shape.queries, shape.heads, shape.head_dim).transpose(1, 2),
                "memory": normal(batch, shape.memories, shape.heads, shape.head_dim).transpose(1, 2),
                "values": normal(batch, shape.memories, shape.heads, shape.head_dim).transpose(1, 2),
            }
        if isinstance(self.rule.alpha, tuple):
            precise = torch.float64 if dtype == torch.float64 else torch.float32
            alphas = [self.rule.alpha[head % len(self.rule.alpha)] for head in range(shape.heads)]
            found["alpha"] = torch.tensor(alphas, device=self.device, dtype=precise)
        return {name: tensor.requires_grad_() for name, tensor in found.items()}

    def part(self, most_scores: int) -> Case:
        """The case with fewer sequences and, if that is not enough, fewer heads: at most ``most_scores`` if it can."""
        a_head = self.shape.queries * self.shape.memories
        batch = max(1, min(self.shape.batch, most_scores // (a_head * self.shape.heads)))
        heads = max(1, min(self.shape.heads, most_scores // (a_head * batch)))
        return dataclasses.replace(self, shape=dataclasses.replace(self.shape, batch=batch, heads=heads))


@dataclass(frozen=True)
class Group:
    """Shapes that belong together, and the rules measured there.

    Args:
        shapes: Its shapes.
        rules: By the type of the device; none where the group is not for it.
        dtypes: In which precisions a GPU computes; a CPU takes float32.
    """

    shapes: tuple[Shape, ...]
    rules: Mapping[str, tuple[Rule, ...]]
    dtypes: tuple[torch.dtype, ...] = (torch.bfloat16,)


def _same(name: str, batch: int, length: int, head_dim: int, heads: int = 4) -> Shape:
    return Shape(name, batch, heads, length, length, head_dim)


_SINGLE, _BOTH = (torch.float32,), (torch.bfloat16, torch.float32)
_ROWS = (*LEARNED_NEAR, ENTMAX_15, SPARSEMAX)
_LAYERS = {"cpu": (OUTEFFHOP, GSH), "cuda": (OUTEFFHOP, GSH, SPARSE_OUTEFFHOP)}
_LENGTHS = (7, 14, 28, 60, 90, 120)
GROUPS: dict[str, Group] = {
    "rows": Group(
        (_same("14", 896, 14, 0), _same("120", 32, 120, 0)), {"cpu": _ROWS, "cuda": (GSH, SPARSEMAX)}, _SINGLE
    ),
    "etth1-time": Group((_same("14", 128 * 7, 14, 64),), _LAYERS, _BOTH),
    "etth1-pooling": Group((Shape("7x10", 128 * 14, 4, 7, 10, 64, is_shared=True),), _LAYERS, _BOTH),
    "etth1-variates": Group((_same("7", 128 * 14, 7, 64),), _LAYERS, _BOTH),
    "l120": Group((_same("120", 32, 120, 64),), {"cpu": (OUTEFFHOP, GSH), "cuda": ()}),
    "lengths": Group(
        tuple(
            _same(f"{length}, D {head_dim}", max(1, 2**20 // (4 * length * length)), length, head_dim)
            for length in _LENGTHS
            for head_dim in (16, 64)
        ),
        {"cpu": (OUTEFFHOP,), "cuda": ()},
    ),
    "ecl-time": Group((_same("14", 32 * 321, 14, 64),), {"cpu": (), "cuda": (OUTEFFHOP, GSH)}),
    "ecl-variates": Group((_same("321", 32 * 14, 321, 64),), {"cpu": (), "cuda": (OUTEFFHOP, GSH)}),
    "medium": Group(
        (
            *(_same(str(length), 2**20 // (4 * length * 8), length, 64) for length in (32, 64, 96)),
            _same("120, D 32", 256, 120, 32),
            *(_same(str(length), 2**20 // (4 * length * 8), length, 64) for length in (256, 512)),
        ),
        {"cpu": (), "cuda": (OUTEFFHOP, GSH, ENTMAX_14)},
    ),
    "long": Group(
        (_same("720", 32, 720, 64), _same("4096", 4, 4096, 64, heads=32), _same("8192", 1, 8192, 64, heads=32)),
        {"cpu": (), "cuda": (OUTEFFHOP, ENTMAX_15)},
    ),
    "rows-long": Group(
        tuple(Shape(str(length), 1, 1, 2048, length, 0) for length in (1024, 4096, 32768)),
        {"cpu": (), "cuda": (SPARSEMAX,)},
        _SINGLE,
    ),
}
"""Every group by name. 128 windows of ETTh1 are 7 channels of 14 patches; 32 of ECL are 321 channels of 14."""
EXTRA_RULES: dict[str, tuple[Rule, ...]] = {"cpu": (GSH,), "cuda": (OUTEFFHOP, GSH)}
"""Rules of a group that is asked for on a device it is not meant for."""


def names_of(device_type: str) -> list[str]:
    """The groups that are meant for the type of device."""
    return [name for name, group in GROUPS.items() if group.rules[device_type]]


def cases_of(
    names: Sequence[str],
    device: torch.device,
    *,
    meant_for: str | None = None,
    dtypes: Sequence[torch.dtype] | None = None,
    is_tiny: bool = False,
) -> Iterator[Case]:
    """Every case of the groups ``names``.

    Args:
        names: Keys of ``GROUPS``.
        device: Where to compute.
        meant_for: Under which type of device's rules; by default those of ``device``.
        dtypes: In which precisions; by default float32 on a CPU, and on a GPU the group's own.
        is_tiny: Whether sizes are cut to what an interpreter takes: the same cases, and times that mean nothing.

    Raises:
        UsageError: a name is unknown.
    """
    for name in names:
        if name not in GROUPS:
            raise UsageError(Code.USAGE, f"no shapes are called {quoted(name)}", fix=f"choose of {', '.join(GROUPS)}")
        group = GROUPS[name]
        precisions = dtypes or (group.dtypes if device.type == "cuda" else (torch.float32,))
        rules = group.rules[meant_for or device.type] or EXTRA_RULES[device.type]
        for shape in group.shapes:
            for rule in rules:
                for dtype in precisions:
                    yield Case(name, tiny(shape) if is_tiny else shape, rule, dtype, device)


def tiny(shape: Shape) -> Shape:
    """``shape`` with at most 2 sequences, 2 heads, 19 queries and memories, and 16 features."""
    return dataclasses.replace(
        shape,
        batch=min(2, shape.batch),
        heads=min(2, shape.heads),
        queries=min(19, shape.queries),
        memories=min(19, shape.memories),
        head_dim=min(16, shape.head_dim),
    )


def beta(shape: Shape) -> float:
    """The inverse temperature of a retrieval: that of all attention."""
    return 1 / math.sqrt(shape.head_dim)
