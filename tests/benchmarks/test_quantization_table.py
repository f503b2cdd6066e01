"""The table of quantisation: means over seeds, losses of pairs, and what a backend cannot hold."""

from __future__ import annotations

import pytest

from stanhop.benchmarks.network_figures import StepTime
from stanhop.benchmarks.quantization import Errors, Measured
from stanhop.benchmarks.quantization_table import checkpoints, summary, to_markdown

STEPS = {
    name: StepTime(low=seconds - 0.01, median=seconds, high=seconds + 0.01)
    for name, seconds in {"softmax-1": 0.1, "softmax-2": 0.13, "gsh-1": 0.2}.items()
}


def measured(method: str, seed: int, float_mse: float, mse: float, *, onnx: bool) -> Measured:
    return Measured(
        method=method,
        seed=seed,
        training_seconds=70.0,
        float32=Errors(float_mse, 2 * float_mse),
        quantized={"w8a8": Errors(mse, 2 * mse), "int8-onnx": Errors(mse, 2 * mse) if onnx else None},
        outliers={
            "all": {"average_kurtosis": 3.0 + seed, "max_inf_norm": 10.0},
            "norms": {"average_kurtosis": 1.0, "max_inf_norm": 2.0},
        },
    )


MEASURED = [
    measured("softmax", 1, 0.1, 0.11, onnx=True),
    measured("gsh", 1, 0.2, 0.201, onnx=False),
    measured("softmax", 2, 0.4, 0.4, onnx=True),
]


def test_losses_are_those_of_pairs_and_not_of_means() -> None:
    softmax, gsh = summary(MEASURED, STEPS)
    assert (softmax["method"], softmax["seeds"], gsh["seeds"]) == ("softmax", [1, 2], [1])
    change = softmax["quantized"]["w8a8"]["change_percent"]
    assert change["mean"] == pytest.approx((10 + 0) / 2), "of the means it would be 2 %"
    assert change["deviation"] == pytest.approx(10 / 2**0.5)
    assert softmax["mae"]["mean"] == pytest.approx(0.5)
    assert softmax["step_seconds"]["mean"] == pytest.approx(0.115)
    assert gsh["quantized"]["int8-onnx"] is None


def test_the_table_shows_the_selection_that_was_asked_for_and_what_is_absent() -> None:
    header, _, softmax, gsh = to_markdown(summary(MEASURED, STEPS)).splitlines()
    assert header.startswith(
        "| method | seeds | average kurtosis (all) | maximum inf-norm (all) | ms a training step |"
    )
    assert header.endswith("| w8a8: MSE (change) | int8-onnx: MSE (change) |")
    assert softmax == (
        "| softmax | 1, 2 | 4.50 ± 0.71 | 10.00 ± 0.00 | 115.0 ± 21.2 | 0.2500 ± 0.2121 / 0.5000 ± 0.4243 "
        "| 0.2550 (+5.00 ± 7.07 %) | 0.2550 (+5.00 ± 7.07 %) |"
    )
    assert gsh == "| gsh | 1 | 4.00 | 10.00 | 200.0 | 0.2000 / 0.4000 | 0.2010 (+0.50 %) | – |"
    assert "| 1.00 ± 0.00 | 2.00 ± 0.00 |" in to_markdown(summary(MEASURED, STEPS), counted="norms")


def test_every_checkpoint_keeps_its_own_figures() -> None:
    (first, *_), kept = MEASURED, checkpoints(MEASURED, STEPS)
    assert [each["step_seconds"]["median"] for each in kept] == [0.1, 0.2, 0.13]
    assert kept[0]["quantized"]["w8a8"] == {"mse": 0.11, "mae": 0.22}
    assert kept[0]["outliers"] == first.outliers
