"""``stanhop outliers``: the table, the files it writes and what MLflow keeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from stanhop.config import TrackingConfig
from stanhop.tracking.store import open_store


def test_figures_come_as_a_table_as_files_and_as_json(trained: Path, run: Any, tmp_path: Path) -> None:
    arguments = ("outliers", "--model", trained / "model", "--output", tmp_path / "report")
    answer = run(*arguments, "--outputs", "norms")
    assert answer.code == 0, answer.err
    assert answer.out.splitlines()[0].split()[:3] == ["output", "kind", "inf-norm"]
    document = json.loads((tmp_path / "report" / "outliers.json").read_text())
    assert document["summary"]["blocks"]["num_outputs"] == 2
    assert document["num_windows"] > 0
    assert (tmp_path / "report" / "outliers.png").read_bytes().startswith(b"\x89PNG")
    assert run(*arguments).code == 2, "what is there is not overwritten unasked"
    assert run(*arguments, "--overwrite", "--format", "json").document["summary"] == document["summary"]


def test_a_run_in_mlflow_keeps_figures_table_and_plot(trained: Path, run: Any, tracking_folder: Path) -> None:
    answer = run("outliers", "--model", trained / "model", "--tracking", "--format", "json")
    assert answer.code == 0, answer.err
    store = open_store(TrackingConfig(), folder=tracking_folder)
    assert store is not None
    recorded = store.client.get_run(answer.document["run_id"])
    assert recorded.info.status == "FINISHED"
    value = answer.document["summary"]["all"]["max_inf_norm"]
    assert recorded.data.metrics["outliers/all/max_inf_norm"] == value
    names = {entry.path for entry in store.client.list_artifacts(recorded.info.run_id)}
    assert names == {"outliers.json", "outliers.png"}


def test_a_model_that_shows_nothing_is_refused_and_leaves_no_store(
    trained: Path, run: Any, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stanhop.quantization.outliers.OnnxNetwork", nn.Module)  # every network is taken for a file
    refused = run("outliers", "--model", trained / "model", "--tracking")
    assert refused.code == 2
    assert "inner outputs cannot be seen; give the model that it was made from" in refused.err
    assert not list(elsewhere.iterdir())


def test_outputs_that_the_network_lacks_are_refused_and_nothing_is_written(
    trained: Path, run: Any, tmp_path: Path, elsewhere: Path
) -> None:
    arguments = ("--outputs", "decoder", "--output", tmp_path / "report", "--tracking")
    refused = run("outliers", "--model", trained / "model", *arguments)
    assert refused.code == 2
    assert "--outputs: network stanhop has no decoder; choose from blocks, feedforward, norms, all" in refused.err
    assert not (tmp_path / "report").exists()
    assert not list(elsewhere.iterdir())
