"""``stanhop train``: what it asks the library for, and what it tells about the result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stanhop.config import RunConfig
from stanhop.errors import Code, DivergedError
from stanhop.training import fit as fit_module
from stanhop.training.outcome import FitResult

METRICS = {"train/loss": 0.5, "val/loss": 0.25, "test/mse_scaled": 0.125, "test/num_windows": 29.0, "time/train_s": 1.0}

PLAIN = {"require_tracking": False, "strict_resume": False, "preset": None}


class FitCalls:
    """Stands in for the training and remembers what it was asked for."""

    def __init__(self) -> None:
        self.config = RunConfig()
        self.options: dict[str, Any] = {}
        self.was_complete = False
        self.metrics = METRICS

    def __call__(self, config: RunConfig, **options: Any) -> FitResult:
        self.config, self.options = config, options
        path = options["run_path"]
        return FitResult(
            run_path=path,
            model_path=path / "model",
            metrics=self.metrics,
            num_epochs=3,
            best_epoch=2,
            run_id="abc",
            was_complete=self.was_complete,
        )


@pytest.fixture
def fitted(monkeypatch: pytest.MonkeyPatch) -> FitCalls:
    calls = FitCalls()
    monkeypatch.setattr(fit_module, "fit", calls)
    return calls


def test_options_become_the_configuration(run: Any, fitted: FitCalls, tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("model: {num_heads: 2}\n")
    answer = run(
        *("train", "--data", "sales.csv", "--horizon", "48", "-c", mine, "--set", "model.dropout=0.5"),
        *("--sep", ";", "--no-tracking", "--seed", "7"),
    )
    assert answer.code == 0
    config = fitted.config
    assert (config.data.source, config.data.separator) == ("sales.csv", ";")
    assert (config.model.prediction_length, config.model.num_heads, config.model.dropout) == (48, 2, 0.5)
    assert (config.train.seed, config.tracking.enabled) == (7, False)
    expected = {"run_path": Path("runs/sales-1"), "resume": False, "overwrite": False, "progress": True, **PLAIN}
    assert fitted.options == expected


def test_all_rows_leaves_none_for_the_test_and_says_so(run: Any, fitted: FitCalls) -> None:
    fitted.metrics = {name: value for name, value in METRICS.items() if not name.startswith("test/")}
    answer = run("train", "--data", "x.csv", "--all-rows")
    assert "no rows were kept for the test" in answer.out
    split = fitted.config.data.split
    assert (split.train, split.validation, split.test) == (0.9, 0.1, 0.0)


def test_strictness_is_passed_on(run: Any, fitted: FitCalls) -> None:
    run("train", "--data", "x.csv", "--output", "there", "--strict-resume", "--require-tracking")
    assert fitted.options["resume"]
    assert fitted.options["strict_resume"]
    assert fitted.options["require_tracking"]


def test_the_result_is_the_model_and_its_test_metrics(run: Any, fitted: FitCalls) -> None:
    document = run("train", "--data", "sales.csv", "--format", "json").document
    assert document["model"] == "runs/sales-1/model"
    assert document["test"] == {"mse_scaled": 0.125, "num_windows": 29}
    assert (document["run_id"], document["num_epochs"], document["best_epoch"]) == ("abc", 3, 2)
    assert fitted.options["progress"] is False
    human = run("train", "--data", "sales.csv").out
    assert "mse_scaled   0.125" in human
    assert "runs/sales-1/model" in human
    assert run("train", "--data", "sales.csv", "--format", "quiet").out == ""


def test_each_run_gets_a_folder_of_its_own(run: Any, fitted: FitCalls, elsewhere: Path) -> None:
    for number in (1, 2, 3):
        run("train", "--data", "data/Sales 2021.csv")
        chosen: Path = fitted.options["run_path"]
        assert chosen.parent == Path("runs")
        assert chosen.name.startswith("Sales-2021-")
        assert chosen.name.endswith(f"-{number}")
        (elsewhere / chosen).mkdir(parents=True)
    run("train", "--data", "x.csv", "--output", "there", "--overwrite", "--no-progress")
    assert fitted.options == {"run_path": Path("there"), "resume": False, "overwrite": True, "progress": False, **PLAIN}


def test_resume_goes_on_with_the_last_run_of_the_data(run: Any, fitted: FitCalls, elsewhere: Path) -> None:
    refused = run("train", "--data", "sales.csv", "--resume")
    assert refused.code == 2
    assert "error[E303]: runs: there is no run of 'sales.csv' to go on with" in refused.err
    for number in (1, 2):
        (elsewhere / "runs" / f"sales-{number}").mkdir(parents=True)
    assert run("train", "--data", "sales.csv", "--resume").code == 0
    assert fitted.options["run_path"] == Path("runs/sales-2")
    assert fitted.options["resume"] is True


def test_resume_without_options_takes_those_of_the_run(run: Any, fitted: FitCalls, elsewhere: Path) -> None:
    (elsewhere / "mine").mkdir()
    (elsewhere / "mine" / "config.yaml").write_text("data: {source: other.csv}\nmodel: {num_levels: 5}\n")
    assert run("train", "--resume", "--output", "mine").code == 0
    assert (fitted.config.data.source, fitted.config.model.num_levels) == ("other.csv", 5)


def test_a_run_that_was_complete_is_said_to_be(run: Any, fitted: FitCalls) -> None:
    fitted.was_complete = True
    assert "complete already" in run("train", "--data", "x.csv", "--resume", "--output", "mine").err


def test_processes_that_share_the_work_get_the_same_folder(
    run: Any, fitted: FitCalls, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("train", "--data", "sales.csv")
    (elsewhere / "runs" / "sales-1").mkdir(parents=True)
    monkeypatch.setenv("LOCAL_RANK", "1")
    run("train", "--data", "sales.csv")
    assert fitted.options["run_path"] == Path("runs/sales-1")


def test_a_dry_run_says_what_it_would_do_and_does_nothing(run: Any, fitted: FitCalls, elsewhere: Path) -> None:
    document = run("train", "--data", "ETTh1", "--dry-run", "--format", "json").document
    assert document["reads"].startswith("https://")
    assert document["writes"] == "runs/ETTh1-1"
    assert document["config"]["data.split.train"] == 8640
    assert "reads   nothing: synthetic is built in" in run("train", "--data", "synthetic", "--dry-run").out
    assert "reads   a.csv" in run("train", "--data", "a.csv", "--dry-run").out
    assert fitted.options == {}
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--epochs", "0"], "error[E201]: train.max_epochs: input should be greater than 0, got '0' (from --epochs)"),
        (["--set", "model.heads=3"], "unknown key model.heads"),
        (["--set", "model"], "--set 'model' is not an assignment"),
        (["-c", "nope.yaml"], "nope.yaml: cannot read: No such file or directory"),
        (["--preset", "nope"], "no preset is called 'nope'"),
        (["--prediction-length", "-1"], "greater than 0, got '-1'"),
        (["--sep", "#"], "data.separator: input should be ',', ';'"),
    ],
)
def test_a_bad_configuration_stops_it_before_anything_is_loaded(
    arguments: list[str], text: str, run: Any, fitted: FitCalls
) -> None:
    answer = run("train", "--data", "x.csv", *arguments)
    assert (answer.code, answer.out) == (2, "")
    assert text in answer.err
    assert fitted.options == {}


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("train: {seed: 1, seed: 2}\n", 1, "key 'seed' is written twice"),
        ("train:\n  seed: !!python/object/apply:os.system ['touch pwned']\n", 2, "a tag is not supported"),
        ("train: {max_epoch: 3}\n", None, "unknown key train.max_epoch"),
    ],
)
def test_a_bad_file_is_refused_with_its_line_and_runs_nothing(
    text: str, line: int | None, problem: str, run: Any, fitted: FitCalls, elsewhere: Path
) -> None:
    (elsewhere / "mine.yaml").write_text(text)
    answer = run("train", "--data", "x.csv", "-c", "mine.yaml", "--format", "json")
    assert answer.code == 2
    assert problem in answer.error["problem"]
    assert answer.error["line"] == line
    assert "mine.yaml" in answer.err
    assert [path.name for path in elsewhere.iterdir()] == ["mine.yaml"]


def test_a_bad_variable_is_refused_by_its_name(run: Any, fitted: FitCalls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STANHOP_TRAIN__SEED", "many")
    answer = run("train", "--data", "x.csv")
    assert answer.code == 2
    assert "train.seed: input should be a valid integer, got 'many' (from STANHOP_TRAIN__SEED)" in answer.err


def test_a_diverged_training_is_exit_code_5(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def diverge(*_: Any, **__: Any) -> None:
        raise DivergedError(Code.DIVERGED, "the loss is nan")

    monkeypatch.setattr(fit_module, "fit", diverge)
    assert run("train", "--data", "x.csv").code == 5


def test_training_leaves_a_model_and_the_resolved_configuration(trained: Path, run: Any) -> None:
    assert (trained / "model" / "manifest.json").is_file()
    again = run("config", "show", "-c", trained / "config.yaml", "--format", "json").document["keys"]
    assert again["model.prediction_length"]["value"] == 5
    assert again["train.batch_size"]["value"] == 17


def test_a_resumed_run_that_is_complete_changes_nothing(trained: Path, run: Any) -> None:
    before = (trained / "model" / "model.safetensors").read_bytes()
    answer = run("train", "--resume", "--output", trained, "--format", "json")
    assert answer.code == 0, answer.err
    assert answer.document["model"] == str(trained / "model")
    assert set(answer.document["test"]) >= {"mse_scaled", "mae_scaled", "mse", "mae", "mase", "smape_200"}
    assert (trained / "model" / "model.safetensors").read_bytes() == before


def test_an_output_that_exists_is_refused(trained: Path, run: Any, table: Any, small: tuple[str, ...]) -> None:
    answer = run("train", "--data", table(), *small, "--no-tracking", "--output", trained, "--format", "json")
    assert answer.code == 2
    assert answer.error["code"] == "E401"
    assert "--overwrite" in answer.error["hint"]


@pytest.mark.slow
def test_the_logged_configuration_repeats_the_run(trained: Path, run: Any, tmp_path: Path) -> None:
    again = run("train", "-c", trained / "config.yaml", "--output", tmp_path / "again", "--format", "json")
    assert again.code == 0, again.err
    weights = [folder / "model" / "model.safetensors" for folder in (trained, tmp_path / "again")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert json.loads((trained / "metrics.json").read_text())["metrics"]["test/mse"] == again.document["test"]["mse"]


@pytest.mark.slow
def test_a_run_is_recorded_in_the_current_folder(run: Any, table: Any, small: tuple[str, ...], elsewhere: Path) -> None:
    answer = run("train", "--data", table(), *small, "--format", "json")
    assert answer.code == 0, answer.err
    assert (elsewhere / "mlflow.db").is_file()
    assert answer.document["run_id"]
    assert (elsewhere / "runs" / "sales-1" / "model").is_dir()


def test_levels_are_calibrated_after_training(run: Any, table: Any, small: tuple[str, ...]) -> None:
    arguments = ("train", "--data", table(), *small, "--no-tracking")
    answer = run(*arguments, "--levels", "60,97.5", "--output", "some", "--format", "json")
    assert answer.code == 0, answer.err
    assert 0 < answer.document["test"]["coverage_60"] < answer.document["test"]["coverage_97.5"] <= 1
    assert json.loads(Path("some/model/intervals.json").read_text())["levels"] == [60.0, 97.5]
    assert run(*arguments, "--levels", "none", "--output", "none").code == 0
    assert not Path("none/model/intervals.json").exists()
    refused = run(*arguments, "--levels", "80,wide", "--output", "no")
    assert refused.code == 2
    assert "model.levels.1: input should be a valid number, got 'wide'" in refused.err


def test_a_quantile_head_is_trained_and_calibrated(run: Any, table: Any, small: tuple[str, ...]) -> None:
    arguments = ("train", "--data", table(), *small, "--no-tracking", "--set", "model.head=quantile", "--output", "q")
    assert run(*arguments).code == 0
    answer = run("forecast", "--model", "q/model", "--input", table(), "--output", "o.csv", "--levels", "80,95")
    assert answer.code == 0, answer.err
