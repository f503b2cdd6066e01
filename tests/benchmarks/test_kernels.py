"""Peers against the definition: who is let through, what is timed, and what the document says of the others."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from stanhop.benchmarks.kernels import document, measure, vendor
from stanhop.benchmarks.kernels.cases import (
    GROUPS,
    GSH,
    OUTEFFHOP,
    SPARSE_OUTEFFHOP,
    SPARSEMAX,
    Case,
    Rule,
    Shape,
    cases_of,
    names_of,
    tiny,
)
from stanhop.benchmarks.kernels.gate import Gate
from stanhop.benchmarks.kernels.measure import Settings
from stanhop.benchmarks.kernels.peers import OURS, Peer, peers_for
from stanhop.benchmarks.kernels.plots import plots_of
from stanhop.benchmarks.kernels.ways import Unserved, Way
from stanhop.benchmarks.machine import BANDWIDTH, limit, machine
from stanhop.errors import UsageError
from stanhop.hopfield.retrieval import retrieve

CPU = torch.device("cpu")
ONCE = Settings(num_rounds=1, limit=0.0)
RETRIEVAL, ROWS = Shape("7x5", 3, 2, 7, 5, 11), Shape("13", 3, 2, 7, 13, 0)


@pytest.fixture
def without_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels are left out of what is timed: the interpreter takes its time."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


def case_of(rule: Rule, shape: Shape = RETRIEVAL, dtype: torch.dtype = torch.float32) -> Case:
    return Case("test", shape, rule, dtype, CPU)


def ours(case: Case) -> Way:
    return next(peer for peer in peers_for(CPU) if peer.name == OURS).make(case)


@pytest.mark.parametrize("rule", [OUTEFFHOP, GSH, SPARSE_OUTEFFHOP, SPARSEMAX], ids=lambda rule: rule.name)
@pytest.mark.parametrize("shape", [RETRIEVAL, ROWS], ids=["retrieval", "rows"])
def test_every_peer_that_serves_a_case_computes_what_it_says(rule: Rule, shape: Shape) -> None:
    case, num_served = case_of(rule, shape), 0
    for peer in [peer for peer in peers_for(CPU) if peer.is_installed]:
        try:
            way = peer.make(case)
        except Unserved:
            continue
        verdict = Gate.of(case).judge(way)
        assert verdict.is_accurate, f"{peer.name}: {verdict.text}"
        num_served += 1
    assert num_served >= 2


def test_in_half_precision_the_definition_is_given_the_gradient_that_a_way_is_given() -> None:
    case = case_of(GSH, dtype=torch.bfloat16)

    def run(given: dict[str, Tensor]) -> Tensor:
        precise = {name: tensor.double() for name, tensor in given.items()}
        return ours(case_of(GSH)).run(precise).to(torch.bfloat16)

    errors = Gate.of(case).judge(Way(run, GSH)).errors
    assert errors["alpha"] < 1e-5, "nothing is rounded on its way"
    assert errors["output"] > 1e-4, "the read-out is rounded"


def test_the_kernels_in_the_interpreter_are_gated_like_all_others() -> None:
    peer = next(peer for peer in peers_for(CPU) if peer.name == "ours, kernels")
    verdict = Gate.of(case_of(SPARSE_OUTEFFHOP)).judge(peer.make(case_of(SPARSE_OUTEFFHOP)))
    assert set(verdict.errors) == {"output", "query", "memory", "values", "alpha"}
    assert verdict.is_accurate, verdict.text


@pytest.mark.parametrize("name", ["output", "query", "values", "alpha"])
def test_a_way_with_one_wrong_quantity_does_not_pass_the_gate(name: str) -> None:
    class Spoiled(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, tensor: Tensor, forth: float, back: float) -> Tensor:
            ctx.back = back  # type: ignore[attr-defined]  # as torch has it
            return tensor * forth

        @staticmethod
        def backward(ctx: object, gradient: Tensor) -> tuple[Tensor, None, None]:
            return gradient * ctx.back, None, None  # type: ignore[attr-defined]

    way = ours(case_of(GSH))

    def run(given: dict[str, Tensor]) -> Tensor:
        if name == "output":
            return Spoiled.apply(way.run(given), 1.001, 1.0)
        return way.run(given | {name: Spoiled.apply(given[name], 1.0, 1.001)})

    verdict = Gate.of(case_of(GSH)).judge(dataclasses.replace(way, run=run))
    assert not verdict.is_accurate
    assert verdict.text.startswith(f"{name} is 1.0e-03 off")
    assert [each for each, error in verdict.errors.items() if error > verdict.tolerances[each]] == [name]


def test_nan_is_infinitely_wrong() -> None:
    way = ours(case_of(GSH))
    spoiled = dataclasses.replace(way, run=lambda given: way.run(given) * float("nan"))
    assert Gate.of(case_of(GSH)).judge(spoiled).errors["output"] == float("inf")


def test_half_precision_may_err_as_plain_torch_does_in_it_and_not_much_more() -> None:
    case = case_of(OUTEFFHOP, dtype=torch.bfloat16)
    way = ours(case)
    assert Gate.of(case).judge(way).is_accurate
    coarse = dataclasses.replace(way, run=lambda given: way.run(given) * 1.03)
    assert not Gate.of(case).judge(coarse).is_accurate


def test_a_way_without_a_gradient_is_not_asked_for_it() -> None:
    way = dataclasses.replace(ours(case_of(GSH)), lacks=frozenset({"alpha"}))
    assert "alpha" not in Gate.of(case_of(GSH)).judge(way).errors


def test_the_gate_looks_at_a_part_of_the_sequences_at_full_length() -> None:
    part = Gate.of(case_of(GSH, Shape("long", 64, 8, 301, 203, 16)), most_scores=4 * 301 * 203).case.shape
    assert (part.batch, part.heads, part.queries, part.memories) == (1, 4, 301, 203)


def test_tensors_are_laid_out_as_the_layers_make_them_and_shared_memories_stand_once() -> None:
    shape = Shape("shared", 5, 2, 7, 3, 11, is_shared=True)
    given = case_of(GSH, shape).tensors()
    assert given["query"].shape == (5, 2, 7, 11)
    assert given["query"].stride(1) == 11, "heads lie side by side"
    assert given["memory"].shape == given["values"].shape == (1, 2, 3, 11)
    assert given["alpha"].tolist() == pytest.approx([1.2, 1.4])


def test_bytes_are_those_of_the_design() -> None:
    """ETTh1 across time in half precision: 25.9 MB forward but for the statistics, and seven tensors backward."""
    shape = GROUPS["etth1-time"].shapes[0]
    assert shape.num_bytes(torch.bfloat16, "forward") == 4 * 896 * 4 * 14 * 64 * 2
    assert shape.num_bytes(torch.bfloat16, "backward") == 7 * 896 * 4 * 14 * 64 * 2


def test_the_issues_shapes_are_measured_on_a_cpu() -> None:
    cases = {(case.shape.batch, case.shape.heads, case.shape.queries, case.shape.memories, case.rule.name)
             for case in cases_of(names_of("cpu"), CPU)}  # fmt: skip
    assert {(896, 4, 14, 14, "gsh near 1.4"), (32, 4, 120, 120, "gsh near 1.4")} <= cases
    lengths = {(case.shape.queries, case.shape.head_dim) for case in cases_of(["lengths"], CPU)}
    assert lengths == {(length, dim) for length in (7, 14, 28, 60, 90, 120) for dim in (16, 64)}


def test_names_of_cases_are_unique() -> None:
    cases = [*cases_of(list(GROUPS), CPU), *cases_of(list(GROUPS), CPU, dtypes=[torch.bfloat16])]
    assert len({case.name for case in cases}) == len(cases)


def test_an_unknown_shape_is_refused_with_those_that_exist() -> None:
    with pytest.raises(UsageError, match="no shapes are called 'etth2'; choose of rows, etth1-time"):
        list(cases_of(["etth2"], CPU))


def test_a_peer_that_is_absent_breaks_or_errs_is_told_and_counts_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(case: Case) -> Way:
        raise RuntimeError("no kernel image\nis available")

    def errs(case: Case) -> Way:
        way = ours(case)
        return dataclasses.replace(way, run=lambda given: way.run(given) * 1.1)

    peers = [
        Peer(OURS, ours, is_ours=True),
        Peer("absent", ours, module="stanhop_is_no_such_module", package="no-such"),
        Peer("breaks", breaks),
        Peer("errs", errs),
    ]
    monkeypatch.setattr(measure, "peers_for", lambda device: peers)
    entries = measure.measure(case_of(GSH), ONCE)["peers"]
    assert entries["absent"] == {"is_ours": False, "status": "not installed", "reason": "pip install no-such"}
    assert entries["breaks"]["status"] == "fails"
    assert entries["breaks"]["reason"] == "RuntimeError: no kernel image"
    assert entries["errs"]["is_accurate"] is False
    assert set(entries["errs"]["times"]["warm"]) == {"forward", "backward", "both"}
    assert entries[OURS]["times"]["warm"]["both"]["times_ours"]["median"] == 1.0


def test_a_way_that_breaks_only_backward_keeps_its_forward_time(monkeypatch: pytest.MonkeyPatch) -> None:
    num_runs = iter(range(100))

    def forward_only(case: Case) -> Way:
        way = ours(case)

        def run(given: dict[str, Tensor]) -> Tensor:
            if torch.is_grad_enabled() and next(num_runs) > 0:  # the first is the gate's
                raise ValueError("no backward")
            return way.run(given)

        return dataclasses.replace(way, run=run)

    monkeypatch.setattr(
        measure, "peers_for", lambda device: [Peer(OURS, ours, is_ours=True), Peer("half", forward_only)]
    )
    times = measure.measure(case_of(GSH), ONCE)["peers"]["half"]["times"]["warm"]
    assert times["forward"]["seconds"]["median"] > 0
    assert times["backward"] == {"reason": "ValueError: no backward"}


def test_cold_calls_have_tensors_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "peers_for", lambda device: [Peer(OURS, ours, is_ours=True)])
    record = measure.measure(
        case_of(GSH), dataclasses.replace(ONCE, caches=("cold",), phases=("forward",), most_copies=3)
    )
    assert record["peers"][OURS]["times"]["cold"]["forward"]["copies"] == 3


def test_the_gradient_of_a_read_out_comes_as_the_layer_behind_gives_it() -> None:
    case, rows = case_of(OUTEFFHOP), case_of(GSH, ROWS)
    given, way = case.tensors(), ours(case)
    output = way.run(given).detach()
    assert measure._gradient_of(way, given, output).transpose(1, 2).is_contiguous(), "heads side by side"
    assert measure._gradient_of(dataclasses.replace(way, is_contiguous=True), given, output).is_contiguous()
    weights = ours(rows).run(rows.tensors()).detach()
    assert measure._gradient_of(ours(rows), rows.tensors(), weights).is_contiguous(), "scores are nobody's heads"


@pytest.fixture
def quick_measure(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the cases that were really measured."""
    measured: list[str] = []

    def fake(case: Case, settings: Settings) -> dict[str, object]:
        measured.append(case.name)
        return {"case": case.name, "rule": {"name": case.rule.name}, "peers": {}}

    monkeypatch.setattr(document, "measure", fake)
    return measured


def test_a_document_is_taken_up_where_it_stopped(tmp_path: Path, quick_measure: list[str]) -> None:
    cases = [case_of(rule) for rule in (OUTEFFHOP, GSH, SPARSEMAX)]
    path, here = tmp_path / "kernels.json", {"processor": "P"}
    calls = iter([False, True])
    first = document.run(cases, ONCE, path=path, machine=here, command="c", resume=True, deadline=lambda: next(calls))
    assert not first["is_complete"]
    assert json.loads(path.read_text())["records"][0]["case"] == cases[0].name
    second = document.run(cases, ONCE, path=path, machine=here, command="c", resume=True)
    assert second["is_complete"]
    assert quick_measure == [case.name for case in cases]


@pytest.mark.parametrize(
    "changed",
    [{"machine": {"processor": "Q"}}, {"settings": dataclasses.replace(ONCE, num_rounds=2)}, {"resume": False}],
    ids=["machine", "settings", "fresh"],
)
def test_figures_of_another_machine_or_setting_are_not_taken_up(
    tmp_path: Path, quick_measure: list[str], changed: dict[str, object]
) -> None:
    arguments = {"machine": {"processor": "P"}, "settings": ONCE, "resume": True}
    for options in (arguments, {**arguments, **changed}):
        document.run([case_of(GSH)], path=tmp_path / "kernels.json", command="c", **options)  # type: ignore[arg-type]
    assert len(quick_measure) == 2


def test_the_table_names_who_errs_computes_something_else_or_is_absent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def errs(case: Case) -> Way:
        way = ours(case)
        return dataclasses.replace(way, run=lambda given: way.run(given) * 1.1)

    peers = [
        Peer(OURS, ours, is_ours=True),
        Peer("errs", errs),
        *(peer for peer in peers_for(CPU) if peer.name == "eager softmax"),
        Peer("absent", ours, module="stanhop_is_no_such_module", package="no-such"),
    ]
    monkeypatch.setattr(measure, "peers_for", lambda device: peers)
    found = document.run([case_of(OUTEFFHOP)], ONCE, path=tmp_path / "k.json", machine={}, command="c")
    text = document.to_text(found)
    lines = {line.split("  ")[1].strip(): line for line in text.splitlines() if line.startswith("  ")}
    assert lines["errs"].endswith("out of tolerance")
    assert lines["eager softmax"].endswith("computes softmax")
    assert "1.00x [1.00, 1.00]" in lines[OURS]
    assert "absent (pip install no-such)" in text
    assert set(plots_of(found)) == {"test-warm"}
    assert next(iter(plots_of(found).values())).startswith(b"\x89PNG")


def test_tiny_shapes_keep_their_kind() -> None:
    for group in GROUPS.values():
        for shape in group.shapes:
            small = tiny(shape)
            assert (small.is_rows, small.is_shared) == (shape.is_rows, shape.is_shared)
            assert small.batch * small.heads * small.queries * small.memories <= 2 * 2 * 19 * 19


@pytest.mark.parametrize("name", sorted(vendor.BACKENDS))
def test_the_operators_of_each_cuda_backend_take_what_they_are_given(name: str) -> None:
    """On tensors that know only shapes: torch checks the arguments of its own operators, there and back."""
    backend = vendor.BACKENDS[name]
    query, memory = (torch.empty(3, 2, length, 16, device="meta", dtype=torch.bfloat16) for length in (7, 5))
    retrieved, log_sum, rest = backend.forward(query, memory, memory, 0.25)
    assert retrieved.shape == query.shape
    assert log_sum.reshape(3, 2, -1)[..., :7].shape == (3, 2, 7)
    gradients = backend.backward(query, query, memory, memory, retrieved, log_sum, rest, 0.25)
    assert [each.shape for each in gradients] == [each.shape for each in (query, memory, memory)]


def test_a_log_sum_exp_makes_softmax_1_of_softmax_even_if_it_is_padded() -> None:
    """With a backend of plain torch in place of a GPU's."""

    def forward(
        query: Tensor, memory: Tensor, values: Tensor, scale: float
    ) -> tuple[Tensor, Tensor, tuple[object, ...]]:
        scores = scale * query @ memory.transpose(-1, -2)
        padded = torch.nn.functional.pad(scores.logsumexp(-1), (0, 3), value=float("inf"))
        return scores.softmax(-1) @ values, padded, ()

    def backward(
        grad: Tensor,
        query: Tensor,
        memory: Tensor,
        values: Tensor,
        out: Tensor,
        log_sum: Tensor,
        _: object,
        scale: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        weights = (scale * query @ memory.transpose(-1, -2) - log_sum[..., : query.shape[-2], None]).exp()
        inner = weights * (grad @ values.transpose(-1, -2) - (grad * out).sum(-1, keepdim=True))
        return scale * inner @ memory, scale * inner.transpose(-1, -2) @ query, weights.transpose(-1, -2) @ grad

    backend = vendor.Backend(vendor.SDPBackend.MATH, True, forward, backward)
    verdict = Gate.of(case_of(OUTEFFHOP)).judge(backend.softmax_1(case_of(OUTEFFHOP)))
    assert verdict.is_accurate, verdict.text


def test_cuda_peers_are_named_with_their_packages_where_they_are_absent() -> None:
    packages = {peer.name: peer.package for peer in peers_for(torch.device("cuda")) if not peer.is_installed}
    assert packages["AdaSplash-1"] == "adasplash"
    assert packages["Liger sparsemax"] == "liger-kernel"


def test_the_machine_names_processor_and_versions() -> None:
    found = machine(CPU)
    assert found["processor"]
    assert {"torch", "entmax"} <= set(found["versions"])
    assert limit(BANDWIDTH, "NVIDIA H200") == 4.3e12
    assert limit(BANDWIDTH, "Radeon") is None


def test_ours_is_the_dispatched_retrieval() -> None:
    case = case_of(OUTEFFHOP)
    given = case.tensors()
    expected = retrieve(given["query"], given["memory"], given["values"], alpha=1.0, no_op=True)
    assert torch.equal(ours(case).run(given), expected)
