"""Which variant is better, by how much, and whether that is noise: finished trainings, grouped by what differs.

Runs are comparable when they forecast the same windows: the same data, split and horizon (a *task*). Within a task,
runs with the same configuration but for the seed are one *group*; the metrics of a group are mean ± standard deviation
over its seeds. Groups are compared with a reference window by window, see ``bootstrap``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stanhop.errors import quoted
from stanhop.forecasting.window_errors import WINDOW_METRICS, WindowErrors
from stanhop.tracking.bootstrap import DEFAULT_RESAMPLES, Interval, Resamples, block_length
from stanhop.tracking.search import DEFAULTS, RunRecord

DEFAULT_METRICS = ("test/mse_scaled", "test/mae_scaled")
HIGHER_IS_BETTER = ("skill_vs_snaive",)
DATA_TAG = "stanhop.dataset_sha256"
TASK_KEYS = ("data.split.train", "data.split.validation", "data.split.test", "model.prediction_length")
"""What decides, beside the data themselves, which windows are forecast."""
NOT_A_VARIANT = (
    *("train.seed", "train.device", "train.devices", "train.strategy", "data.source"),
    *("tracking.enabled", "tracking.uri", "tracking.experiment", *TASK_KEYS),
)
"""Keys that make no variant of their own."""
LoadErrors = Callable[[RunRecord], WindowErrors | None]


@dataclass(frozen=True)
class Summary:
    """One metric over the seeds of a group: mean, unbiased standard deviation (NaN for one seed), rank in the task."""

    mean: float
    sd: float
    rank: int


@dataclass(frozen=True)
class Group:
    """Trainings that differ in nothing but their seed.

    Args:
        label: The keys that tell it from the other groups, as ``key=value``, without the sections.
        settings: The same by dotted key.
        runs: Its runs in order of their seeds, one each.
        summaries: By metric.
        mean_rank: Over all metrics.
    """

    label: str
    settings: Mapping[str, str]
    runs: tuple[RunRecord, ...]
    summaries: Mapping[str, Summary]
    mean_rank: float

    @property
    def seeds(self) -> tuple[int, ...]:
        """One for each run."""
        return tuple(run.seed for run in self.runs)


@dataclass(frozen=True)
class Difference:
    """A group's metric minus that of the reference.

    Args:
        label: The group.
        metric: What is compared.
        interval: Of the difference; both ends NaN where the runs have no errors by window in common.
        share: The difference as a share of the reference's mean.
        num_windows: Windows in common.
        is_paired: Whether the groups have the same seeds, which are then drawn together.
        has_seed_variance: Whether both groups have several seeds.
    """

    label: str
    metric: str
    interval: Interval
    share: float
    num_windows: int
    is_paired: bool
    has_seed_variance: bool


@dataclass(frozen=True)
class Comparison:
    """The groups of one task.

    Args:
        dataset: Name of the data set.
        prediction_length: Steps forecast.
        metrics: Which were asked for and are there.
        differing: The configuration keys that differ, with the values there are.
        groups: Best mean rank first.
        reference: Label of the group the others are compared with.
        differences: Of every other group, metric by metric.
        notes: What a reader should know.
    """

    dataset: str
    prediction_length: int
    metrics: tuple[str, ...]
    differing: Mapping[str, tuple[str, ...]]
    groups: tuple[Group, ...]
    reference: str
    differences: tuple[Difference, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Settings:
    """How to compare.

    Args:
        metrics: Names as MLflow has them.
        confidence: Share of draws inside an interval.
        num_resamples: Draws of the bootstrap.
        reference: Label of the group to compare with; the best by mean rank if None.
        seed: Of the draws.
    """

    metrics: tuple[str, ...] = DEFAULT_METRICS
    confidence: float = 0.95
    num_resamples: int = DEFAULT_RESAMPLES
    reference: str | None = None
    seed: int = 1


def compare_runs(runs: Sequence[RunRecord], settings: Settings, *, load_errors: LoadErrors) -> list[Comparison]:
    """Compare finished trainings, task by task; a task of one group has no differences.

    Args:
        runs: Those to compare; what is no finished training is left out.
        settings: How.
        load_errors: Gives the errors by window of a run, None where it has none.
    """
    tasks: dict[tuple[str, ...], list[RunRecord]] = {}
    for run in runs:
        if run.is_fitted:
            tasks.setdefault(_task(run), []).append(run)
    return [_compare(task, settings, load_errors) for task in tasks.values()]


def differing_keys(runs: Sequence[RunRecord]) -> dict[str, tuple[str, ...]]:
    """The configuration keys in which ``runs`` differ, each with its values, but for those that make no variant."""
    keys = {key for run in runs for key in run.params} | set(DEFAULTS)
    known = sorted(keys - set(NOT_A_VARIANT), key=[*DEFAULTS, *sorted(keys - set(DEFAULTS))].index)
    values = {key: {run.setting(key) for run in runs} for key in known}
    return {key: tuple(sorted(found, key=_by_size)) for key, found in values.items() if len(found) > 1}


def _by_size(text: str) -> tuple[float, str]:
    """Numbers in their order, before words in theirs."""
    try:
        return (float(text), text)
    except ValueError:
        return (math.inf, text)


def is_better(metric: str, one: float, other: float) -> bool:
    """Whether ``one`` is the better value of ``metric``; a number is better than none."""
    if math.isnan(one) or math.isnan(other):
        return math.isnan(other) and not math.isnan(one)
    return one > other if metric.endswith(HIGHER_IS_BETTER) else one < other


def _task(run: RunRecord) -> tuple[str, ...]:
    targets = run.setting("data.target_columns")
    return (run.tags.get(DATA_TAG, run.setting("data.source")), targets, *map(run.setting, TASK_KEYS))


def _compare(runs: Sequence[RunRecord], settings: Settings, load_errors: LoadErrors) -> Comparison:
    metrics = tuple(name for name in settings.metrics if any(name in run.metrics for run in runs))
    differing = differing_keys(runs)
    members, notes = _grouped(runs, differing)
    notes += [f"no run has {name}" for name in settings.metrics if name not in metrics]
    groups = _ranked([_group(own, key, list(differing)) for key, own in members.items()], metrics)
    chosen = next((group for group in groups if group.label == settings.reference), groups[0])
    if settings.reference not in (None, chosen.label):
        notes.append(f"no group is called {quoted(settings.reference)}; the best is compared with")
    differences, about_windows = _differences(groups, chosen, metrics, settings, load_errors)
    return Comparison(
        dataset=runs[0].tags.get("stanhop.dataset", runs[0].setting("data.source")),
        prediction_length=int(runs[0].setting("model.prediction_length")),
        metrics=metrics,
        differing=differing,
        groups=tuple(groups),
        reference=chosen.label,
        differences=tuple(differences),
        notes=tuple(notes + about_windows),
    )


def _grouped(
    runs: Sequence[RunRecord], differing: Iterable[str]
) -> tuple[dict[tuple[str, ...], list[RunRecord]], list[str]]:
    """Runs by the values of what differs, one a seed: of several with the same seed, the newest counts."""
    groups: dict[tuple[str, ...], dict[int, RunRecord]] = {}
    num_repeated = 0
    for run in sorted(runs, key=lambda run: run.start_ms):
        own = groups.setdefault(tuple(map(run.setting, differing)), {})
        num_repeated += run.seed in own
        own[run.seed] = run
    notes = [f"{num_repeated} runs repeat another's configuration and seed; the newest of each counts"]
    return {key: [own[seed] for seed in sorted(own)] for key, own in groups.items()}, notes if num_repeated else []


def _group(runs: Sequence[RunRecord], values: Sequence[str], keys: Sequence[str]) -> Group:
    settings = dict(zip(keys, values, strict=True))
    label = ", ".join(f"{key.split('.')[-1]}={value}" for key, value in settings.items()) or "all runs"
    return Group(label, settings, tuple(runs), {}, math.nan)


def _ranked(groups: Sequence[Group], metrics: Sequence[str]) -> list[Group]:
    """The groups with their summaries and ranks, best mean rank first."""
    means = {
        name: [float(np.mean([run.metrics.get(name, math.nan) for run in group.runs])) for group in groups]
        for name in metrics
    }
    ranked = []
    for number, group in enumerate(groups):
        summaries = {}
        for name in metrics:
            own = means[name][number]
            values = [run.metrics.get(name, math.nan) for run in group.runs]
            sd = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
            rank = 1 + sum(is_better(name, other, own) for other in means[name])
            summaries[name] = Summary(own, sd, rank)
        mean_rank = float(np.mean([each.rank for each in summaries.values()])) if summaries else math.nan
        ranked.append(Group(group.label, group.settings, group.runs, summaries, mean_rank))
    first = metrics[0] if metrics else None
    return sorted(ranked, key=lambda group: (group.mean_rank, group.summaries[first].rank if first else 0, group.label))


def _differences(
    groups: Sequence[Group],
    reference: Group,
    metrics: Sequence[str],
    settings: Settings,
    load_errors: LoadErrors,
) -> tuple[list[Difference], list[str]]:
    others = [group for group in groups if group is not reference]
    if not others or not metrics:
        return [], []
    errors = {run.id: load_errors(run) for group in groups for run in group.runs}
    known = [group for group in groups if all(errors[run.id] is not None for run in group.runs)]
    lacking = [group.label for group in groups if group not in known]
    notes = []
    if lacking:
        notes.append(f"no errors by window, so no interval: {'; '.join(lacking)}")
    window_metrics = [name for name in metrics if name.removeprefix("test/") in WINDOW_METRICS]
    for name in metrics:
        if name not in window_metrics:
            notes.append(f"{name} is no mean over windows, so its differences have no interval")
    table = _Windows({run_id: each for run_id, each in errors.items() if each is not None})
    drawn: dict[str, dict[str, np.ndarray]] = {}
    if reference in known and len(known) > 1 and table.num_windows:
        drawn = {name: table.drawn(name, reference, settings) for name in window_metrics}
        if table.num_windows < table.most_windows:
            notes.append(f"differences are over the {table.num_windows:,} windows that all runs have")
    elif reference in known and len(known) > 1:
        notes.append("the runs have no test window in common, so no interval")
    if any(len(group.runs) < 2 for group in (reference, *others)):
        notes.append("groups of one seed: their intervals are about windows, not about other seeds")
    return [
        _difference(group, reference, name, settings, table, drawn.get(name) if group in known else None)
        for group in others
        for name in metrics
    ], notes


def _difference(
    group: Group,
    reference: Group,
    metric: str,
    settings: Settings,
    table: _Windows,
    drawn: Mapping[str, np.ndarray] | None,
) -> Difference:
    mean, base = group.summaries[metric].mean, reference.summaries[metric].mean
    low = high = math.nan
    if drawn is not None:
        assert table.resamples is not None
        mean, base = (table.mean(metric, each) for each in (group, reference))
        ours, theirs = (np.stack([drawn[run.id] for run in each.runs]) for each in (group, reference))
        low, high = table.resamples.difference(
            ours, theirs, our_seeds=group.seeds, their_seeds=reference.seeds, confidence=settings.confidence
        )
    return Difference(
        label=group.label,
        metric=metric,
        interval=Interval(mean - base, low, high),
        share=(mean - base) / base if base else math.nan,
        num_windows=table.num_windows if drawn is not None else 0,
        is_paired=group.seeds == reference.seeds,
        has_seed_variance=min(len(group.runs), len(reference.runs)) > 1,
    )


class _Windows:
    """Errors of runs over the windows that all of them have.

    Args:
        errors: By the id of the run.
    """

    def __init__(self, errors: Mapping[str, WindowErrors]) -> None:
        self._rows = {run_id: each.rows for run_id, each in errors.items()}
        places, self._series = _in_common(list(self._rows.values()))
        self._places = dict(zip(self._rows, places, strict=True))
        self.num_windows = len(self._series)
        self.most_windows = max(map(len, self._rows.values()), default=0)
        self.resamples: Resamples | None = None
        self._means: dict[str, dict[str, float]] = {}

    def drawn(self, metric: str, reference: Group, settings: Settings) -> dict[str, np.ndarray]:
        """The means of each run's ``metric`` over each draw of windows, ``(resamples,)`` by the id of the run."""
        if self.resamples is None:
            steps = int(reference.runs[0].setting("model.prediction_length"))
            length = block_length(self.num_windows, steps)
            self.resamples = Resamples(
                self._series, block_length=length, num_resamples=settings.num_resamples, seed=settings.seed
            )
        stacked = np.stack([self._of(run_id, metric) for run_id in self._rows])
        self._means[metric] = dict(zip(self._rows, stacked.mean(axis=1), strict=True))
        return dict(zip(self._rows, self.resamples.means(stacked), strict=True))

    def mean(self, metric: str, group: Group) -> float:
        """The mean of ``metric``, once drawn, over the windows and the runs of ``group``."""
        return float(np.mean([self._means[metric][run.id] for run in group.runs]))

    def _of(self, run_id: str, metric: str) -> np.ndarray:
        errors: np.ndarray = self._rows[run_id][metric.removeprefix("test/")][self._places[run_id]]
        return errors.astype(np.float64)


def _in_common(tables: Sequence[np.ndarray]) -> tuple[list[np.ndarray | slice], np.ndarray]:
    """Where in each table the windows are that all have, and which series these are of."""
    if not tables:
        return [], np.empty(0, "<i4")
    first = tables[0]
    if all(np.array_equal(first[name], each[name]) for each in tables[1:] for name in ("origin", "series")):
        return [slice(None)] * len(tables), first["series"]
    keys = [table["series"].astype(np.int64) << 40 | table["origin"] for table in tables]
    shared = keys[0]
    for each in keys[1:]:
        shared = np.intersect1d(shared, each, assume_unique=True)
    places: list[np.ndarray | slice] = [np.flatnonzero(np.isin(each, shared)) for each in keys]
    return places, (shared >> 40).astype("<i4")
