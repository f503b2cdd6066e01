"""``benchmarks/gpu.py``: it needs little, resumes, and every part can be rehearsed without a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import stanhop

SCRIPT = Path(stanhop.__file__).parent.parent / "benchmarks" / "gpu.py"
ALLOWED = """
import sys
for name in ("pydantic", "yaml", "typer", "mlflow", "pytorch_lightning", "pandas", "sktime", "matplotlib", "entmax"):
    sys.modules[name] = None
"""

pytestmark = pytest.mark.skipif(not SCRIPT.exists(), reason="an installed package has no benchmarks beside it")


def call(*arguments: str | Path, prelude: str = "", timeout: float = 500) -> subprocess.CompletedProcess[str]:
    """Run the script in a process of its own, after ``prelude``."""
    code = f"{prelude}\nimport runpy, sys\nsys.argv = {[str(SCRIPT), *map(str, arguments)]}\n"
    code += f"runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=timeout, env=environment, check=False
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without CUDA")
def test_without_cuda_it_says_so_and_what_can_be_done() -> None:
    answer = call()
    assert answer.returncode == 4
    assert "--rehearse" in answer.stderr


def test_an_unknown_part_is_refused() -> None:
    answer = call("kernel")
    assert answer.returncode == 2
    assert "no part is called ['kernel']" in answer.stderr


@pytest.mark.slow
def test_every_part_can_be_rehearsed_and_is_not_done_twice(tmp_path: Path) -> None:
    answer = call("--rehearse", "--output", tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert "a rehearsal: these figures mean nothing" in answer.stdout
    assert {path.name for path in tmp_path.iterdir()} >= {
        *("correctness.json", "kernels.json", "kernels.txt", "training.json", "goals.json", "roofline.txt"),
    }
    goals = {goal["name"]: goal for goal in json.loads((tmp_path / "goals.json").read_text())["goals"]}
    assert {f"G{number}" for number in range(1, 18)} <= set(goals)
    assert goals["G13b"]["value"] > 0
    document = json.loads((tmp_path / "kernels.json").read_text())
    kernels = [record["peers"]["ours, kernels"]["status"] for record in document["records"]]
    assert kernels.count("measured") >= 15, "the kernels ran in the interpreter"
    again = call("--rehearse", "--output", tmp_path)
    assert again.returncode == 0
    assert " of " not in "".join(line for line in again.stdout.splitlines(keepends=True) if "float32\n" in line)


@pytest.mark.slow
def test_correctness_and_kernels_need_torch_triton_and_numpy_alone(tmp_path: Path) -> None:
    arguments = ("--rehearse", "--output", tmp_path, "--minutes", "0.02")
    answer = call("correctness", "kernels", *arguments, prelude=ALLOWED)
    assert answer.returncode == 0, answer.stderr
    assert "time is up" in answer.stdout
    lacking = call("training", *arguments, prelude=ALLOWED)
    assert lacking.returncode == 1
    assert "training needs pydantic: pip install pydantic pyyaml" in lacking.stderr


@pytest.mark.slow
def test_the_published_networks_are_trained_once_each_without_mlflow_and_sktime(tmp_path: Path) -> None:
    lacking = "import sys\nfor name in ('mlflow', 'sktime'):\n    sys.modules[name] = None\n"
    arguments = ("full_size", "--rehearse", "--output", tmp_path)
    answer = call(*arguments, prelude=lacking)
    assert answer.returncode == 0, answer.stderr
    found = json.loads((tmp_path / "full_size.json").read_text())["found"]
    assert set(found) == {f"{method}-1" for method in ("softmax", "outeffhop", "clipped_softmax", "clipped_outeffhop")}
    for each in found.values():
        assert each["quantized"]["w8a8"]["mse"] != each["float32"]["mse"]
        assert each["untrained"]["all"]["average_kurtosis"] != each["outliers"]["all"]["average_kurtosis"]
    again = call(*arguments)
    assert again.returncode == 0
    assert "training" not in again.stdout.replace("training step", "")
    assert json.loads((tmp_path / "full_size.json").read_text())["found"] == found


@pytest.mark.slow
def test_larger_networks_are_trained_once_each_and_their_validation_errors_are_kept(tmp_path: Path) -> None:
    arguments = ("sizes", "--rehearse", "--output", tmp_path, "--only", "24-steps-64-wide-2")
    assert call(*arguments).returncode == 0
    assert set(json.loads((tmp_path / "sizes.json").read_text())["found"]) == {"24-steps-64-wide-2-levels-1"}
    answer = call("sizes", "--rehearse", "--output", tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.count("training 24-steps") == 1, "one was done"
    shallow, deep = json.loads((tmp_path / "sizes.json").read_text())["found"].values()
    assert deep["num_levels"] > shallow["num_levels"]
    assert deep["num_parameters"] > shallow["num_parameters"]
    assert 0 < shallow["validation"]["mse"] != shallow["test"]["mse"]
