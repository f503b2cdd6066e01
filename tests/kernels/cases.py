"""What the kernel tests share: random cases, the definition to compare with, and how far off a kernel may be."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from stanhop.hopfield.retrieval import retrieve as definition
from stanhop.kernels.plan import Plan, Shape, block

# Relative root mean square of the difference to the definition in float64.
TOLERANCES = {"retrieved": 2e-6, "query": 1e-5, "memory": 1e-5, "values": 1e-5, "gate": 1e-5, "alpha": 1e-4}

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True)
class Case:
    """Tensors and rule of one retrieval, in float32."""

    query: Tensor
    memory: Tensor
    values: Tensor
    alpha: float | Tensor
    no_op: bool
    beta: float = 0.5
    clip: tuple[float, float] | None = None
    mask: Tensor | None = None
    gate: Tensor | None = None

    @property
    def learned(self) -> dict[str, Tensor]:
        """What gradients are taken by."""
        tensors = {"query": self.query, "memory": self.memory, "values": self.values}
        tensors |= {"alpha": self.alpha} if isinstance(self.alpha, Tensor) else {}
        return tensors | ({} if self.gate is None else {"gate": self.gate})


def random_case(
    num_queries: int,
    num_memories: int,
    *,
    alpha: float | tuple[float, ...],
    no_op: bool,
    head_dim: int = 11,
    values_dim: int = 13,
    batch: int = 1,
    scale: float = 1.0,
    offset: float = 0.0,
    clip: tuple[float, float] | None = None,
    masked: bool = False,
    gated: bool = False,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> Case:
    """Normal patterns in steps of 1/4; ``scale`` multiplies scores, ``offset`` is added to all of them (beta is 1/2).

    In these steps float32 scores are exact, however large their offset, and show what the rest adds to their error.
    ``masked`` gives a first batch entry without memories and a second with some.
    """
    generator = torch.Generator().manual_seed(seed)
    heads = len(alpha) if isinstance(alpha, tuple) else 2
    batch = 2 if masked else batch

    def patterns(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).mul(4).round().div(4)

    query = patterns(batch, num_queries, heads, head_dim) * scale
    memory = patterns(batch, num_memories, heads, head_dim)
    if offset:  # one feature the same in all queries, and in all memories
        query[..., 0], memory[..., 0] = 2 * offset, 1.0
    mask = None
    if masked:
        mask = torch.rand(batch, num_memories, generator=generator) < 0.7
        mask[0] = False
        mask[1:, 0] = True
        mask[1, -1] = num_memories == 1
    return Case(
        query=query.transpose(1, 2).to(DEVICE, dtype),
        memory=memory.transpose(1, 2).to(DEVICE, dtype),
        values=patterns(batch, num_memories, heads, values_dim).transpose(1, 2).to(DEVICE, dtype),
        alpha=torch.tensor(alpha, device=DEVICE) if isinstance(alpha, tuple) else alpha,
        no_op=no_op,
        clip=clip,
        mask=None if mask is None else mask.to(DEVICE),
        gate=patterns(batch, heads, num_queries).to(DEVICE, dtype) if gated else None,
    )


def outcome(retrieve: Callable[..., Tensor], case: Case, **options: object) -> dict[str, Tensor]:
    """The read-out and every gradient, given a random one of the read-out."""
    learned = {name: tensor.detach().clone().requires_grad_() for name, tensor in case.learned.items()}
    retrieved = retrieve(
        learned["query"],
        learned["memory"],
        learned["values"],
        alpha=learned.get("alpha", case.alpha),
        no_op=case.no_op,
        beta=case.beta,
        clip=case.clip,
        mask=case.mask,
        gate=learned.get("gate"),
        **options,
    )
    generator = torch.Generator().manual_seed(9)
    gradient = torch.randn(retrieved.shape, generator=generator).to(retrieved)
    gradients = torch.autograd.grad(retrieved, list(learned.values()), gradient)
    return {"retrieved": retrieved.detach(), **dict(zip(learned, gradients, strict=True))}


def expected_outcome(case: Case) -> dict[str, Tensor]:
    """That of the definition in float64."""
    double = {name: tensor.double() for name, tensor in case.learned.items()}
    return outcome(definition, dataclasses.replace(case, **double), method="definition")


def errors(got: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, float]:
    """Relative root mean square error of each quantity; NaN counts as infinitely wrong."""
    found = {}
    for name, right in expected.items():
        error = ((got[name].double() - right).norm() / right.norm().clamp(min=1e-30)).item()
        found[name] = error if error == error else float("inf")
    return found


def breaches(got: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, float]:
    """Errors above their tolerance."""
    return {name: error for name, error in errors(got, expected).items() if error > TOLERANCES[name]}


def looped_plan(shape: Shape) -> Plan:
    """The smallest tiles, whatever the sizes: loops that real plans reach with long memories only."""
    return Plan(
        is_resident=False, query_block=16, memory_block=16,
        head_block=block(shape.head_dim), values_block=block(shape.values_dim), num_warps=1, num_stages=2,
    )  # fmt: skip
