"""The table of larger networks."""

from __future__ import annotations

from typing import Any

from stanhop.benchmarks.sizes import to_text


def found(model_dim: int, mse: float) -> dict[str, Any]:
    errors = {"mse": mse, "mae": 2 * mse}
    size = {"prediction_length": 24, "model_dim": model_dim, "num_levels": 2, "num_parameters": 100 * model_dim}
    return {**size, "network_share": 0.5, "validation": errors, "test": {"mse": 3 * mse, "mae": 4 * mse}}


def test_a_line_has_the_mean_and_deviation_over_the_seeds_of_a_size() -> None:
    text = to_text({"a": found(64, 0.1), "b": found(128, 0.5), "c": found(64, 0.3)})
    head, narrow, wide = text.splitlines()
    assert head.split()[:4] == ["prediction_length", "num_levels", "model_dim", "num_parameters"]
    assert narrow.split()[:6] == ["24", "2", "64", "6400", "2", "0.50"]
    assert narrow.split()[6:9] == ["0.2000", "±", "0.1414"]
    assert "0.8000 ± 0.5657" in narrow, "the test rows' mean absolute error"
    assert wide.split()[4:] == ["1", "0.50", "0.5000", "1.0000", "1.5000", "2.0000"], "one seed has no deviation"
