"""Known mistakes, made on purpose in a copy of the kernels: the comparison with the definition notices each."""

from __future__ import annotations

import importlib
import shutil
import sys
from pathlib import Path

import pytest

from stanhop import kernels
from tests.kernels.cases import breaches, expected_outcome, looped_plan, outcome, random_case

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


@pytest.mark.parametrize(
    "mutant", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in MUTANTS]
)
def test_a_mutant_is_noticed(mutant, tmp_path, monkeypatch) -> None:
    file, right, wrong, options = MUTANTS[mutant]
    package = f"mutant_{mutant}"
    shutil.copytree(SOURCE, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (tmp_path / package).glob("*.py"):
        text = path.read_text()
        if path.name == file:
            assert right in text, "the line to break is not there any more"
            text = text.replace(right, wrong)
        path.write_text(text.replace("stanhop.kernels", package).replace("stanhop::", f"{package}::"))
    monkeypatch.syspath_prepend(tmp_path)
    broken = importlib.import_module(package)
    if options["looped"]:
        launch = importlib.import_module(f"{package}.launch")
        for name in ("forward_plan", "backward_plan", "memories_plan"):
            monkeypatch.setattr(launch, name, looped_plan)
    try:
        assert compared(broken.retrieve, **options)
    finally:
        for module in [each for each in sys.modules if each.split(".")[0] == package]:
            del sys.modules[module]


@pytest.mark.parametrize("looped", [False, True], ids=["resident", "looped"])
@pytest.mark.parametrize("alpha", [1.0, (1.1, 1.4, 1.8), (1.0001, 1.001, 1.001)], ids=str)
def test_what_is_not_broken_passes_the_same_comparison(alpha, looped, request) -> None:
    if looped:
        request.getfixturevalue("looped")
    assert not compared(kernels.retrieve, sizes=(5, 19), looped=looped, alpha=alpha)
