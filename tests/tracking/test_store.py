"""The tracking store: its place, its first opening, and what is said when it cannot be used."""

from __future__ import annotations

import logging
import os
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest

from stanhop.config import TrackingConfig
from stanhop.errors import Code, ConfigError, MachineError, render
from stanhop.tracking import store as store_module
from stanhop.tracking.run import start_run
from stanhop.tracking.store import open_store, store_uri

NO_TRACKING = "--no-tracking"


@pytest.fixture
def silent_server() -> Iterator[str]:
    """The address of a server that takes connections and never answers."""
    with closing(socket.socket()) as server:
        server.bind(("127.0.0.1", 0))
        server.listen(5)
        yield f"http://ada:secret@127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def closed_port() -> str:
    """The address of nobody."""
    with closing(socket.socket()) as server:
        server.bind(("127.0.0.1", 0))
        return f"http://ada:secret@127.0.0.1:{server.getsockname()[1]}"


def test_the_store_is_mlflow_db_in_the_current_folder_and_artifacts_lie_beside_it(tracking_folder: Path) -> None:
    opened = open_store(TrackingConfig(experiment="mine"), folder=tracking_folder)
    assert opened is not None
    with closing(sqlite3.connect("mlflow.db")) as database:
        found = database.execute("SELECT artifact_location FROM experiments WHERE name = 'mine'").fetchall()
    assert found == [((tracking_folder / "mlruns").as_uri(),)]


@pytest.mark.slow
def test_mlflow_finds_the_runs_by_itself(tracking_folder: Path) -> None:
    start_run(open_store(TrackingConfig(), folder=tracking_folder), name="mine", tags={}).finish("FINISHED")
    code = "import mlflow; print(*mlflow.search_runs(experiment_names=['stanhop'])['tags.mlflow.runName'])"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    shown = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert shown.stdout.split() == ["mine"]


def test_an_old_folder_of_runs_does_not_become_the_store(tracking_folder: Path) -> None:
    old = tracking_folder / "mlruns" / "0"
    old.mkdir(parents=True)
    (old / "meta.yaml").write_text("experiment_id: 0\n")
    opened = open_store(TrackingConfig(), folder=tracking_folder)
    assert opened is not None
    assert opened.client.tracking_uri == f"sqlite:///{tracking_folder}/mlflow.db"


def test_an_experiment_is_made_once(tracking_folder: Path) -> None:
    first, second = (open_store(TrackingConfig(), folder=tracking_folder) for _ in range(2))
    assert first is not None
    assert second is not None
    assert first.experiment_id == second.experiment_id


@pytest.mark.parametrize("name", ["100%41", "why?", "with space", "ünïcode", "hash#tag"])
def test_a_folder_may_have_any_name(name: str, tmp_path: Path, migrated_database: Path) -> None:
    folder = tmp_path / name
    folder.mkdir()
    (folder / "mlflow.db").write_bytes(migrated_database.read_bytes())
    opened = open_store(TrackingConfig(experiment="mine"), folder=folder)
    assert opened is not None
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        ((location,),) = database.execute("SELECT artifact_location FROM experiments WHERE name = 'mine'").fetchall()
    assert unquote(urlparse(location).path) == str(folder / "mlruns")


@pytest.mark.parametrize("uri", ["./mlruns", "file:///tmp/mlruns", "mlruns", "ftp://there", "sqlite:mlflow.db", ""])
def test_an_address_that_is_no_store_is_refused(uri: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no database and no server") as caught:
        store_uri(TrackingConfig(uri=uri), folder=tmp_path)
    assert caught.value.code is Code.TRACKING


@pytest.mark.parametrize(
    "uri", ["sqlite:///other.db", "http://there:5000", "postgresql+psycopg2://u:p@h/d", "databricks"]
)
def test_an_address_of_a_store_is_taken_as_it_is(uri: str, tmp_path: Path) -> None:
    assert store_uri(TrackingConfig(uri=uri), folder=tmp_path) == uri


def test_a_file_that_is_no_database_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"not a database " * 100)
    began_s = time.monotonic()
    with pytest.raises(MachineError, match="cannot be used: file is not a database") as caught:
        open_store(TrackingConfig(), folder=tmp_path)
    assert time.monotonic() - began_s < 5
    assert (caught.value.code, caught.value.exit_code) == (Code.TRACKING, 4)
    assert "move it away" in caught.value.message
    assert NO_TRACKING in caught.value.message


def test_a_database_of_another_version_is_refused(tracking_folder: Path) -> None:
    with closing(sqlite3.connect("mlflow.db")) as database:
        database.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
        database.commit()
    with pytest.raises(MachineError, match=r"out-of-date database schema") as caught:
        open_store(TrackingConfig(), folder=tracking_folder)
    assert NO_TRACKING in caught.value.message


def test_a_database_that_was_half_made_is_refused(tracking_folder: Path) -> None:
    with closing(sqlite3.connect("mlflow.db")) as database:
        database.execute("DROP TABLE alembic_version")
        database.execute("DROP TABLE trace_info")
        database.commit()
    with pytest.raises(MachineError, match="cannot be used") as caught:
        open_store(TrackingConfig(), folder=tracking_folder)
    assert caught.value.file == str(tracking_folder / "mlflow.db")


def test_a_deleted_experiment_is_named(tracking_folder: Path) -> None:
    opened = open_store(TrackingConfig(experiment="gone"), folder=tracking_folder)
    assert opened is not None
    opened.client.delete_experiment(opened.experiment_id)
    with pytest.raises(MachineError, match=r"experiment 'gone' was deleted.*mlflow experiments restore -x \d+"):
        open_store(TrackingConfig(experiment="gone"), folder=tracking_folder)


def test_a_server_that_is_down_is_a_warning(closed_port: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        opened = open_store(TrackingConfig(uri=closed_port), folder=tmp_path)
    assert not opened.is_reachable
    assert f"what is to be recorded is kept in {tmp_path / 'mlflow-unsent'}" in caplog.text
    assert "secret" not in caplog.text


def test_a_server_that_never_answers_does_not_hold_up_training(
    silent_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(store_module, "START_TIMEOUT_S", 0.5)
    began_s = time.monotonic()
    assert not open_store(TrackingConfig(uri=silent_server), folder=tmp_path).is_reachable
    assert time.monotonic() - began_s < 3
    assert "no answer within" in caplog.text
    assert "secret" not in caplog.text


def test_the_wait_for_a_server_is_ten_seconds_at_most() -> None:
    assert store_module.START_TIMEOUT_S <= 10


def test_a_required_server_that_is_down_is_an_error(closed_port: str, tmp_path: Path) -> None:
    with pytest.raises(MachineError) as caught:
        open_store(TrackingConfig(uri=closed_port), folder=tmp_path, is_required=True)
    assert (caught.value.code, caught.value.exit_code) == (Code.TRACKING, 4)
    assert "secret" not in render(caught.value)
    assert NO_TRACKING in render(caught.value)


def test_without_mlflow_the_way_out_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name == "mlflow" or name.startswith("mlflow.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(MachineError, match=f"MLflow cannot be imported.*{NO_TRACKING}"):
        open_store(TrackingConfig(), folder=tmp_path)


def test_mlflow_is_told_to_keep_quiet_unless_the_user_wants_otherwise(
    tracking_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY", raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    open_store(TrackingConfig(), folder=tracking_folder)
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"


FIRST_START = """
import sys
from pathlib import Path
from stanhop.config import TrackingConfig
from stanhop.tracking.run import start_run
from stanhop.tracking.store import open_store
sys.stdin.readline()
run = start_run(open_store(TrackingConfig(), folder=Path(sys.argv[1])), name=sys.argv[2], tags={})
run.log_metrics({"val/loss": 1.0}, step=1)
run.finish("FINISHED")
"""


@pytest.mark.slow
def test_six_first_starts_at_once_all_succeed(tmp_path: Path) -> None:
    starts = [
        subprocess.Popen(
            [sys.executable, "-c", FIRST_START, str(tmp_path), str(number)], stdin=subprocess.PIPE, text=True
        )
        for number in range(6)
    ]
    for start in starts:
        assert start.stdin is not None
        start.stdin.write("go\n")
        start.stdin.flush()
    codes = [start.wait(timeout=300) for start in starts]
    for start in starts:
        assert start.stdin is not None
        start.stdin.close()
    assert codes == [0] * 6
    opened = open_store(TrackingConfig(), folder=tmp_path)
    assert opened is not None
    runs = opened.client.search_runs([opened.experiment_id])
    assert {(run.info.run_name, run.info.status) for run in runs} == {(str(n), "FINISHED") for n in range(6)}
