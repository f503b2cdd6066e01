"""Which way computes a retrieval: kernels on CUDA, fused attention where it pays on a CPU, the fast separation else."""

from __future__ import annotations

import logging
import sys

import pytest
import torch

from stanhop.errors import ConfigError
from stanhop.hopfield import attention, fused
from stanhop.hopfield.dispatch import choose
from stanhop.hopfield.retrieval import retrieve


def patterns(num_memories: int, **options: object) -> list[torch.Tensor]:
    return [torch.zeros(2, 3, num_memories, 8, **options) for _ in range(3)]


def way(num_memories: int, *, alpha: float = 1.0, is_plain: bool = True, method: str = "auto") -> str:
    return choose(*patterns(num_memories), alpha=alpha, is_plain=is_plain, method=method).way


def test_a_cpu_takes_fused_attention_for_long_memories_few_passes_for_short_ones_and_the_fast_separation_else() -> None:
    assert way(attention.PAYS_FROM) == "attention"
    assert way(attention.PAYS_FROM - 1) == "softmax"
    assert way(1) == "softmax"
    assert way(attention.PAYS_FROM, alpha=1.5) == "fast"
    assert way(attention.PAYS_FROM, is_plain=False) == "fast"


@pytest.mark.parametrize("method", ["definition", "fast"])
def test_what_is_asked_for_is_taken(method) -> None:
    assert way(attention.PAYS_FROM, method=method) == method


def test_triton_serves_where_its_device_works(monkeypatch) -> None:
    monkeypatch.setattr(fused, "unusable_because", lambda _: None)
    assert way(14) == "triton"
    double = choose(*patterns(14, dtype=torch.float64), alpha=1.0, is_plain=True, method="auto")
    assert double.way == "softmax"
    assert "torch.float64" in double.reason


def test_triton_on_a_cpu_is_refused_with_the_reason_outside_of_its_interpreter(monkeypatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ConfigError, match="method triton cannot serve: the tensors are on a CPU device"):
        way(14, method="triton")


def test_the_kernels_are_not_even_imported_without_a_cuda_tensor(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)  # an import would fail
    for name in [name for name in sys.modules if name.startswith("stanhop.kernels")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("stanhop.kernels", raising=False)
    assert retrieve(*patterns(5), alpha=1.0, no_op=True).shape == (2, 3, 5, 8)


def test_kernels_that_do_not_work_are_left_unused_with_one_warning(monkeypatch, caplog) -> None:
    monkeypatch.setattr(fused, "_PROBLEMS", {})
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    with caplog.at_level(logging.WARNING, logger="stanhop"):
        reasons = [fused.unusable_because(torch.device("cuda", 7)) for _ in range(2)]  # no such device here
    assert reasons[0] is not None
    assert reasons[0] == reasons[1]
    assert len(caplog.records) == 1
    assert "torch takes over" in caplog.text


def test_a_gpu_too_old_is_named(monkeypatch) -> None:
    monkeypatch.setattr(fused, "_PROBLEMS", {})
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    reason = fused.unusable_because(torch.device("cuda", 6))
    assert reason == "compute capability (7, 5) is below (8, 0)"


def test_nothing_is_tried_out_while_torch_compiles(monkeypatch) -> None:
    monkeypatch.setattr(fused, "_PROBLEMS", {})
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert fused.unusable_because(torch.device("cuda", 5)) is None
    assert not fused._PROBLEMS
