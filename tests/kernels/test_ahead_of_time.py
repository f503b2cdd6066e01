"""The shipped kernels compile for GPUs that are not here, within their registers and shared memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stanhop.kernels.rows_operator import LARGEST_ROW

ROOT = Path(__file__).parents[2]
LARGEST_SHARED = {80: 99 * 1024, 90: 227 * 1024}
"""Bytes of shared memory a program may have, by compute capability; 8.6 and 8.9 have less than 8.0, and its tables."""
TOLERATED_SPILL = 128
"""Bytes a thread may spill: most tiles spill none. What spills most, 120, is the backward pass of 17 to 32 memories in
float32, and was timed: 80 us on an H200, where the next tile takes 93."""

LONGEST_ROW_IN_REGISTERS = 2**13
"""Longer rows spill: a thread of more than 8 warps has no 255 registers."""
ALL_ON = {"masked": True, "gated": True, "dropout": True}


def case(dtype: str, length: int, head_dim: int, kind: str = "entmax", **options: object) -> dict[str, object]:
    sizes = {"num_queries": length, "num_memories": length, "head_dim": head_dim}
    return {"dtype": dtype, **sizes, "kind": kind, "no_op": True, **options}


def compiled(cases: list[dict[str, object]], cache: Path) -> list[dict[str, object]]:
    """What every kernel of the cases takes, compiled in a process without the interpreter."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(cache), "PYTHONPATH": str(ROOT), "TRITON_DEFAULT_FP_FUSION": "1"}
    program = [sys.executable, "-m", "tests.kernels.ahead_of_time"]
    done = subprocess.run(
        program, input=json.dumps(cases), capture_output=True, text=True, cwd=ROOT, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def assert_fit(kernels: list[dict[str, object]]) -> None:
    assert kernels
    for kernel in kernels:
        capability = kernel["case"].get("capability", 90)
        assert kernel["registers"] <= 255, kernel
        assert kernel["spilled"] <= TOLERATED_SPILL, kernel
        assert kernel["shared"] <= LARGEST_SHARED[capability], kernel


def test_the_kernels_of_the_default_network_fit(tmp_path) -> None:
    kernels = compiled([case("float32", 14, 16, "softmax", dropout=True)], tmp_path)
    assert [kernel["kernel"] for kernel in kernels] == ["resident_forward", "resident_backward"]
    assert_fit(kernels)


@pytest.mark.slow
@pytest.mark.parametrize(("capability", "lengths"), [(80, (14, 120)), (90, (14, 120))])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_shape_that_is_trained_on_fits(dtype, capability, lengths, tmp_path) -> None:
    cases = [
        case(dtype, length, head_dim, kind, capability=capability, dropout=True)
        for length in lengths
        for head_dim in (16, 64)
        for kind in ("softmax", "entmax")
    ]
    assert_fit(compiled(cases, tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("head_dim", [32, 64, 128])
@pytest.mark.parametrize("capability", [80, 90])
def test_every_tile_fits_with_all_options_on(capability, head_dim, dtype, tmp_path) -> None:
    lengths = (16, 32, 64, 128, 256, 512, 4096)
    cases = [case(dtype, length, head_dim, capability=capability, **ALL_ON) for length in lengths]
    assert_fit(compiled(cases, tmp_path))


@pytest.mark.slow
def test_the_no_op_memory_of_another_kernel_fits(tmp_path) -> None:
    assert_fit(compiled([case("bfloat16", 300, 64, adds_no_op=True)], tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("head_dim", [32, 64, 128])
@pytest.mark.parametrize("kind", ["softmax", "entmax"])
def test_every_tile_of_bare_weights_fits(kind, head_dim, dtype, tmp_path) -> None:
    cases = [case(dtype, length, head_dim, kind) for length in (16, 32, 64, 128, 4096)]
    few = [{**case(dtype, length, head_dim, kind), "num_queries": 7} for length in (64, 4096)]
    many = [{**case(dtype, 10, head_dim, kind), "num_queries": 4096}]
    assert_fit(compiled([*cases, *few, *many], tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["softmax", "entmax", "sparsemax"])
def test_rows_of_every_length_fit(kind, tmp_path) -> None:
    lengths = (1, 14, 1000, 4096, LONGEST_ROW_IN_REGISTERS)
    kernels = compiled([case("float32", length, 0, kind, rows=True) for length in lengths], tmp_path)
    assert {kernel["kernel"] for kernel in kernels} == {"rows_forward", "rows_backward"}
    assert_fit(kernels)
    longest = compiled([case("float32", LARGEST_ROW, 0, kind, rows=True)], tmp_path)
    assert all(kernel["shared"] <= LARGEST_SHARED[80] for kernel in longest), "it compiles, and spills"


@pytest.mark.slow
def test_every_kind_compiles_with_clipping(tmp_path) -> None:
    cases = [
        case("bfloat16", length, 64, kind, clip=True, **ALL_ON)
        for length in (14, 4096)
        for kind in ("softmax", "entmax15", "sparsemax", "entmax")
    ]
    assert_fit(compiled(cases, tmp_path))
