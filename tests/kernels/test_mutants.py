"""Known mistakes, made on purpose in a copy of the kernels: the comparison with the definition notices each."""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest
import torch

from stanhop import kernels
from stanhop.hopfield.retrieval import retrieve as retrieve_by_torch
from tests.kernels.cases import breaches, errors, expected_outcome, looped_plan, outcome, random_case

SOURCE = Path(kernels.__file__).parent
SHORT = {"sizes": (5, 7), "looped": False}
LONG = {"sizes": (5, 19), "looped": True}

MUTANTS = {
    "no_op_left_out_of_the_sums": (
        "separation.py", "slope = total + no_op_weight, slope + no_op_slope", "slope = total, slope", SHORT,
    ),
    "no_op_left_out_of_the_total": (
        "separation.py", "total, slope = total + no_op_weight, slope", "total, slope = total, slope", SHORT,
    ),
    "no_op_left_out_of_the_slope_of_a_single_step": (
        "resident.py", "slope += no_op_g", "slope += 0.0", SHORT,
    ),
    "no_op_left_out_of_the_slope_when_looped": (
        "looped.py", "_, slope_sum = weights_and_slopes(-m, t, a, KIND, ACCURACY, ON_DEVICE)",
        "slope_sum = tl.zeros_like(t)", LONG,
    ),
    "no_op_left_out_of_the_gradient_by_alpha": (
        "resident.py", "a_share += alpha_slope(no_op_p, no_op_g, no_op_logs) * delta", "a_share += 0.0", SHORT,
    ),
    "no_op_left_out_of_the_gradient_by_alpha_when_looped": (
        "looped.py", "a_grad += alpha_slope(no_op_p, no_op_g, no_op_logs) * delta", "a_grad += 0.0", LONG,
    ),
    "pivot_without_the_no_op": (
        "separation.py", "return tl.maximum(largest, 0.0)", "return largest", {**SHORT, "offset": -120.0},
    ),
    "online_softmax_starts_without_the_no_op": (
        "looped.py", "total = tl.full([QUERY_BLOCK], 1.0 if NO_OP else 0.0, tl.float32)",
        "total = tl.full([QUERY_BLOCK], 0.0, tl.float32)", {**LONG, "alpha": 1.0},
    ),
    "saved_threshold_without_the_no_op": (
        "resident.py", "tl.store(thresholds + pair * num_queries + rows, t, mask=is_row)",
        "tl.store(thresholds + pair * num_queries + rows, tl.log(tl.exp(t) - tl.exp(-m)), mask=is_row)",
        {**SHORT, "alpha": 1.0},
    ),
    "logarithm_to_base_2_saved": (
        "separation.py", "t = tl.log(tl.where(total == 0.0", "t = tl.log2(tl.where(total == 0.0",
        {**SHORT, "alpha": 1.0},
    ),
    "logarithm_to_base_2_saved_when_looped": (
        "looped.py", "0.0, largest), tl.log(total)", "0.0, largest), tl.log2(total)", {**LONG, "alpha": 1.0},
    ),
    "threshold_after_a_single_step": (
        "separation.py", "<= nearly + 1e-7 / a", "<= 1e3", SHORT,
    ),
    "small_a_rounded_away": (
        "separation.py", "tl.log2(rounded) + LOG2E * (y - (rounded - 1.0))", "tl.log2(rounded)",
        {**SHORT, "alpha": (1.0001, 1.001, 1.001)},
    ),
    "delta_of_unclipped_weights": (
        "resident.py", "p_grad = u_grad * factor * clip_slope(p, gamma, eta, CLIP)", "p_grad = u_grad * factor",
        {**SHORT, "clip": (0.9, 1.3)},
    ),
    "gate_left_out_of_the_gradient_by_values": (
        "resident.py", "out_grad = gated(out_grad, open_share, GATED).to(v.dtype)", "out_grad = out_grad", SHORT,
    ),
    "gradient_by_the_gate_of_an_open_one": (
        "resident.py", "* (1.0 - open_share)", "* 1.0", SHORT,
    ),
    "beta_left_out_of_the_gradient_by_scores": (
        "resident.py", "(p_grad - delta[:, None]) * beta", "(p_grad - delta[:, None])", SHORT,
    ),
    "masked_memories_retrieved": (
        "tiles.py", "inside = tl.load(pointers, mask=inside, other=0) != 0", "inside = inside", SHORT,
    ),
    "derivative_by_alpha_not_divided": (
        "resident.py", "tl.sum(a_grad, axis=0) / (a * a)", "tl.sum(a_grad, axis=0)", SHORT,
    ),
    "last_block_of_memories_left_out_of_online_softmax": (
        "looped.py", "range(num_whole, num_memories, MEMORY_BLOCK):\n            largest",
        "range(num_whole, num_memories - MEMORY_BLOCK, MEMORY_BLOCK):\n            largest", {**LONG, "alpha": 1.0},
    ),
    "last_block_of_memories_left_out": (
        "looped.py", "for first in range(0, num_memories, MEMORY_BLOCK):\n            columns",
        "for first in range(0, num_memories - MEMORY_BLOCK, MEMORY_BLOCK):\n            columns", LONG,
    ),
}  # fmt: skip


def compared(retrieve, *, sizes, looped, alpha=(1.1, 1.4, 1.8), offset=0.0, clip=None):  # type: ignore[no-untyped-def]
    """What is out of tolerance, with a gate and a mask, at scores small enough for the no-op memory to matter."""
    case = random_case(*sizes, alpha=alpha, no_op=True, scale=0.3, offset=offset, clip=clip, masked=True, gated=True)
    return breaches(outcome(retrieve, case), expected_outcome(case))


QUICK = (
    "no_op_left_out_of_the_total",
    "saved_threshold_without_the_no_op",
    "logarithm_to_base_2_saved",
    "online_softmax_starts_without_the_no_op",
)


@contextmanager
def altered(
    name: str, changes: Sequence[tuple[str, str, str]], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ModuleType]:
    """A copy of the kernels, as a package of its own, in which ``changes`` (file, text, other text) are made."""
    shutil.copytree(SOURCE, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (folder / name).glob("*.py"):
        text = path.read_text()
        for file, right, wrong in changes:
            if path.name == file:
                assert right in text, "the line to break is not there any more"
                text = text.replace(right, wrong)
        path.write_text(text.replace("stanhop.kernels", name).replace("stanhop::", f"{name}::"))
    monkeypatch.syspath_prepend(folder)
    try:
        yield importlib.import_module(name)
    finally:
        for module in [each for each in sys.modules if each.split(".")[0] == name]:
            del sys.modules[module]


def loop(package: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a copy of the kernels loop over memories."""
    launch = importlib.import_module(f"{package.__name__}.launch")
    for name in ("forward_plan", "backward_plan", "memories_plan"):
        monkeypatch.setattr(launch, name, looped_plan)


@pytest.mark.parametrize(
    "mutant", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in MUTANTS]
)
def test_a_mutant_is_noticed(mutant, tmp_path, monkeypatch) -> None:
    *change, options = MUTANTS[mutant]
    with altered(f"mutant_{mutant}", [tuple(change)], tmp_path, monkeypatch) as broken:
        if options["looped"]:
            loop(broken, monkeypatch)
        assert compared(broken.retrieve, **options)


@pytest.mark.slow
@pytest.mark.parametrize("looped", [False, True], ids=["resident", "looped"])
@pytest.mark.parametrize("no_op", [True, False])
def test_the_error_of_the_hardwares_logarithm_does_not_show(no_op, looped, tmp_path, monkeypatch) -> None:
    """The interpreter's is exact, so that its worst error, of either sign, is put in."""
    worst = "return tl.log2(x) + tl.where((x > 0.6) & (x < 0.8), 2.4e-7, -2.4e-7)"
    name = f"hardware_{no_op}_{looped}".lower()
    with altered(name, [("separation.py", "return tl.log2(x)", worst)], tmp_path, monkeypatch) as inexact:
        if looped:
            loop(inexact, monkeypatch)
        alpha = (1.00001, 1.0001, 1.009, 1.011, 1.1, 1.5, 1.99)
        case = random_case(5, 19, alpha=alpha, no_op=no_op, gated=True)
        assert not breaches(outcome(inexact.retrieve, case), expected_outcome(case))
        half = random_case(5, 19, alpha=alpha, no_op=no_op, gated=True, dtype=torch.float16)
        expected = expected_outcome(half)
        by_torch = errors(outcome(retrieve_by_torch, half, method="definition"), expected)
        for quantity, error in errors(outcome(inexact.retrieve, half), expected).items():
            assert error <= max(2 * by_torch[quantity] + 1e-5, 1e-3 if quantity == "alpha" else 0), quantity


@pytest.mark.parametrize("looped", [False, True], ids=["resident", "looped"])
@pytest.mark.parametrize("alpha", [1.0, (1.1, 1.4, 1.8), (1.0001, 1.001, 1.001)], ids=str)
def test_what_is_not_broken_passes_the_same_comparison(alpha, looped, request) -> None:
    if looped:
        request.getfixturevalue("looped")
    assert not compared(kernels.retrieve, sizes=(5, 19), looped=looped, alpha=alpha)
