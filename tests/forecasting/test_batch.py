"""Many files in, one table each out: what is written, refused, kept and made again."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from stanhop.config import DataConfig
from stanhop.errors import Code, DataError, MachineError, OutputError, UsageError
from stanhop.forecasting import batch
from stanhop.forecasting.batch import Event, RefusedInputsError, forecast_files, resolve_inputs
from stanhop.forecasting.bundle import Bundle, load_bundle, save_bundle
from stanhop.forecasting.forecaster import Forecaster
from stanhop.forecasting.intervals import Prediction
from stanhop.series.load import read_series_file
from stanhop.storage import locked, write_bytes

CONTEXT, STEPS = 37, 11
NAMES = tuple(f"s{number}" for number in range(5))


@pytest.fixture
def folder(write_wide: Callable[..., Path], tmp_path: Path) -> Path:
    """Three files that can be forecast, one of them in a folder of its own."""
    write_wide(tmp_path / "in" / "a.csv", seed=1)
    write_wide(tmp_path / "in" / "b.csv", seed=2, time_column="when")
    write_wide(tmp_path / "in" / "sub" / "a.csv", seed=3)
    return tmp_path / "in"


def contents_of(root: Path) -> dict[str, bytes]:
    """Every file below ``root`` but the lock, by its relative path."""
    paths = [path for path in sorted(root.rglob("*")) if path.is_file() and path.name != "lock"]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


def errors_of(root: Path) -> list[dict[str, str]]:
    with (root / "errors.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def spoil(path: Path) -> Path:
    """A file that is refused at its line 3."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("ds,flow,level,rain\n2021-03-04 00:00:00,1,2,3\n2021-03-04 01:00:00,1,x,3\n")
    return path


# Inputs


def test_files_folders_and_patterns_are_resolved_each_file_once(folder: Path) -> None:
    (folder / "notes.txt").write_text("no table")
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "c.csv").write_text("")
    expected = ["a.csv", "b.csv", "sub/a.csv"]
    for patterns in ([folder], [folder, folder / "a.csv"], [folder / "**" / "*.csv"], [folder / "b.csv", folder]):
        found = resolve_inputs(patterns)
        assert [file.relative.as_posix() for file in found] == expected
        assert [file.path for file in found] == [folder / name for name in expected]


def test_outputs_keep_the_paths_below_the_deepest_common_folder(folder: Path) -> None:
    def relatives(*patterns: Path) -> list[str]:
        return [file.relative.as_posix() for file in resolve_inputs(patterns)]

    assert relatives(folder / "sub" / "a.csv") == ["a.csv"]
    assert relatives(folder / "a.csv", folder / "sub" / "a.csv") == ["a.csv", "sub/a.csv"]
    assert relatives(folder / "sub", folder / "b.csv") == ["b.csv", "sub/a.csv"]
    assert relatives(folder / "s*" / "a.csv") == ["sub/a.csv"]


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(write_wide: Callable[..., Path], tmp_path: Path) -> None:
    path = write_wide(tmp_path / "a[1].csv")
    assert [file.path for file in resolve_inputs([path])] == [path]


def test_paths_are_spelled_as_they_were_given(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert [str(file.path) for file in resolve_inputs(["a.csv", "sub"])] == ["a.csv", "sub/a.csv"]


@pytest.mark.parametrize(("pattern", "match"), [("*.parquet", "matches no file"), ("empty", "holds no CSV or Parquet")])
def test_patterns_and_folders_without_files_are_refused(folder: Path, pattern: str, match: str) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match=match):
        resolve_inputs([folder / pattern])


def test_no_patterns_are_refused() -> None:
    with pytest.raises(UsageError, match="no input files"):
        resolve_inputs([])


# Outputs


def test_each_file_gets_a_table_of_what_the_forecaster_says(bundle_path: Path, folder: Path, tmp_path: Path) -> None:
    result = forecast_files(bundle_path, [folder], tmp_path / "out")
    assert [path.relative_to(tmp_path / "out").as_posix() for path in result.written] == ["a.csv", "b.csv", "sub/a.csv"]
    assert not result.skipped
    assert not result.refused
    assert not (tmp_path / "out" / "errors.csv").exists()
    forecaster = Forecaster(load_bundle(bundle_path))
    for name, time_column in (("a.csv", "ds"), ("b.csv", "when"), ("sub/a.csv", "ds")):
        frame = pd.read_csv(tmp_path / "out" / name, float_precision="round_trip")
        assert list(frame.columns) == [time_column, "flow", "level", "rain"]
        series = read_series_file(folder / name, DataConfig(time_column=time_column)).series[0]
        forecast = forecaster.forecast(series)
        assert np.array_equal(frame[["flow", "level", "rain"]], forecast.values)
        assert pd.to_datetime(frame[time_column]).tolist() == list(forecast.times)


def test_a_long_file_gets_a_long_table(
    make_bundle: Callable[..., Bundle], write_long: Callable[..., Path], tmp_path: Path
) -> None:
    source = write_long(tmp_path / "in.csv", NAMES)
    forecast_files(make_bundle(ids=NAMES[:2]), [source], tmp_path / "out", batch_size=2)
    frame = pd.read_csv(tmp_path / "out" / "in.csv")
    assert list(frame.columns) == ["unique_id", "ds", "flow", "level", "rain"]
    assert frame["unique_id"].tolist() == [name for name in NAMES for _ in range(STEPS)]


def test_a_single_file_can_be_written_to_a_single_file(bundle: Bundle, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "deep" / "forecast.parquet"
    assert forecast_files(bundle, [folder / "a.csv"], output).written == (output,)
    assert len(pd.read_parquet(output)) == STEPS
    with pytest.raises(UsageError, match="only the forecast of a single file"):
        forecast_files(bundle, [folder], tmp_path / "forecast.csv")
    with pytest.raises(UsageError, match="only the forecast of a single file"):
        forecast_files(bundle, [folder / "a.csv", folder / "b.csv"], tmp_path / "forecast.csv")
    with pytest.raises(UsageError, match="not named as a parquet file"):
        forecast_files(bundle, [folder / "a.csv"], tmp_path / "forecast.csv", table_format="parquet")
    assert not (tmp_path / "forecast.csv").exists()


def test_the_format_is_that_of_the_input_unless_asked_for(bundle: Bundle, folder: Path, tmp_path: Path) -> None:
    pd.read_csv(folder / "a.csv").to_parquet(folder / "c.parquet")
    (folder / "d.txt").write_bytes((folder / "a.csv").read_bytes())
    inputs = [folder / "a.csv", folder / "c.parquet", folder / "d.txt"]
    forecast_files(bundle, inputs, tmp_path / "own")
    assert {"a.csv", "c.parquet", "d.csv"} <= set(contents_of(tmp_path / "own"))
    forecast_files(bundle, inputs, tmp_path / "parquet", table_format="parquet")
    assert {"a.parquet", "c.parquet", "d.parquet"} <= set(contents_of(tmp_path / "parquet"))
    frames = [pd.read_parquet(tmp_path / "parquet" / name) for name in ("a.parquet", "d.parquet")]
    pd.testing.assert_frame_equal(*frames)


def test_options_of_reading_are_those_of_the_training_unless_given(
    make_bundle: Callable[..., Bundle], folder: Path, tmp_path: Path
) -> None:
    text = (folder / "a.csv").read_text().replace(",", ";")
    (folder / "a.csv").write_text(text)
    with pytest.raises(DataError, match="--sep"):
        forecast_files(make_bundle(), [folder / "a.csv"], tmp_path / "out")
    forecast_files(make_bundle(), [folder / "a.csv"], tmp_path / "out", data=DataConfig(separator=";"))
    assert (tmp_path / "out" / "a.csv").exists()


def test_ids_that_look_like_formulas_are_escaped_unless_raw(
    make_bundle: Callable[..., Bundle], write_long: Callable[..., Path], tmp_path: Path
) -> None:
    source = write_long(tmp_path / "in.csv", ("=a", "b"))
    bundle = make_bundle(ids=("b",))
    for raw_ids, expected in ((False, ["'=a", "b"]), (True, ["=a", "b"])):
        forecast_files(bundle, [source], tmp_path / "out", raw_ids=raw_ids)
        frame = pd.read_csv(tmp_path / "out" / "in.csv")
        assert frame["unique_id"].unique().tolist() == expected


def test_plots_are_written_if_asked_for_and_go_when_they_are_not(bundle: Bundle, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    forecast_files(bundle, [folder / "a.csv"], output, plot=True)
    assert (output / "a.png").read_bytes().startswith(b"\x89PNG")
    assert forecast_files(bundle, [folder / "a.csv"], output, plot=True).skipped
    assert forecast_files(bundle, [folder / "a.csv"], output).skipped  # the table is as asked for
    assert (output / "a.png").exists()
    forecast_files(bundle, [folder / "a.csv"], output, raw_ids=True)  # the table is made again, the picture is not
    assert not (output / "a.png").exists()


def test_the_wait_for_a_file_is_reported(bundle: Bundle, folder: Path, tmp_path: Path) -> None:
    spoil(folder / "bad.csv")
    events: list[Event] = []
    with pytest.raises(RefusedInputsError):
        forecast_files(bundle, [folder], tmp_path / "out", progress=events.append)
    assert [(event.source.relative.as_posix(), event.outcome) for event in events] == [
        ("a.csv", "written"),
        ("b.csv", "written"),
        ("bad.csv", "refused"),
        ("sub/a.csv", "written"),
    ]
    assert [(event.done, event.total) for event in events] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert "59 rows" in events[0].notes[0]
    assert "bad.csv:3" in events[2].notes[0]


# What is never overwritten


def test_an_output_never_overwrites_an_input(bundle: Bundle, folder: Path, tmp_path: Path) -> None:
    before = contents_of(tmp_path)
    for inputs, output in (([folder], folder), ([folder / "a.csv"], folder / "a.csv")):
        with pytest.raises(OutputError, match="overwrite an input"):
            forecast_files(bundle, inputs, output, overwrite=True)
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(OutputError, match="overwrite an input"):
        forecast_files(bundle, [folder], tmp_path / "link", overwrite=True)
    assert contents_of(tmp_path) == before


def test_two_inputs_never_share_an_output(bundle: Bundle, folder: Path, tmp_path: Path) -> None:
    pd.read_csv(folder / "a.csv").to_parquet(folder / "a.parquet")
    with pytest.raises(OutputError, match="would both be written here"):
        forecast_files(bundle, [folder], tmp_path / "out", table_format="csv")
    (folder / "b.csv").rename(folder / "errors.csv")
    (folder / "a.parquet").unlink()
    with pytest.raises(OutputError, match="the list of refused inputs"):
        forecast_files(bundle, [folder], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_of_somebody_else_is_replaced_only_if_asked_for(bundle: Bundle, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / "a.csv").write_text("mine")
    with pytest.raises(OutputError, match=r"was not written by this command.*--overwrite") as caught:
        forecast_files(bundle, [folder / "a.csv"], output)
    assert caught.value.exit_code == 2
    assert contents_of(tmp_path / "out") == {"a.csv": b"mine"}
    assert list(output.iterdir()) == [output / "a.csv"]
    with pytest.raises(RefusedInputsError):  # the others have their forecasts
        forecast_files(bundle, [folder], output)
    assert (output / "a.csv").read_text() == "mine"
    assert (output / "b.csv").exists()
    forecast_files(bundle, [folder], output, overwrite=True)
    assert (output / "a.csv").read_text().startswith("ds,")
    assert not (output / "errors.csv").exists()


def test_a_list_of_errors_of_somebody_else_is_not_replaced(bundle: Bundle, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "errors.csv").write_text("mine")
    with pytest.raises(OutputError, match=r"errors\.csv.*exists already"):
        forecast_files(bundle, [folder], tmp_path / "out")
    assert contents_of(tmp_path / "out") == {"errors.csv": b"mine"}


def test_a_symlink_in_the_way_is_replaced_and_not_followed(bundle: Bundle, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "out" / "a.csv").symlink_to(tmp_path / "precious")
    with pytest.raises(OutputError, match="was not written by this command"):
        forecast_files(bundle, [folder / "a.csv"], tmp_path / "out")
    forecast_files(bundle, [folder / "a.csv"], tmp_path / "out", overwrite=True)
    assert (tmp_path / "precious").read_text() == "mine"
    assert not (tmp_path / "out" / "a.csv").is_symlink()


def test_outputs_below_a_folder_of_inputs_are_not_taken_for_inputs(bundle: Bundle, folder: Path) -> None:
    spoil(folder / "bad.csv")
    for _ in range(2):
        with pytest.raises(RefusedInputsError, match=r"1 of 4 inputs were refused, 3 have their forecasts"):
            forecast_files(bundle, [folder], folder / "out")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_to_is_an_error_of_the_machine(
    bundle: Bundle, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir(mode=0o500)
    with pytest.raises(MachineError, match="cannot write"):
        forecast_files(bundle, [folder], tmp_path / "out")


def test_a_file_in_place_of_the_output_folder_is_refused_before_computing(
    bundle: Bundle, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Forecaster, "forecast", None)
    (tmp_path / "out").write_text("mine")
    with pytest.raises(MachineError) as caught:
        forecast_files(bundle, [folder], tmp_path / "out")
    assert caught.value.exit_code == 4


def test_two_batches_do_not_work_in_one_folder_at_once(bundle: Bundle, folder: Path, tmp_path: Path) -> None:
    with locked(tmp_path / "out" / ".stanhop" / "lock"), pytest.raises(MachineError, match="another process"):
        forecast_files(bundle, [folder], tmp_path / "out")
    forecast_files(bundle, [folder], tmp_path / "out")


# Bad inputs


def test_bad_inputs_are_listed_and_all_others_written(bundle: Bundle, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    spoil(folder / "sub" / "bad.csv")
    (folder / "=short.csv").write_text("".join((folder / "a.csv").read_text().splitlines(keepends=True)[:20]))
    with pytest.raises(RefusedInputsError, match=r"2 of 5 inputs were refused.*errors\.csv") as caught:
        forecast_files(bundle, [folder], output)
    assert caught.value.exit_code == 3
    result = caught.value.result
    assert len(result.written) == 3
    assert [refusal.source.relative.as_posix() for refusal in result.refused] == ["=short.csv", "sub/bad.csv"]
    short, bad = errors_of(output)
    assert short["file"] == "'=short.csv"
    assert short["code"] == Code.LENGTH
    assert "needs 37 points, has 19" in short["message"]
    assert (bad["file"], bad["line"], bad["column"], bad["code"]) == ("sub/bad.csv", "3", "level", Code.VALUE)
    assert "'x' is not a number" in bad["message"]


def test_the_list_of_errors_goes_when_the_inputs_are_mended(bundle: Bundle, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    bad = spoil(folder / "bad.csv")
    for _ in range(2):
        with pytest.raises(RefusedInputsError):
            forecast_files(bundle, [folder], output)
    bad.write_bytes((folder / "a.csv").read_bytes())
    result = forecast_files(bundle, [folder], output)
    assert [path.name for path in result.written] == ["bad.csv"]
    assert not (output / "errors.csv").exists()


def test_nothing_is_left_behind_when_all_inputs_are_bad(bundle: Bundle, tmp_path: Path) -> None:
    spoil(tmp_path / "in" / "a.csv")
    (tmp_path / "in" / "b.csv").write_text("")
    with pytest.raises(
        DataError, match=r"a\.csv:3: column 'level': none of the 2 inputs .* 'x' is not a number"
    ) as error:
        forecast_files(bundle, [tmp_path / "in"], tmp_path / "out")
    assert error.value.exit_code == 2
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match="none of the 2 inputs"):
        forecast_files(bundle, [tmp_path / "in"], tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_single_bad_input_is_refused_with_its_own_error(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.csv: no such file"):
        forecast_files(bundle, [tmp_path / "none.csv"], tmp_path / "out")
    bad = spoil(tmp_path / "bad.csv")
    with pytest.raises(DataError, match=r"bad\.csv:3: column 'level': 'x'") as caught:
        forecast_files(bundle, [bad], tmp_path / "out")
    assert (caught.value.file, caught.value.line, caught.value.column) == (str(bad), 3, "level")
    assert list(tmp_path.iterdir()) == [bad]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda frame: frame.rename(columns={"rain": "snow"}), Code.CHANNELS),
        (lambda frame: frame.assign(ds=pd.date_range("2021", periods=len(frame), freq="D")), Code.FREQUENCY),
    ],
)
def test_a_file_that_does_not_fit_the_model_is_refused_by_name(
    bundle: Bundle, folder: Path, tmp_path: Path, change: Callable[[pd.DataFrame], pd.DataFrame], code: Code
) -> None:
    change(pd.read_csv(folder / "a.csv")).to_csv(folder / "a.csv", index=False)
    with pytest.raises(DataError) as caught:
        forecast_files(bundle, [folder / "a.csv"], tmp_path / "out")
    assert caught.value.code == code
    assert caught.value.file == str(folder / "a.csv")


def test_a_forecast_that_is_not_finite_is_listed_and_not_written(
    bundle: Bundle, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict = Forecaster.predict_all
    calls: list[int] = []

    def spoiled(self: Forecaster, contexts: np.ndarray) -> Prediction:
        calls.append(1)
        return Prediction(predict(self, contexts).forecast * (np.inf if len(calls) == 2 else 1))

    monkeypatch.setattr(Forecaster, "predict_all", spoiled)
    with pytest.raises(RefusedInputsError):
        forecast_files(bundle, [folder], tmp_path / "out")
    (error,) = errors_of(tmp_path / "out")
    assert error["file"] == "b.csv"
    assert "NaN or infinite" in error["message"]
    assert not (tmp_path / "out" / "b.csv").exists()


def test_an_input_that_may_not_be_read_does_not_stop_the_others(
    bundle: Bundle, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = batch.read_bytes

    def forbidden(path: Path) -> bytes:
        if path.name == "b.csv":
            raise MachineError(Code.ENVIRONMENT, "cannot be read: Permission denied", file=path)
        return read(path)

    monkeypatch.setattr(batch, "read_bytes", forbidden)
    with pytest.raises(RefusedInputsError, match="1 of 3"):
        forecast_files(bundle, [folder], tmp_path / "out")


def test_a_full_disk_stops_the_batch(
    bundle: Bundle, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = batch.write_bytes
    calls: list[Path] = []

    def full(path: Path, content: bytes) -> None:
        calls.append(path)
        if len(calls) == 2:
            raise MachineError(Code.ENVIRONMENT, "cannot write: No space left on device", file=path)
        write(path, content)

    monkeypatch.setattr(batch, "write_bytes", full)
    with pytest.raises(MachineError, match="No space left"):
        forecast_files(bundle, [folder], tmp_path / "out")
    assert {name for name in contents_of(tmp_path / "out") if not name.startswith(".")} == {"a.csv"}
    monkeypatch.undo()
    result = forecast_files(bundle, [folder], tmp_path / "out")
    assert (len(result.skipped), len(result.written)) == (1, 2)


# Starting again


def test_a_finished_batch_has_nothing_to_do(bundle: Bundle, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    forecast_files(bundle, [folder], output)
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*") if path.is_file() and path.name != "lock"}
    result = forecast_files(bundle, [folder], output)
    assert (len(result.skipped), len(result.written)) == (3, 0)
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_only_the_input_that_changed_is_done_again(
    bundle: Bundle, folder: Path, write_wide: Callable[..., Path], tmp_path: Path
) -> None:
    forecast_files(bundle, [folder], tmp_path / "out")
    (folder / "a.csv").touch()
    write_wide(folder / "b.csv", seed=17, time_column="when")
    result = forecast_files(bundle, [folder], tmp_path / "out")
    assert [path.name for path in result.written] == ["b.csv"]


def test_another_model_or_option_makes_all_again(
    bundle: Bundle, make_bundle: Callable[..., Bundle], folder: Path, tmp_path: Path
) -> None:
    def written(model: Bundle, **options: object) -> int:
        return len(forecast_files(model, [folder], tmp_path / "out", **options).written)

    assert written(bundle) == 3
    assert written(make_bundle(seed=1)) == 3
    assert written(make_bundle(seed=1), batch_size=3) == 3
    assert written(make_bundle(seed=1), batch_size=3, raw_ids=True) == 3
    assert written(make_bundle(seed=1), batch_size=3, raw_ids=True, data=DataConfig(frequency="h")) == 3
    assert written(make_bundle(seed=1), batch_size=3, raw_ids=True, data=DataConfig(frequency="h")) == 0


def test_another_number_of_threads_makes_all_again(bundle: Bundle, folder: Path, tmp_path: Path) -> None:
    forecast_files(bundle, [folder], tmp_path / "out")
    torch.set_num_threads(2)
    try:
        assert len(forecast_files(bundle, [folder], tmp_path / "out").written) == 3
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("damage", [b"", b"ds,flow\n", None])
def test_a_damaged_output_is_made_again_with_a_note(
    bundle: Bundle, folder: Path, tmp_path: Path, damage: bytes | None
) -> None:
    output = tmp_path / "out"
    forecast_files(bundle, [folder], output)
    before = contents_of(output)
    if damage is None:
        (output / "a.csv").unlink()
    else:
        (output / "a.csv").write_bytes(damage)
    events: list[Event] = []
    result = forecast_files(bundle, [folder], output, progress=events.append)
    assert [path.name for path in result.written] == ["a.csv"]
    assert contents_of(output) == before
    assert any("was not as it had been written" in note for note in events[0].notes) == (damage is not None)


def test_lost_records_are_made_again_from_equal_outputs(
    bundle: Bundle, make_bundle: Callable[..., Bundle], folder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    forecast_files(bundle, [folder], output)
    before = contents_of(output)
    times = {path: path.stat().st_mtime_ns for path in output.glob("*.csv")}
    for number, path in enumerate(sorted((output / ".stanhop").glob("*.json"))):
        path.write_bytes(b"{") if number else path.unlink()
    forecast_files(bundle, [folder], output)
    assert contents_of(output) == before
    assert times == {path: path.stat().st_mtime_ns for path in times}
    for path in (output / ".stanhop").glob("*.json"):
        path.unlink()
    with pytest.raises(DataError, match=r"none of the 3 inputs .* was not written by this command"):
        forecast_files(make_bundle(seed=1), [folder], output)


def test_the_order_of_files_and_their_company_change_no_byte(
    bundle: Bundle, folder: Path, write_long: Callable[..., Path], tmp_path: Path
) -> None:
    write_long(folder / "long.csv", NAMES)
    forecast_files(bundle, [folder], tmp_path / "all")
    for name in ("long.csv", "b.csv", "a.csv"):
        forecast_files(bundle, [folder / name], tmp_path / "apart")
    forecast_files(bundle, [folder / "sub"], tmp_path / "apart" / "sub")
    whole = contents_of(tmp_path / "all")
    for name in ("long.csv", "b.csv", "a.csv", "sub/a.csv"):
        assert (tmp_path / "apart" / name).read_bytes() == whole[name]


# Kills

# It imports once and forks for each batch, which takes a tenth of a second and not three.
NURSERY = """
import os, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from stanhop.forecasting.batch import RefusedInputsError, forecast_files
for line in sys.stdin:
    if os.fork():
        os.wait()
        print("ended", flush=True)
        continue
    print(os.getpid(), flush=True)
    try:
        tell = lambda event: print(event.outcome, flush=True)
        forecast_files(sys.argv[1], [sys.argv[2]], Path(line.strip()), progress=tell)
    except RefusedInputsError:
        pass
    os._exit(0)
"""


class Nursery:
    """Runs batches in processes of their own, and kills some."""

    def __init__(self, model: Path, source: Path) -> None:
        command = [sys.executable, "-c", NURSERY, str(model), str(source)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def run(self, output: Path, *, kill_after: int | None = None, delay_s: float = 0.0) -> list[str]:
        """The outcomes of a batch; it is killed ``delay_s`` seconds after ``kill_after`` files."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{output}\n")
        self.process.stdin.flush()
        child, outcomes = int(self.line()), []
        while True:
            if len(outcomes) == kill_after:
                time.sleep(delay_s)
                os.kill(child, signal.SIGKILL)
            said = self.line()
            if said == "ended":
                return outcomes
            outcomes.append(said)

    def close(self) -> None:
        self.process.communicate(timeout=30)
        assert self.process.returncode == 0


def test_a_batch_that_is_killed_and_started_again_ends_with_the_same_bytes(
    bundle_path: Path, write_wide: Callable[..., Path], tmp_path: Path
) -> None:
    source, whole, killed = tmp_path / "in", tmp_path / "whole", tmp_path / "killed"
    for number in range(40):
        write_wide(source / f"{number % 3}" / f"{number}.csv", seed=number)
    spoil(source / "bad.csv")
    nursery = Nursery(bundle_path, source)
    assert nursery.run(whole) == ["written"] * 40 + ["refused"]
    random = np.random.default_rng()
    for kill_after in (0, 3, 7, 12, 20):
        outcomes = nursery.run(killed, kill_after=kill_after, delay_s=float(random.uniform(0, 0.03)))
        assert len(outcomes) < 41, "the kill missed"
    outcomes = nursery.run(killed)
    nursery.close()
    assert 20 <= outcomes.count("skipped") < 40
    assert contents_of(killed) == contents_of(whole)  # nothing lost, doubled or left over


class KilledError(BaseException):
    """Stands in for SIGKILL: nothing catches it."""


@pytest.fixture
def dies_at_write(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], AbstractContextManager[None]]:
    """Within the context, the given number of writes (of outputs and records) ends the process."""

    @contextmanager
    def dying(stop: int) -> Iterator[None]:
        writes: list[Path] = []

        def write(path: Path, content: bytes, **options: bool) -> None:
            writes.append(path)
            if len(writes) == stop:
                raise KilledError
            write_bytes(path, content, **options)

        with monkeypatch.context() as patch, suppress(KilledError, RefusedInputsError):
            patch.setattr("stanhop.forecasting.batch.write_bytes", write)
            patch.setattr("stanhop.forecasting.records.write_bytes", write)
            yield

    return dying


@pytest.mark.parametrize("is_same_model", [True, False])
def test_a_batch_may_die_at_any_write_and_be_finished_by_the_same_or_another_model(
    make_bundle: Callable[..., Bundle],
    folder: Path,
    tmp_path: Path,
    dies_at_write: Callable[[int], AbstractContextManager[None]],
    is_same_model: bool,
) -> None:
    spoil(folder / "bad.csv")
    finisher = make_bundle(seed=0 if is_same_model else 1)
    with pytest.raises(RefusedInputsError):
        forecast_files(finisher, [folder], tmp_path / "whole")
    for stop in range(1, 10):  # 2 writes for each of 3 files and for the list of refused ones
        output = tmp_path / f"out{stop}"
        with dies_at_write(stop):
            forecast_files(make_bundle(seed=0), [folder], output)
        with pytest.raises(RefusedInputsError, match="1 of 4 inputs were refused, 3 have"):
            forecast_files(finisher, [folder], output)
        assert contents_of(output) == contents_of(tmp_path / "whole")


def test_temporaries_of_dead_processes_are_removed(bundle: Bundle, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    forecast_files(bundle, [folder], output)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait(timeout=30)
    host = "".join(character if character.isalnum() else "_" for character in os.uname().nodename)
    for place in (output, output / "sub", output / ".stanhop"):
        (place / f".tmp-{host}-{dead.pid}-00000000").write_bytes(b"half")
    before = set(contents_of(output))
    forecast_files(bundle, [folder], output)
    assert len(before - set(contents_of(output))) == 3


def test_a_model_directory_is_read_once_for_all_files(
    bundle: Bundle, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_bundle(tmp_path / "model", bundle)
    loads: list[Path] = []

    def load(path: Path) -> Bundle:
        loads.append(path)
        return load_bundle(path)

    monkeypatch.setattr(batch, "load_bundle", load)
    forecast_files(tmp_path / "model", [folder], tmp_path / "out")
    assert len(loads) == 1


def test_bounds_are_written_beside_each_forecast_and_made_anew_when_asked_for(
    interval_bundle: Bundle, folder: Path, tmp_path: Path
) -> None:
    first = forecast_files(interval_bundle, [folder / "a.csv"], tmp_path / "out")
    second = forecast_files(interval_bundle, [folder / "a.csv"], tmp_path / "out", levels=(80.0,))
    assert (len(first.written), len(second.written), len(second.skipped)) == (1, 1, 0)
    frame = pd.read_csv(tmp_path / "out" / "a.csv")
    assert list(frame.columns)[1:4] == ["flow", "flow-lo-80", "flow-hi-80"]
    assert (frame["rain-lo-80"] < frame["rain"]).all()
    assert (frame["rain"] < frame["rain-hi-80"]).all()
    again = forecast_files(interval_bundle, [folder / "a.csv"], tmp_path / "out", levels=(80.0,))
    assert (len(again.written), len(again.skipped)) == (0, 1)
