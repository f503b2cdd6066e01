"""Compile kernels for GPUs that are not here, and ask the assembler what they take.

Run as a program in a process of its own, without ``TRITON_INTERPRET``: a JSON list of cases on standard input, one JSON
line a kernel on standard output. What is compiled is what would be launched: the launching functions run on meta
tensors, and a recorder takes the place of each kernel.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import triton
from triton.backends.compiler import GPUTarget

from stanhop.kernels import launch, no_op, rows_operator
from stanhop.kernels.launch import Rule, Tensors

KERNELS = (
    "resident_forward",
    "looped_forward",
    "resident_backward",
    "looped_backward_queries",
    "looped_backward_memories",
)
OF_ROWS = ("rows_forward", "rows_backward")
DTYPES = {
    torch.float32: "*fp32",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.bool: "*i1",
    torch.int64: "*i64",
}
CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
OPTIONS = ("num_warps", "num_stages", "enable_fp_fusion")


class Recorder:
    """Stands for a kernel: keeps what it would be launched with."""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        return lambda *arguments, **constants: self.calls.append((arguments, constants))


def recorded(case: dict[str, Any]) -> Iterator[tuple[str, Any, tuple[Any, ...], dict[str, Any]]]:
    """Each launch that the case makes, forward and backward."""
    if case.get("rows"):
        yield from recorded_rows(case)
        return
    if case.get("adds_no_op"):
        yield recorded_no_op(case)
        return
    dtype = getattr(torch, case["dtype"])
    batch, heads = 8, 4
    sizes = [case["num_queries"], case["num_memories"], case["num_memories"]]
    dims = [case["head_dim"], case["head_dim"], case.get("values_dim", case["head_dim"])]
    patterns = [
        torch.empty(batch, size, heads, dim, dtype=dtype, device="meta").transpose(1, 2)
        for size, dim in zip(sizes, dims, strict=True)
    ]
    kind = case["kind"]
    tensors = Tensors(
        *patterns,
        alpha=torch.empty(heads, device="meta") if kind == "entmax" else None,
        mask=torch.empty(batch, sizes[1], dtype=torch.bool, device="meta") if case.get("masked") else None,
        gate=torch.empty(batch, heads, sizes[0], dtype=dtype, device="meta") if case.get("gated") else None,
        seed=torch.empty(1, dtype=torch.int64, device="meta") if case.get("dropout") else None,
    )
    clip = (0.25, 1.1) if case.get("clip") else None
    rule = Rule(kind=kind, no_op=case["no_op"], beta=0.125, clip=clip, dropout=0.1 if case.get("dropout") else 0.0)
    recorders = {name: Recorder(getattr(launch, name)) for name in KERNELS}
    capability = divmod(case.get("capability", 90), 10)
    with mock.patch.multiple(launch, **recorders, capability_of=lambda _: capability):
        retrieved, statistics = launch.launch_forward(tensors, rule)
        grad = torch.empty_like(retrieved)
        launch.launch_backward(tensors, rule, retrieved, grad, statistics, learns_alpha=kind == "entmax")
    for name, recorder in recorders.items():
        for arguments, constants in recorder.calls:
            precision = "ieee" if dtype != torch.float32 else "tf32x3"
            yield name, recorder.kernel, arguments, constants | {"ON_DEVICE": True, "PRECISION": precision}


def recorded_rows(case: dict[str, Any]) -> Iterator[tuple[str, Any, tuple[Any, ...], dict[str, Any]]]:
    """The launches of separating rows of scores."""
    scores = torch.empty(8, case["num_memories"], dtype=getattr(torch, case["dtype"]), device="meta")
    alpha = torch.empty(8, device="meta") if case["kind"] == "entmax" else None
    recorders = {name: Recorder(getattr(rows_operator, name)) for name in OF_ROWS}
    with mock.patch.multiple(rows_operator, **recorders):
        weights, statistics = rows_operator._separate._init_fn(scores, alpha, case["kind"], case["no_op"])
        rows_operator._separate_backward._init_fn(
            scores, alpha, weights, statistics, case["kind"], case["no_op"], alpha is not None
        )
    for name, recorder in recorders.items():
        for arguments, constants in recorder.calls:
            own = constants | ({"ON_DEVICE": True} if "ON_DEVICE" in constants else {})
            yield name, recorder.kernel, arguments, {"num_stages": 1, **own}


def recorded_no_op(case: dict[str, Any]) -> tuple[str, Any, tuple[Any, ...], dict[str, Any]]:
    """The launch that adds the no-op memory to another kernel's read-out."""
    sizes = (8, case["num_queries"], 4, case["head_dim"])
    retrieved = torch.empty(*sizes, dtype=getattr(torch, case["dtype"]), device="meta").transpose(1, 2)
    recorder = Recorder(no_op._add_no_op)
    with mock.patch.object(no_op, "_add_no_op", recorder):
        no_op.add_no_op(retrieved, torch.empty(*retrieved.shape[:3], 1, device="meta"))
    [(arguments, constants)] = recorder.calls
    return "add_no_op", recorder.kernel, arguments, {"num_stages": 1, "enable_fp_fusion": True, **constants}


def compiled(kernel: Any, arguments: tuple[Any, ...], constants: dict[str, Any], capability: int) -> Any:
    """The kernel for the given compute capability, its pointers and sizes divisible by 16 as torch's usually are."""
    options = {name: constants.pop(name) for name in OPTIONS}
    signature: dict[str, Any] = {}
    fixed: dict[str, Any] = dict(constants)
    attributes: dict[tuple[int, ...], Any] = {}
    for index, (name, argument) in enumerate(zip(kernel.arg_names, arguments, strict=False)):
        if argument is None:
            signature[name], fixed[name] = "constexpr", None
        elif isinstance(argument, torch.Tensor):
            signature[name] = DTYPES[argument.dtype]
            attributes[index,] = [["tt.divisibility", 16]]
        elif isinstance(argument, tuple):
            signature[name] = ("i32",) * len(argument)
            for position, stride in enumerate(argument):
                if stride % 16 == 0:
                    attributes[index, position] = [["tt.divisibility", 16]]
        else:
            signature[name] = "fp32" if isinstance(argument, float) else "i32"
    signature |= dict.fromkeys(constants, "constexpr")
    source = triton.compiler.ASTSource(fn=kernel, signature=signature, constexprs=fixed, attrs=attributes)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def resources(binary: Any) -> dict[str, int]:
    """Registers a thread, bytes spilled a thread, and bytes of shared memory a program."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary.asm["cubin"])
        file.flush()
        report = subprocess.run(
            [CUOBJDUMP, "-res-usage", file.name], check=True, capture_output=True, text=True, timeout=60
        ).stdout
    usage = re.search(r"REG:(\d+) STACK:(\d+)", report)
    assert usage is not None, report
    return {"registers": int(usage[1]), "spilled": int(usage[2]), "shared": binary.metadata.shared}


def main() -> None:
    """Compile every kernel of every case on standard input."""
    for case in json.load(sys.stdin):
        for name, kernel, arguments, constants in recorded(case):
            plan = {key: constants.get(key) for key in ("QUERY_BLOCK", "MEMORY_BLOCK", "BLOCK", "num_warps")}
            usage = resources(compiled(kernel, arguments, constants, case.get("capability", 90)))
            print(json.dumps({"case": case, "kernel": name, **plan, **usage}), flush=True)


if __name__ == "__main__":
    main()
