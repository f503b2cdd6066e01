"""Who is measured: our own ways, and what others offer, each for the cases it can serve."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

import torch
from torch import Tensor

from stanhop.benchmarks.kernels import packages, vendor
from stanhop.benchmarks.kernels.cases import SOFTMAX, Case, Tensors, beta
from stanhop.benchmarks.kernels.ways import Unserved, Way
from stanhop.hopfield import attention
from stanhop.hopfield.fast_separation import fast_separate
from stanhop.hopfield.retrieval import retrieve
from stanhop.hopfield.separation import separate

OURS = "ours"
"""The way that users get: what all ratios are taken to."""


@dataclass(frozen=True)
class Peer:
    """One way to compute a case.

    Args:
        name: As the tables call it.
        make: What computes a case; it raises ``Unserved`` if it cannot.
        is_ours: Whether it is this program's.
        module: The package it needs, if it is not torch.
        package: Its name for pip.
    """

    name: str
    make: Callable[[Case], Way]
    is_ours: bool = False
    module: str | None = None
    package: str | None = None

    @property
    def is_installed(self) -> bool:
        """Whether its package is here."""
        return self.module is None or find_spec(self.module) is not None


def peers_for(device: torch.device) -> list[Peer]:
    """All peers that may run on the type of ``device``, ours first, whether installed or not."""
    ours = [
        Peer(OURS, _method("auto"), is_ours=True),
        Peer("ours, separate steps", _method("fast"), is_ours=True),
        Peer("ours, fused attention", _fused_attention, is_ours=True),
        Peer("ours, kernels", _kernels, is_ours=True),
        Peer("ours, kernels, alpha fixed", _kernels_fixed_alpha, is_ours=True),
        Peer("ours, definition", _method("definition"), is_ours=True),
    ]
    torches = [
        Peer("eager softmax", _eager_softmax),
        Peer("eager Softmax_1", _eager_softmax_1),
        Peer("SDPA softmax", vendor.sdpa_softmax),
        Peer("SDPA, zero memory appended", vendor.sdpa_zero_memory),
    ]
    if device.type == "cuda":
        for name, backend in vendor.BACKENDS.items():
            torches.append(Peer(f"SDPA {name} softmax", backend.softmax))
            torches.append(Peer(f"SDPA {name} + LSE", backend.softmax_1))
        torches.append(Peer("FlexAttention + LSE", vendor.flex_attention))
    others = [
        Peer("entmax_bisect(50)", packages.entmax_bisect(50), module="entmax", package="entmax"),
        Peer("entmax_bisect(24)", packages.entmax_bisect(24), module="entmax", package="entmax"),
        Peer("entmax, sort", packages.entmax_sort, module="entmax", package="entmax"),
        Peer(
            "Flash-Attention-Softmax-N",
            packages.flash_attention_softmax_n,
            module="flash_attention_softmax_n",
            package="flash-attention-softmax-n",
        ),
    ]
    if device.type == "cuda":
        others += [
            Peer("AdaSplash-1", packages.adasplash_1, module="adasplash", package="adasplash"),
            Peer("AdaSplash-2 (causal)", packages.adasplash_2, module="adasplash", package="adasplash"),
            Peer("AdaSplash rows", packages.adasplash_rows, module="adasplash", package="adasplash"),
            Peer("Liger sparsemax", packages.liger_sparsemax, module="liger_kernel", package="liger-kernel"),
            Peer(
                "TransformerEngine off-by-one",
                packages.transformer_engine,
                module="transformer_engine",
                package="transformer-engine[pytorch]",
            ),
        ]
    return [*ours, *torches, *others]


def _method(method: Literal["auto", "definition", "fast", "triton"]) -> Callable[[Case], Way]:
    """Our way of this name; ``auto`` is what the layers call."""

    def make(case: Case) -> Way:
        rule = case.rule
        if case.shape.is_rows:
            if method == "fast":
                raise Unserved(f"is {OURS} where there is nothing but scores")
            function = separate if method == "definition" else fast_separate
            return Way(
                lambda given: function(given["scores"], alpha=rule.broadcast_alpha_of(given), no_op=rule.no_op), rule
            )
        scale = beta(case.shape)
        return Way(
            lambda given: retrieve(
                given["query"], given["memory"], given["values"],
                alpha=rule.alpha_of(given), no_op=rule.no_op, beta=scale, method=method,
            ),
            rule,
            is_capturable=method in ("auto", "triton"),
        )  # fmt: skip

    return make


def _fused_attention(case: Case) -> Way:
    if case.shape.is_rows or case.rule.alpha != 1 or case.device.type != "cpu" or case.dtype != torch.float32:
        raise Unserved("serves retrieval at alpha = 1 in float32 on a CPU")
    rule, scale = case.rule, beta(case.shape)
    return Way(
        lambda given: attention.attend(given["query"], given["memory"], given["values"], no_op=rule.no_op, beta=scale),
        rule,
    )


def _kernels(case: Case) -> Way:
    if case.shape.is_rows:
        raise Unserved("has no way to separate scores without a read-out")
    if case.device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        raise Unserved("needs CUDA")
    return _method("triton")(case)


def _kernels_fixed_alpha(case: Case) -> Way:
    """Learned alpha with its gradient left out: the difference is what that gradient costs."""
    if not case.rule.is_learned:
        raise Unserved("is the same where alpha is not learned")
    return dataclasses.replace(_kernels(case), lacks=frozenset({"alpha"}))


def _eager_softmax(case: Case) -> Way:
    """Softmax attention as one writes it; it stores its weights. Computes softmax, which Softmax_1 is measured by."""
    if case.shape.is_rows or case.rule.alpha != 1:
        raise Unserved("computes softmax only")
    scale = beta(case.shape)

    def run(given: Tensors) -> Tensor:
        scores = (given["query"] * scale) @ given["memory"].transpose(-1, -2)
        return scores.softmax(dim=-1) @ given["values"]

    return Way(run, SOFTMAX)


def _eager_softmax_1(case: Case) -> Way:
    """Softmax_1 as one writes it, under autograd."""
    if case.shape.is_rows or case.rule.alpha != 1 or not case.rule.no_op:
        raise Unserved("computes Softmax_1 only")
    scale = beta(case.shape)

    def run(given: Tensors) -> Tensor:
        scores = (given["query"] * scale) @ given["memory"].transpose(-1, -2)
        precise = scores.float()
        pivot = precise.amax(dim=-1, keepdim=True).clamp(min=0).detach()
        unnormalised = (precise - pivot).exp()
        weights = unnormalised / (unnormalised.sum(dim=-1, keepdim=True) + (-pivot).exp())
        return weights.to(scores.dtype) @ given["values"]

    return Way(run, case.rule)
