"""Comparisons of runs: who is in a group, what differs, by how much, and what is said when that cannot be told."""

from __future__ import annotations

import math

import numpy as np
import pytest

from stanhop.config import RunConfig, flatten, nest
from stanhop.forecasting.window_errors import ROW, WINDOW_METRICS, WindowErrors
from stanhop.tracking.compare import Comparison, Settings, compare_runs, differing_keys, is_better
from stanhop.tracking.search import RunRecord

NUM_WINDOWS = 211
HARD = np.random.default_rng(0).gamma(2.0, 0.5, size=NUM_WINDOWS)
"""What makes a window hard for every model."""
Errors = dict[str, WindowErrors | None]


def windows(errors: np.ndarray, *, first: int = 0) -> WindowErrors:
    rows = np.zeros(len(errors), ROW)
    rows["origin"] = first + np.arange(len(errors))
    for name in WINDOW_METRICS:
        rows[name] = errors
    return WindowErrors(rows)


class Store:
    """Runs with their errors."""

    def __init__(self) -> None:
        self.runs: list[RunRecord] = []
        self.errors: Errors = {}

    def add(self, errors: np.ndarray, *, first: int = 0, keeps_windows: bool = True, **settings: object) -> RunRecord:
        config = RunConfig.model_validate(nest({key.replace("__", "."): value for key, value in settings.items()}))
        number = len(self.runs)
        run = RunRecord(
            id=f"{number:032x}",
            name=f"run-{number}",
            status="FINISHED",
            start_ms=number,
            end_ms=None,
            artifact_uri="",
            params={key: str(value) for key, value in flatten(config.model_dump(mode="json")).items()},
            metrics={
                "test/mse_scaled": float(errors.mean()),
                "test/skill_vs_snaive": 1 - float(errors.mean()),
                "val/best_loss": 0.1,
            },
            tags={"stanhop.dataset": "sales.csv", "stanhop.dataset_sha256": "f" * 64},
        )
        self.runs.append(run)
        self.errors[run.id] = windows(errors, first=first) if keeps_windows else None
        return run

    def compare(self, *metrics: str, **settings: object) -> list[Comparison]:
        chosen = Settings(metrics=metrics or ("test/mse_scaled",), num_resamples=300, **settings)  # type: ignore[arg-type]  # by keyword
        return compare_runs(self.runs, chosen, load_errors=lambda run: self.errors[run.id])


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def two_groups(store: Store) -> Store:
    """``gsh`` is worse than ``softmax`` by 0.05 in each window; seeds differ by 0.01."""
    for offset, separation in ((0.05, "gsh"), (0.0, "softmax")):
        for seed in (3, 1, 2):
            store.add(HARD + offset + 0.01 * seed, model__separation=separation, train__seed=seed)
    return store


def test_runs_that_differ_in_their_seed_are_one_group(two_groups: Store) -> None:
    (comparison,) = two_groups.compare()
    assert comparison.differing == {"model.separation": ("gsh", "softmax")}
    assert [group.label for group in comparison.groups] == ["separation=softmax", "separation=gsh"]
    assert [group.seeds for group in comparison.groups] == [(1, 2, 3), (1, 2, 3)]
    best = comparison.groups[0].summaries["test/mse_scaled"]
    assert best.mean == pytest.approx(HARD.mean() + 0.02)
    assert best.sd == pytest.approx(0.01)


def test_a_difference_has_its_interval(two_groups: Store) -> None:
    (comparison,) = two_groups.compare()
    (difference,) = comparison.differences
    assert (comparison.reference, difference.label) == ("separation=softmax", "separation=gsh")
    assert difference.interval.estimate == pytest.approx(0.05, abs=1e-6)
    assert difference.interval.low == pytest.approx(0.05, abs=1e-6)
    assert difference.interval.excludes_zero
    assert difference.share == pytest.approx(0.05 / (HARD.mean() + 0.02), rel=1e-5)
    assert (difference.num_windows, difference.is_paired) == (NUM_WINDOWS, True)


def test_noise_is_called_noise(store: Store) -> None:
    rng = np.random.default_rng(5)
    for separation in ("gsh", "softmax"):
        for seed in (1, 2, 3):
            store.add(HARD * (1 + 0.2 * rng.normal(size=NUM_WINDOWS)), model__separation=separation, train__seed=seed)
    (comparison,) = store.compare()
    assert not comparison.differences[0].interval.excludes_zero


def test_the_reference_can_be_chosen(two_groups: Store) -> None:
    (comparison,) = two_groups.compare(reference="separation=gsh")
    assert comparison.differences[0].interval.estimate == pytest.approx(-0.05, abs=1e-6)
    (unknown,) = two_groups.compare(reference="separation=other")
    assert any("no group is called 'separation=other'" in note for note in unknown.notes)


def test_other_data_splits_and_horizons_are_other_tasks(store: Store) -> None:
    store.add(HARD)
    store.add(HARD, model__prediction_length=12)
    store.add(HARD, data__split={"train": 0.6, "validation": 0.2, "test": 0.2})
    assert len(store.compare()) == 3


def test_what_makes_no_variant_makes_no_group(store: Store) -> None:
    store.add(HARD, train__device="cpu", train__seed=1)
    store.add(HARD, data__source="elsewhere/sales.csv", tracking__experiment="mine", train__seed=2)
    (comparison,) = store.compare()
    assert (len(comparison.groups), comparison.differing, comparison.differences) == (1, {}, ())


def test_of_runs_with_one_seed_the_newest_counts(store: Store) -> None:
    store.add(HARD + 1)
    newest = store.add(HARD)
    (comparison,) = store.compare()
    assert comparison.groups[0].runs == (newest,)
    assert "1 runs repeat" in comparison.notes[0]


def test_ranks_follow_each_metric(two_groups: Store) -> None:
    (comparison,) = two_groups.compare("test/mse_scaled", "test/skill_vs_snaive")
    ranks = [[summary.rank for summary in group.summaries.values()] for group in comparison.groups]
    assert ranks == [[1, 1], [2, 2]], "of skill more is better"
    assert [group.mean_rank for group in comparison.groups] == [1, 2]


def test_a_metric_that_is_no_mean_over_windows_has_a_difference_and_no_interval(two_groups: Store) -> None:
    (comparison,) = two_groups.compare("test/skill_vs_snaive")
    (difference,) = comparison.differences
    assert difference.interval.estimate == pytest.approx(-0.05)
    assert math.isnan(difference.interval.low)
    assert any("no mean over windows" in note for note in comparison.notes)


def test_runs_without_errors_by_window_are_named(two_groups: Store) -> None:
    two_groups.add(HARD + 1, keeps_windows=False, model__separation="sparsemax")
    (comparison,) = two_groups.compare()
    by_label = {each.label: each.interval for each in comparison.differences}
    assert math.isnan(by_label["separation=sparsemax"].low)
    assert not math.isnan(by_label["separation=gsh"].low)
    assert any("no interval: separation=sparsemax" in note for note in comparison.notes)


def test_differences_are_over_the_windows_that_all_have(store: Store) -> None:
    store.add(HARD, model__separation="gsh")
    store.add(HARD[20:] + 0.5, first=20, model__separation="softmax", model__context_length=240)
    (comparison,) = store.compare()
    (difference,) = comparison.differences
    assert difference.num_windows == NUM_WINDOWS - 20
    assert difference.interval.estimate == pytest.approx(0.5, abs=1e-6)
    assert any(f"{NUM_WINDOWS - 20} windows that all runs have" in note for note in comparison.notes)
    assert any("groups of one seed" in note for note in comparison.notes)


@pytest.mark.parametrize(("part", "least"), [("origin", NUM_WINDOWS - 20), ("series", 0)])
def test_as_many_windows_are_not_the_same_ones(store: Store, part: str, least: int) -> None:
    store.add(HARD, model__separation="gsh")
    other = store.add(HARD + 0.5, model__separation="softmax")
    errors = store.errors[other.id]
    assert errors is not None
    errors.rows[part] += 20
    (comparison,) = store.compare()
    assert comparison.differences[0].num_windows == least


def test_what_is_no_finished_training_is_left_out(store: Store) -> None:
    run = store.add(HARD)
    store.runs.append(RunRecord("b" * 32, "grid", "FINISHED", 9, None, "", {}, {"test/mse_scaled": 0.0}, {}))
    (comparison,) = store.compare()
    assert comparison.groups[0].runs == (run,)


def test_keys_that_differ_come_in_the_order_of_the_configuration(store: Store) -> None:
    store.add(HARD, train__loss="mse", model__dropout=0.0)
    store.add(HARD, train__loss="mae", model__dropout=0.2)
    assert differing_keys(store.runs) == {"model.dropout": ("0.0", "0.2"), "train.loss": ("mae", "mse")}


@pytest.mark.parametrize(
    ("metric", "one", "other", "expected"),
    [
        ("test/mse", 1.0, 2.0, True),
        ("test/mse", 2.0, 1.0, False),
        ("test/skill_vs_snaive", 2.0, 1.0, True),
        ("test/mse", 1.0, math.nan, True),
        ("test/mse", math.nan, 1.0, False),
    ],
)
def test_which_value_is_better(metric: str, one: float, other: float, expected: bool) -> None:
    assert is_better(metric, one, other) is expected


def test_the_bootstrap_is_the_same_each_time(two_groups: Store) -> None:
    first, second = (two_groups.compare() for _ in range(2))
    assert first == second
