"""The table of goals: the worst case counts, and nothing that is inaccurate or absent does."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from stanhop.benchmarks.kernels.goals import (
    KERNELS,
    goals_text,
    kernel_goals,
    memory_goal,
    roofline_text,
    training_goals,
)
from stanhop.benchmarks.kernels.peers import OURS, peers_for


def record(
    group: str, length: int, rule: str, times: dict[str, dict[str, float]], *, inaccurate: tuple[str, ...] = ()
) -> dict[str, Any]:
    """A record with cold times; warm ones are ten times as short."""
    peers = {
        name: {
            "is_ours": name.startswith("ours"),
            "is_accurate": name not in inaccurate,
            "times": {
                cache: {phase: {"seconds": {"median": factor * seconds}} for phase, seconds in phases.items()}
                for cache, factor in (("warm", 0.1), ("cold", 1.0))
            },
        }
        for name, phases in times.items()
    }
    return {
        "case": f"{group}/{length}, {rule}, bfloat16",
        "group": group,
        "shape": {"name": str(length), "queries": length, "memories": length, "head_dim": 64},
        "rule": {"name": rule},
        "dtype": "bfloat16",
        "bytes": {"forward": 43e6, "both": 86e6},
        "flops": {"forward": 79e6, "both": 158e6},
        "peers": peers,
    }


def goals(*records: dict[str, Any]) -> dict[str, Any]:
    return {goal.name: goal for goal in kernel_goals({"records": list(records)})}


def test_the_worst_case_counts() -> None:
    fast = record("etth1-time", 14, "outeffhop", {OURS: {"forward": 1.0}, "eager Softmax_1": {"forward": 9.0}})
    slow = record("etth1-variates", 7, "outeffhop", {OURS: {"forward": 1.0}, "eager Softmax_1": {"forward": 4.0}})
    assert goals(fast)["G1"].is_met is True
    both = goals(fast, slow)["G1"]
    assert (both.value, both.case, both.is_met) == (4.0, slow["case"], False)


def test_the_best_peer_counts() -> None:
    times = {KERNELS: {"both": 1.0}, "SDPA flash + LSE": {"both": 3.0}, "SDPA cuDNN + LSE": {"both": 1.2}}
    assert goals(record("medium", 64, "outeffhop", times))["G2"].value == pytest.approx(1.2)
    inaccurate = record("medium", 64, "outeffhop", times, inaccurate=("SDPA cuDNN + LSE",))
    assert goals(inaccurate)["G2"].value == pytest.approx(3.0), "one that errs is no peer"


def test_ours_out_of_tolerance_reaches_nothing() -> None:
    times = {OURS: {"forward": 1.0}, "eager Softmax_1": {"forward": 90.0}}
    assert goals(record("etth1-time", 14, "outeffhop", times, inaccurate=(OURS,)))["G1"].is_met is None


def test_lengths_and_groups_are_those_of_the_goal() -> None:
    times = {KERNELS: {"both": 1.0}, "SDPA flash + LSE": {"both": 1.1}}
    found = goals(record("medium", 256, "outeffhop", times))
    assert found["G2"].value is None
    assert found["G3"].value == pytest.approx(1.1)


def test_what_must_not_be_large_is_judged_by_its_largest() -> None:
    times = {KERNELS: {"backward": 1.2}, "ours, kernels, alpha fixed": {"backward": 1.0}}
    found = goals(record("medium", 64, "gsh", times))["G11"]
    assert found.value == pytest.approx(1.2)
    assert found.is_met is False


def test_entmax_is_compared_with_softmax_1_on_the_same_shape() -> None:
    records = [
        record("medium", length, rule, {OURS: {"both": seconds}})
        for length, rule, seconds in [
            (32, "outeffhop", 1.0),
            (32, "gsh", 1.5),
            (120, "outeffhop", 1.0),
            (120, "gsh", 4.0),
        ]
    ]
    found = goals(*records)
    assert found["G10"].value == pytest.approx(1.5)
    assert found["G10b"].value == pytest.approx(4.0)


def test_every_kernel_goal_can_be_missing() -> None:
    assert {goal.is_met for goal in kernel_goals({"records": []})} == {None}


def test_goals_name_peers_that_exist() -> None:
    """A peer that was renamed would leave its goal unmeasured for ever."""
    known = {peer.name for peer in peers_for(torch.device("cuda"))}
    asked: set[str] = set()

    class Peers(dict[str, Any]):
        def get(self, name: str, default: Any = None) -> Any:  # type: ignore[override]
            asked.add(name)
            return default

    rules = ("outeffhop", "gsh", "entmax 1.4", "entmax 1.5", "sparsemax")
    for group, length in [("etth1-time", 14), ("medium", 120), ("medium", 64), ("long", 4096), ("rows-long", 2048)]:
        for rule in rules:
            found = record(group, length, rule, {})
            found["peers"] = Peers()
            kernel_goals({"records": [found]})
    assert {OURS, KERNELS, "AdaSplash-1", "Liger sparsemax"} <= asked
    assert asked <= known


def test_training_goals_take_the_worse_network() -> None:
    two = {"bisection_over_ours": {"median": 12.0}, "bisection_over_graph": {"median": 20.0}}
    three = {"bisection_over_ours": {"median": 9.0}, "bisection_over_graph": {"median": 30.0}}
    training = {"published": {"2": two, "3": three}, "epoch_seconds": 0.4}
    found = {goal.name: goal for goal in training_goals(training)}
    assert (found["G13"].value, found["G13"].case, found["G13"].is_met) == (20.0, "2", True)
    assert (found["G13b"].value, found["G13b"].case, found["G13b"].is_met) == (9.0, "3", False)
    assert found["G14"].is_met is None
    assert found["G15"].is_met is True


def test_the_table_says_what_is_met_missed_and_owed() -> None:
    text = goals_text([memory_goal(0.2), memory_goal(0.3), memory_goal(None)])
    met = [next(word for word in ("yes", "NO", "not measured") if word in line) for line in text.splitlines()[1:]]
    assert met == ["yes", "NO", "not measured"]


def test_the_share_of_the_roofline_is_that_of_the_binding_limit() -> None:
    document = {
        "machine": {"bandwidth": 4.3e12, "half_flops": 790e12},
        "records": [record("etth1-time", 14, "outeffhop", {OURS: {"forward": 20e-6}})],
    }
    assert roofline_text(document) == "etth1-time/14, outeffhop, bfloat16, forward: 20.0 us, 50% of bandwidth"
    assert "no shares" in roofline_text({"machine": {}, "records": []})
