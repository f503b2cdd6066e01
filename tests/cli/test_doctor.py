"""``stanhop doctor`` names what computes retrievals, and does not pass over a wrong one."""

from __future__ import annotations

import json

import torch

from stanhop.cli.app import main
from stanhop.hopfield import fast_separation, retrieval
from stanhop.hopfield.separation import SEPARATIONS


def test_every_separation_is_compared_with_its_definition(capsys) -> None:
    assert main(["doctor", "--format", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {check["separation"] for check in document["checks"]} == set(SEPARATIONS)
    assert all(check["is_sound"] and check["error"] < 1e-5 for check in document["checks"])
    assert document["machine"]["torch"] == torch.__version__


def test_the_way_and_its_reason_are_said(capsys) -> None:
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    if not torch.cuda.is_available():
        assert "fast on cpu: the tensors are on a CPU device, the kernels need CUDA" in text
        assert "attention on cpu" in text
        assert "softmax on cpu" in text
    assert "WRONG" not in text


def test_a_way_that_computes_wrongly_is_an_error_of_the_machine(capsys, monkeypatch) -> None:
    right = fast_separation.fast_separate
    monkeypatch.setattr(retrieval, "fast_separate", lambda *a, **k: right(*a, **k) * 1.001)
    assert main(["doctor"]) == 4
    captured = capsys.readouterr()
    assert "WRONG" in captured.out
    assert "retrievals are wrong, the first on cpu: sparse_outeffhop, 14 memories, float32, by fast" in captured.err
