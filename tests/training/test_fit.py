"""A whole training: what it leaves, what it refuses, and that interruptions change nothing."""

from __future__ import annotations

import json
import math
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch

from stanhop.config import DataConfig, ModelConfig, RunConfig, SplitConfig, TrackingConfig, file_layer, resolve
from stanhop.errors import (
    Code,
    ConfigError,
    DataError,
    DivergedError,
    MachineError,
    ModelError,
    OutputError,
    StoppedError,
    UsageError,
)
from stanhop.forecasting.bundle import Bundle, load_bundle
from stanhop.forecasting.evaluation import evaluate
from stanhop.forecasting.forecaster import Forecaster
from stanhop.model.block import absorb_scales
from stanhop.model.network import build_network
from stanhop.series.frame import Series, SeriesSet
from stanhop.storage import locked
from stanhop.training import fit as fit_module
from stanhop.training import outcome, saving
from stanhop.training.fit import FitResult
from stanhop.training.journal import Journal
from stanhop.training.lightning_module import ForecastingModule

Train = Callable[..., FitResult]
AtStep = Callable[[int, Callable[[], None]], None]
WEIGHTS = "model/model.safetensors"
FILES = {
    "config.yaml",
    "metrics.json",
    "model",
    "checkpoints",
    ".lock",
    "forecast.png",
    "loss.png",
    "window_errors.npy",
}


def changed(config: RunConfig, section: str, **values: Any) -> RunConfig:
    return config.model_copy(update={section: getattr(config, section).model_copy(update=values)})


def plain(value: Any) -> Any:
    """A checkpoint as values that can be compared; without the clock and Lightning's counters of validation."""
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items() if key not in ("seconds", "loops")}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def last_state(run_path: Path) -> Any:
    """Weights, optimiser, schedule, losses and random generators after the last step."""
    newest = max((run_path / "checkpoints").glob("*.ckpt"))
    return plain(torch.load(newest, weights_only=True))


def assert_same_end(result: FitResult, reference: FitResult) -> None:
    assert (result.run_path / WEIGHTS).read_bytes() == (reference.run_path / WEIGHTS).read_bytes()
    assert last_state(result.run_path) == last_state(reference.run_path)
    assert result.num_epochs == reference.num_epochs


# --- what it leaves ---------------------------------------------------------------------------------------------------


def test_a_run_leaves_these_files_and_no_others(reference: FitResult) -> None:
    assert {path.name for path in reference.run_path.iterdir()} == FILES
    assert resolve([file_layer(reference.run_path / "config.yaml")]).train.seed == 5


def test_without_rows_for_the_test_nothing_is_measured_and_the_newest_are_learned_from(
    train: Train, tmp_path: Path, config: RunConfig, data: SeriesSet
) -> None:
    measured = train(tmp_path / "run")
    assert (measured.run_path / "window_errors.npy").exists()
    whole = config.data.model_copy(update={"split": SplitConfig(train=0.9, validation=0.1, test=0.0)})
    result = train(tmp_path / "run", config=config.model_copy(update={"data": whole}), overwrite=True)
    assert not [name for name in result.metrics if name.startswith("test/") or name == "time/evaluate_s"]
    assert {path.name for path in result.run_path.iterdir()} == FILES - {"window_errors.npy"}
    (one,), scaler = data.series, load_bundle(result.model_path).scalers[""]
    assert scaler.mean == pytest.approx(one.values[: int(0.9 * len(one))].mean(axis=0))
    assert train(tmp_path / "run", config=config.model_copy(update={"data": whole}), resume=True).was_complete


def of_checkpoint(path: Path, prefix: str, bundle: Bundle) -> dict[str, torch.Tensor]:
    """The weights of the network called ``prefix`` in a checkpoint, their scales taken up as in a model."""
    state = torch.load(path, weights_only=True)["state_dict"]
    network = build_network(bundle.config.model, bundle.num_channels)
    network.load_state_dict({name: state[f"{prefix}.{name}"] for name in network.state_dict()})
    absorb_scales(network)
    return network.state_dict()


def test_the_model_has_the_weights_of_the_best_epoch(
    train: Train, tmp_path: Path, data: SeriesSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([3.0, 1.0, 2.0])
    monkeypatch.setattr(ForecastingModule, "epoch_losses", lambda self: {"train/loss": 1.0, "val/loss": next(losses)})
    result = train(tmp_path / "run")
    assert (result.best_epoch, result.num_epochs, result.metrics["val/best_loss"]) == (2, 3, 1.0)
    assert (tmp_path / "run/checkpoints/step-00000010.ckpt").exists()
    bundle = load_bundle(result.model_path)
    expected = of_checkpoint(tmp_path / "run/checkpoints/step-00000010.ckpt", "_average.network", bundle)
    weights = bundle.network.state_dict()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weight, expected[name]) for name, weight in weights.items())
    kept = torch.load(tmp_path / "run/checkpoints/step-00000010.ckpt", weights_only=True)["state_dict"]
    assert kept.keys() == {f"{of}.{name}" for of in ("network", "_average.network") for name in weights}


def test_no_step_of_the_model_has_a_scale_but_one(reference: FitResult) -> None:
    weights = load_bundle(reference.model_path).network.state_dict()
    scales = [weight for name, weight in weights.items() if name.endswith(".scale")]
    assert scales
    assert all(scale == 1 for scale in scales)


def test_without_an_average_the_model_has_the_weights_of_the_step(
    train: Train, tmp_path: Path, config: RunConfig
) -> None:
    result = train(tmp_path / "run", config=changed(config, "train", ema_decay=0.0, max_epochs=1))
    (checkpoint,) = (tmp_path / "run/checkpoints").glob("*.ckpt")
    bundle = load_bundle(result.model_path)
    expected = of_checkpoint(checkpoint, "network", bundle)
    weights = bundle.network.state_dict()
    kept = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert kept.keys() == {f"network.{name}" for name in weights}
    assert all(torch.equal(weight, expected[name]) for name, weight in weights.items())


def test_metrics_are_those_of_the_saved_model_on_the_test_split(reference: FitResult, data: SeriesSet) -> None:
    evaluation = evaluate(load_bundle(reference.model_path), data, batch_size=29)
    for name, value in evaluation.metrics.items():
        assert reference.metrics[f"test/{name}"] == value, name
    assert {"test/coverage_80", "test/width_95", "test/winkler_95_scaled"} <= set(reference.metrics)
    document = json.loads((reference.run_path / "metrics.json").read_text())
    assert document["metrics"] == dict(reference.metrics)
    assert document["per_channel"].keys() == set(data.channels)
    assert [epoch["epoch"] for epoch in document["epochs"]] == [1, 2, 3]


def test_the_validation_loss_is_the_mean_over_all_validation_windows(reference: FitResult, data: SeriesSet) -> None:
    evaluation = evaluate(load_bundle(reference.model_path), data, split="validation")
    assert reference.metrics["val/best_loss"] == pytest.approx(evaluation.metrics["mae_scaled"], rel=1e-5)


def test_the_loaded_model_forecasts_what_the_trained_one_does(
    train: Train, tmp_path: Path, data: SeriesSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    write = outcome.save_bundle
    monkeypatch.setattr(
        outcome, "save_bundle", lambda path, bundle, **options: (made.append(bundle), write(path, bundle, **options))
    )
    result = train(tmp_path / "run")
    ours, loaded = (Forecaster(bundle).forecast(data.series[0]) for bundle in (*made, load_bundle(result.model_path)))
    assert np.array_equal(ours.values, loaded.values)
    assert np.array_equal(ours.values, Forecaster(made[0]).forecast(data.series[0]).values), "dropout is off"


def test_pictures_are_drawn(train: Train, tmp_path: Path, config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    train(tmp_path / "run", config=changed(config, "train", max_epochs=1))
    for name in ("forecast.png", "loss.png"):
        assert (tmp_path / "run" / name).read_bytes().startswith(b"\x89PNG"), name


def test_a_forecast_that_cannot_be_drawn_does_not_spoil_the_run(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise DataError(Code.TIME, "the calendar ends")

    monkeypatch.setattr(outcome.Forecaster, "forecast", fail)
    result = train(tmp_path / "run")
    assert "no plot of a forecast: the calendar ends" in caplog.text
    assert result.model_path.exists()


def test_notes_and_epochs_are_shown_and_nothing_else(
    train: Train, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path / "run", progress=True)
    captured = capfd.readouterr()
    lines = captured.err.splitlines()
    assert captured.out == ""
    assert lines[0] == "stanhop: a note"
    assert [line.split("  ")[0] for line in lines[1:]] == [f"stanhop: epoch {number}/3" for number in (1, 2, 3)]


def test_without_progress_nothing_is_shown(train: Train, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    train(tmp_path / "run")
    assert capfd.readouterr() == ("", "")


def test_random_generators_of_the_caller_are_left_alone(train: Train, tmp_path: Path) -> None:
    before = (random.getstate(), torch.get_rng_state())
    train(tmp_path / "run")
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])


def test_training_helps(train: Train, tmp_path: Path, config: RunConfig) -> None:
    result = train(tmp_path / "run", config=changed(config, "train", start="mean"))
    epochs = json.loads((result.run_path / "metrics.json").read_text())["epochs"]
    assert epochs[-1]["training_loss"] < 0.95 * epochs[0]["training_loss"]


@pytest.mark.parametrize("loss", ["mse", "huber"])
def test_every_loss_trains(loss: str, train: Train, tmp_path: Path, config: RunConfig) -> None:
    result = train(tmp_path / "run", config=changed(config, "train", loss=loss, max_epochs=1))
    assert math.isfinite(result.metrics["val/best_loss"])


def test_bfloat16_trains(train: Train, tmp_path: Path, config: RunConfig) -> None:
    result = train(tmp_path / "run", config=changed(config, "train", precision="bf16-mixed", max_epochs=1))
    assert math.isfinite(result.metrics["test/mse"])


def test_one_window_of_one_channel_one_step_ahead_trains(train: Train, tmp_path: Path, data: SeriesSet) -> None:
    (series,) = data.series
    short = Series(id="", times=series.times[:10], values=series.values[:10, :1].copy(), channels=series.channels[:1])
    config = RunConfig(
        data=DataConfig(split=SplitConfig(train=8, validation=1, test=1)),
        model=ModelConfig(context_length=7, prediction_length=1, patch_length=7, model_dim=2, num_heads=1),
        tracking=TrackingConfig(enabled=False),
    )
    result = train(tmp_path / "run", config=config, series_set=SeriesSet.of((short,), data.layout))
    assert result.metrics["test/num_windows"] == 1


def test_training_ends_when_patience_does(
    train: Train, tmp_path: Path, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([1.0, 2.0, 3.0, 4.0, 5.0])
    monkeypatch.setattr(ForecastingModule, "epoch_losses", lambda self: {"train/loss": 1.0, "val/loss": next(losses)})
    result = train(tmp_path / "run", config=changed(config, "train", max_epochs=5, patience=2))
    assert (result.num_epochs, result.best_epoch) == (3, 1)


# --- the same again ---------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bits(train: Train, tmp_path: Path, reference: FitResult) -> None:
    torch.rand(7)
    assert_same_end(train(tmp_path / "run"), reference)


def test_another_seed_gives_others(train: Train, tmp_path: Path, reference: FitResult, config: RunConfig) -> None:
    result = train(tmp_path / "run", config=changed(config, "train", seed=6))
    assert (result.run_path / WEIGHTS).read_bytes() != (reference.run_path / WEIGHTS).read_bytes()


@pytest.mark.parametrize(
    ("step", "number"),
    [(1, signal.SIGTERM), (4, signal.SIGTERM), (5, signal.SIGTERM), (7, signal.SIGINT), (15, signal.SIGTERM)],
    ids=["first", "last but one of an epoch", "last of an epoch", "mid-epoch", "last"],
)
def test_a_signal_saves_and_the_resumed_run_ends_the_same(
    step: int,
    number: signal.Signals,
    train: Train,
    tmp_path: Path,
    reference: FitResult,
    signal_at_step: Callable[..., None],
) -> None:
    signal_at_step(step, number)
    with pytest.raises(StoppedError, match=f"{number.name} after step {step}, in epoch") as caught:
        train(tmp_path / "run")
    assert caught.value.exit_code == 128 + number
    assert f"--resume --output {tmp_path / 'run'}" in caught.value.message
    assert_same_end(train(tmp_path / "run", resume=True), reference)


def test_a_run_interrupted_again_and_again_ends_the_same(
    train: Train, tmp_path: Path, reference: FitResult, signal_at_step: Callable[..., None]
) -> None:
    for step in (2, 3, 9):
        signal_at_step(step)
        with pytest.raises(StoppedError):
            train(tmp_path / "run", resume=step > 2)
    assert_same_end(train(tmp_path / "run", resume=True), reference)


def test_a_signal_in_validation_waits_for_its_end(
    train: Train, tmp_path: Path, reference: FitResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = ForecastingModule.validation_step

    def validation_step(self: ForecastingModule, batch: Any, batch_index: int) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        original(self, batch, batch_index)

    with monkeypatch.context() as patch:
        patch.setattr(ForecastingModule, "validation_step", validation_step)
        with pytest.raises(StoppedError, match="after step 5, in epoch 1"):
            train(tmp_path / "run")
    assert_same_end(train(tmp_path / "run", resume=True), reference)


def test_a_signal_before_the_first_step_leaves_no_folder(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = fit_module.SeriesDataModule

    def datamodule(*arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return made(*arguments)

    monkeypatch.setattr(fit_module, "SeriesDataModule", datamodule)
    with pytest.raises(StoppedError, match=r"stopped by SIGTERM before training began$"):
        train(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_crash_keeps_the_last_checkpoint_and_the_resumed_run_ends_the_same(
    train: Train, tmp_path: Path, reference: FitResult, at_step: AtStep
) -> None:
    def crash() -> None:
        raise ZeroDivisionError("a defect")

    at_step(8, crash)
    with pytest.raises(ZeroDivisionError):
        train(tmp_path / "run")
    assert [path.name for path in (tmp_path / "run/checkpoints").glob("*.ckpt")] == ["step-00000005.ckpt"]
    assert_same_end(train(tmp_path / "run", resume=True), reference)


def test_a_run_that_ended_before_its_first_checkpoint_can_be_started_again(
    train: Train, tmp_path: Path, reference: FitResult, at_step: AtStep
) -> None:
    def crash() -> None:
        raise ZeroDivisionError("a defect")

    at_step(3, crash)
    with pytest.raises(ZeroDivisionError):
        train(tmp_path / "run")
    with pytest.raises(ModelError, match="there is no checkpoint to go on from"):
        train(tmp_path / "run", resume=True)
    assert_same_end(train(tmp_path / "run"), reference)


def test_long_epochs_are_saved_in_between(
    train: Train, tmp_path: Path, reference: FitResult, at_step: AtStep, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash() -> None:
        raise ZeroDivisionError("a defect")

    at_step(8, crash)
    with monkeypatch.context() as patch:
        patch.setattr(saving, "INTERVAL_S", 0.0)
        with pytest.raises(ZeroDivisionError):
            train(tmp_path / "run")
    assert (tmp_path / "run/checkpoints/step-00000007.ckpt").exists()
    assert_same_end(train(tmp_path / "run", resume=True), reference)


def test_a_run_killed_between_the_last_epoch_and_the_end_is_finished_by_resuming(
    train: Train, tmp_path: Path, reference: FitResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a defect")

    with monkeypatch.context() as patch:
        patch.setattr(outcome, "evaluate", crash)
        with pytest.raises(ZeroDivisionError):
            train(tmp_path / "run")
    result = train(tmp_path / "run", resume=True)
    assert_same_end(result, reference)
    assert not result.was_complete
    assert result.metrics["test/mse"] == reference.metrics["test/mse"]


def test_a_damaged_checkpoint_is_passed_over(
    train: Train, tmp_path: Path, reference: FitResult, signal_at_step: Callable[..., None], caplog: Any
) -> None:
    signal_at_step(12)
    with pytest.raises(StoppedError):
        train(tmp_path / "run")
    newest = tmp_path / "run/checkpoints/step-00000012.ckpt"
    newest.write_bytes(newest.read_bytes()[:-100])
    assert_same_end(train(tmp_path / "run", resume=True), reference)
    assert "step-00000012.ckpt is missing or damaged" in caplog.text


def test_resuming_a_complete_run_does_nothing(train: Train, tmp_path: Path, config: RunConfig) -> None:
    first = train(tmp_path / "run", config=changed(config, "train", max_epochs=1))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*") if path.name != ".lock"}
    again = train(tmp_path / "run", config=changed(config, "train", max_epochs=1), resume=True)
    assert again.was_complete
    assert not first.was_complete
    assert (again.metrics, again.best_epoch, again.num_epochs) == (first.metrics, 1, 1)
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*") if path.name != ".lock"}
    assert after == before


# --- what it refuses --------------------------------------------------------------------------------------------------


def test_resuming_with_other_settings_or_data_names_the_differences(
    train: Train, tmp_path: Path, config: RunConfig, data: SeriesSet, signal_at_step: Callable[..., None]
) -> None:
    signal_at_step(3)
    with pytest.raises(StoppedError):
        train(tmp_path / "run")
    (series,) = data.series
    values = series.values.copy()
    values[0, 0] += 1
    other = SeriesSet.of((Series(id="", times=series.times, values=values, channels=series.channels),), data.layout)
    with pytest.raises(ModelError) as caught:
        train(tmp_path / "run", resume=True, config=changed(config, "train", learning_rate=0.5), series_set=other)
    assert caught.value.exit_code == 2
    assert "train.learning_rate was 0.01 and is now 0.5" in caught.value.message
    assert other.fingerprint[:12] in caught.value.message


@pytest.mark.parametrize("exists", [False, True])
def test_resuming_nothing_is_refused(exists: bool, train: Train, tmp_path: Path) -> None:
    if exists:
        (tmp_path / "run").mkdir()
    with pytest.raises(ModelError, match="there is no checkpoint to go on from") as caught:
        train(tmp_path / "run", resume=True)
    assert caught.value.exit_code == 2
    assert list(tmp_path.rglob("*")) == ([tmp_path / "run"] if exists else [])


def test_a_run_is_not_replaced_unless_asked(train: Train, tmp_path: Path, config: RunConfig) -> None:
    short = changed(config, "train", max_epochs=1)
    train(tmp_path / "run", config=config)
    before = (tmp_path / "run" / WEIGHTS).read_bytes()
    with pytest.raises(OutputError, match="exists already"):
        train(tmp_path / "run", config=short)
    assert (tmp_path / "run" / WEIGHTS).read_bytes() == before
    result = train(tmp_path / "run", config=short, overwrite=True)
    assert (result.num_epochs, (tmp_path / "run" / WEIGHTS).read_bytes() == before) == (1, False)
    assert [path.name for path in (tmp_path / "run/checkpoints").glob("*.ckpt")] == ["step-00000005.ckpt"]
    assert {path.name for path in (tmp_path / "run").iterdir()} == FILES


def test_a_folder_that_is_no_run_is_never_replaced(train: Train, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match=r"is not the folder of a run, or holds other things \(thesis.tex\)"):
        train(tmp_path, overwrite=True)
    with pytest.raises(OutputError, match="exists already"):
        train(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is not a folder"):
        train(tmp_path / "file")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "thesis.tex"]


def test_a_configuration_that_somebody_put_there_is_not_replaced(train: Train, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        train(tmp_path / "run")
    assert (tmp_path / "run" / "config.yaml").read_text() == "mine"


def test_a_folder_in_which_another_process_trains_is_refused(train: Train, tmp_path: Path) -> None:
    with locked(tmp_path / "run" / ".lock"), pytest.raises(MachineError, match="another process is at work here"):
        train(tmp_path / "run")


def test_a_folder_that_cannot_be_written_is_refused_before_the_first_step(
    train: Train, tmp_path: Path, at_step: AtStep
) -> None:
    at_step(1, lambda: pytest.fail("it trained"))
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError) as caught:
        train(tmp_path / "file" / "run")
    assert caught.value.exit_code == 4


def test_a_series_too_short_for_the_split_is_refused_with_the_numbers(
    train: Train, tmp_path: Path, config: RunConfig
) -> None:
    with pytest.raises(DataError, match=r"the train split of the series has 149 of 213 rows") as caught:
        train(tmp_path / "run", config=changed(config, "model", context_length=147))
    assert caught.value.exit_code == 2
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_on_a_machine_without_is_refused(train: Train, tmp_path: Path, config: RunConfig) -> None:
    with pytest.raises(UsageError, match="no CUDA device") as caught:
        train(tmp_path / "run", config=changed(config, "train", device="cuda"))
    assert caught.value.exit_code == 2
    assert not (tmp_path / "run").exists()


def test_float16_on_a_cpu_is_refused(train: Train, tmp_path: Path, config: RunConfig) -> None:
    with pytest.raises(ConfigError, match=r"train\.precision is 16-mixed, which needs a CUDA device"):
        train(tmp_path / "run", config=changed(config, "train", precision="16-mixed"))


def test_a_loss_that_is_not_finite_ends_training_and_keeps_the_last_sound_checkpoint(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = ForecastingModule.training_step

    def training_step(self: ForecastingModule, batch: Any, batch_index: int) -> Any:
        loss = original(self, batch, batch_index)
        return loss * math.nan if self.trainer.global_step == 7 else loss

    with monkeypatch.context() as patch:
        patch.setattr(ForecastingModule, "training_step", training_step)
        with pytest.raises(DivergedError, match="the gradient is nan at step 8 of epoch 2") as caught:
            train(tmp_path / "run")
    assert caught.value.exit_code == 5
    weights = torch.load(tmp_path / "run/checkpoints/step-00000005.ckpt", weights_only=True)["state_dict"]
    assert all(bool(weight.isfinite().all()) for weight in weights.values())
    assert not (tmp_path / "run/model").exists()


def test_too_high_a_learning_rate_never_ends_well(train: Train, tmp_path: Path, config: RunConfig) -> None:
    with pytest.raises(DivergedError):
        train(tmp_path / "run", config=changed(config, "train", learning_rate=1e30))


# --- how it is recorded -----------------------------------------------------------------------------------------------


def recorded(folder: Path) -> dict[str, Any]:
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    (row,) = mlflow.search_runs(experiment_names=["stanhop"]).to_dict("records")
    return {str(key): value for key, value in row.items()}


def tracked(config: RunConfig) -> RunConfig:
    return changed(config, "tracking", enabled=True)


def test_a_run_can_be_found_and_repeated_from_mlflow_alone(
    train: Train, tracking_folder: Path, config: RunConfig, data: SeriesSet
) -> None:
    result = train(tracking_folder / "run", config=tracked(config))
    row = recorded(tracking_folder)
    assert (row["run_id"], row["status"], row["tags.mlflow.runName"]) == (result.run_id, "FINISHED", "run")
    assert (row["params.model.dropout"], row["params.train.seed"]) == (str(config.model.dropout), "5")
    assert row["tags.stanhop.dataset_sha256"] == data.fingerprint
    for name, value in result.metrics.items():
        assert row[f"metrics.{name}"] == pytest.approx(value), name
    client = mlflow.MlflowClient()
    for name in ("train/loss", "val/loss", "train/learning_rate", "time/epoch_s"):
        assert [entry.step for entry in client.get_metric_history(row["run_id"], name)] == [1, 2, 3], name
    kept = tracking_folder / "mlruns" / row["run_id"] / "artifacts"
    assert {path.name for path in kept.iterdir()} == FILES - {"checkpoints", ".lock"}
    assert load_bundle(kept / "model").fingerprint == data.fingerprint
    assert resolve([file_layer(kept / "config.yaml")]) == tracked(config)


def test_an_interrupted_run_is_killed_and_its_record_taken_up_again(
    train: Train, tracking_folder: Path, config: RunConfig, signal_at_step: Callable[..., None]
) -> None:
    signal_at_step(7)
    with pytest.raises(StoppedError):
        train(tracking_folder / "run", config=tracked(config))
    assert recorded(tracking_folder)["status"] == "KILLED"
    result = train(tracking_folder / "run", config=tracked(config), resume=True)
    row = recorded(tracking_folder)
    assert (row["run_id"], row["status"]) == (result.run_id, "FINISHED")
    history = mlflow.MlflowClient().get_metric_history(row["run_id"], "val/loss")
    assert [entry.step for entry in history] == [1, 2, 3]


def test_an_epoch_recorded_before_its_checkpoint_was_safe_is_not_recorded_twice(
    train: Train, tracking_folder: Path, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Journal.on_train_epoch_end

    def crash_after_second(self: Journal, *arguments: Any) -> None:
        original(self, *arguments)
        if len(self.epochs) == 2:
            raise ZeroDivisionError("a defect")

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "on_train_epoch_end", crash_after_second)
        with pytest.raises(ZeroDivisionError):
            train(tracking_folder / "run", config=tracked(config))
    assert recorded(tracking_folder)["status"] == "FAILED"
    result = train(tracking_folder / "run", config=tracked(config), resume=True)
    history = mlflow.MlflowClient().get_metric_history(str(result.run_id), "val/loss")
    assert [entry.step for entry in history] == [1, 2, 3]


def test_a_broken_tracking_store_is_refused_and_leaves_no_folder(
    train: Train, tmp_path: Path, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mlflow.db").write_bytes(b"not a database " * 100)
    with pytest.raises(MachineError, match="--no-tracking") as caught:
        train(tmp_path / "run", config=tracked(config))
    assert (caught.value.code, caught.value.exit_code) == (Code.TRACKING, 4)
    assert not (tmp_path / "run").exists()


def test_a_server_that_is_down_does_not_keep_from_training_and_its_password_is_nowhere(
    train: Train,
    tmp_path: Path,
    config: RunConfig,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    remote = changed(config, "tracking", enabled=True, uri="http://ada:secret@127.0.0.1:9")
    result = train(tmp_path / "run", config=changed(remote, "train", max_epochs=1))
    assert str(result.run_id).startswith("unsent-")
    assert "what is to be recorded is kept in" in caplog.text
    assert len(list((tmp_path / "mlflow-unsent").iterdir())) == 1
    assert "secret" not in caplog.text
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or b"secret" not in path.read_bytes(), path
    with pytest.raises(MachineError):
        train(tmp_path / "other", config=remote, require_tracking=True)
    assert not (tmp_path / "other").exists()
