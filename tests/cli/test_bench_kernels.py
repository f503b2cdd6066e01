"""``stanhop bench kernels``: options as words, results as files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

TINY = ("bench", "kernels", "--device", "cpu", "--tiny", "--repetitions", "1", "--seconds", "0.01")


@pytest.fixture(autouse=True)
def without_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels are left out: the interpreter takes its time, and ``benchmarks/gpu.py --rehearse`` runs them."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


def test_shapes_end_in_a_document_and_plots(run: Any) -> None:
    answer = run(*TINY, "--shapes", "etth1-pooling", "--cache", "both", "--format", "json")
    assert answer.code == 0
    document = answer.document
    stored = json.loads(Path("benchmarks/results/kernels-cpu.json").read_text())
    assert stored["records"] == document["records"]
    assert stored["is_complete"]
    assert {record["rule"]["name"] for record in stored["records"]} == {"outeffhop", "gsh"}
    assert "--shapes etth1-pooling" in stored["records"][0]["command"]
    assert len(document["plots"]) == 2
    assert all(Path(plot).read_bytes().startswith(b"\x89PNG") for plot in document["plots"])


@pytest.mark.slow
def test_a_document_grows_when_it_is_resumed(run: Any) -> None:
    assert run(*TINY, "--shapes", "etth1-time", "--output", "out").code == 0
    answer = run(*TINY, "--shapes", "etth1-time,etth1-variates", "--output", "out", "--resume")
    assert answer.code == 0
    assert [line.split(":")[1] for line in answer.err.splitlines()] == [" 1 of 2", " 2 of 2"], "the new ones alone"
    assert "etth1-time/14, outeffhop, float32, cache warm" in answer.out
    assert answer.out.rstrip().endswith("out/kernels-cpu.json")


def test_unknown_shapes_are_refused(run: Any) -> None:
    answer = run("bench", "kernels", "--shapes", "etth3")
    assert answer.code == 2
    assert "no shapes are called 'etth3'; choose of rows" in answer.err


def test_a_damaged_document_is_not_resumed_nor_lost(run: Any) -> None:
    Path("kernels-cpu.json").write_text("[]")
    answer = run(*TINY, "--shapes", "etth1-pooling", "--output", ".", "--resume")
    assert answer.code == 2
    assert "kernels-cpu.json: is not a document of this command" in answer.err
    assert Path("kernels-cpu.json").read_text() == "[]"


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without CUDA")
def test_cuda_that_is_not_there_is_the_machines_fault(run: Any) -> None:
    answer = run("bench", "kernels", "--device", "cuda", "--shapes", "etth1-time")
    assert answer.code == 4
    assert "there is no CUDA device here" in answer.err
