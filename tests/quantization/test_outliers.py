"""Outlier statistics: the published formulas, what counts as an output, and what scale does to them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch

from stanhop.config import ModelConfig
from stanhop.model.network import build_network
from stanhop.quantization.outliers import inf_norm, kurtosis, kurtosis_scale_free, measure_outliers
from stanhop.quantization.plots import outlier_plot

CONFIG = ModelConfig(
    context_length=37, prediction_length=11, patch_length=5, model_dim=6, num_heads=2, feedforward_dim=7, num_levels=2
)
PUBLISHED = {"network": "published_outeffhop", "channel_embedding": False, "instance_norm": False, "merge_size": 1}


@pytest.fixture(scope="module")
def report() -> object:
    torch.manual_seed(3)
    network = build_network(CONFIG, 3).eval()
    batches = [torch.randn(5, 37, 3), torch.randn(2, 37, 3)]
    return measure_outliers(network, batches)


def test_kurtosis_is_the_published_formula_on_each_sample() -> None:
    samples = np.random.default_rng(1).normal(size=(3, 5, 7)) ** 3
    rows = samples.reshape(3, -1)
    deviation = rows.std(axis=1, ddof=1, keepdims=True)
    expected = ((rows - rows.mean(axis=1, keepdims=True)) ** 4).mean(axis=1) / (deviation[:, 0] ** 4 + 1e-6)
    np.testing.assert_allclose(kurtosis(torch.from_numpy(samples)), expected, rtol=1e-12)


def test_kurtosis_without_the_constant_is_that_of_scipy_but_for_the_unbiased_deviation() -> None:
    rows = np.random.default_rng(1).standard_t(4, size=(3, 35))
    expected = scipy.stats.kurtosis(rows, axis=1, fisher=False) * (34 / 35) ** 2
    np.testing.assert_allclose(kurtosis_scale_free(torch.from_numpy(rows)), expected, rtol=1e-12)


def test_a_gaussian_has_kurtosis_three_and_a_small_scale_hides_it_from_the_published_formula_only() -> None:
    rows = torch.randn(2, 100_003, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert kurtosis(rows).tolist() == pytest.approx([3, 3], abs=0.1)
    assert kurtosis(0.03 * rows).max() < 1.5
    torch.testing.assert_close(kurtosis_scale_free(0.03 * rows), kurtosis_scale_free(rows))


def test_a_constant_sample_has_no_kurtosis() -> None:
    rows = torch.tensor([[4.0, 4.0, 4.0], [0.0, 0.0, 0.0], [0.0, 1.0, 5.0]])
    assert kurtosis_scale_free(rows).isnan().tolist() == [True, True, False]


def test_inf_norm_is_the_largest_magnitude_of_each_sample() -> None:
    assert inf_norm(torch.tensor([[[1.0, -7.0]], [[3.0, 2.0]]])).tolist() == [7.0, 3.0]


def test_one_far_element_raises_both_figures() -> None:
    torch.manual_seed(0)
    rows = torch.randn(1, 1001)
    spiked = rows.clone()
    spiked[0, 17] = 60
    assert kurtosis(spiked) > 100 * kurtosis(rows)
    assert inf_norm(spiked) == 60


def test_statistics_are_means_over_all_windows_of_all_batches(report) -> None:
    torch.manual_seed(3)
    network = build_network(CONFIG, 3).eval()
    seen = []
    network.embedding.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    for batch in (torch.randn(5, 37, 3), torch.randn(2, 37, 3)):
        with torch.inference_mode():
            network(batch)
    (row,) = [output for output in report.outputs if output.name == "embedding"]
    assert report.num_windows == 7
    assert row.inf_norm == pytest.approx(float(inf_norm(torch.cat(seen)).mean()), rel=1e-6)
    assert row.kurtosis == pytest.approx(float(kurtosis(torch.cat(seen)).mean()), rel=1e-6)


def test_each_selection_counts_the_outputs_it_names(report) -> None:
    names = {counted: [row.name for row in report.outputs if counted in row.counted] for counted in ("blocks", "norms")}
    assert names["blocks"] == ["encoder.0.0", "encoder.1.1"]
    assert "read_outs.0.0" in names["norms"]
    assert all(row.kind == "LayerNorm" for row in report.outputs if "norms" in row.counted)
    assert report.summary("feedforward").num_outputs == 4


def test_a_tensor_that_is_only_handed_on_counts_once_among_all(report) -> None:
    repeated = {row.name for row in report.outputs if row.is_repeated}
    assert {"encoder.0", "encoder.0.0", "encoder.0.0.0.dropout", "read_outs.0.1"} <= repeated
    assert not any("all" in row.counted for row in report.outputs if row.is_repeated)
    assert "encoder.0.0.0" not in repeated


def test_projections_of_learned_memories_are_no_activations(report) -> None:
    names = [row.name for row in report.outputs]
    assert not any("learned_memories.hopfield.memory_proj" in name for name in names)
    assert any("learned_memories.hopfield.query_proj" in name for name in names)


@pytest.mark.parametrize("network", ["stanhop", "published_outeffhop"])
def test_what_is_measured_does_not_depend_on_how_many_windows_come_together(network: str) -> None:
    config = CONFIG.model_copy(update=PUBLISHED) if network.startswith("published") else CONFIG
    torch.manual_seed(3)
    built, contexts = build_network(config, 3).eval(), torch.randn(10, 37, 3)
    assert config.num_memories == len(contexts), "as many windows as learned memories"
    together, alone = (measure_outliers(built, contexts.split(size)) for size in (10, 1))
    assert [row.name for row in alone.outputs] == [row.name for row in together.outputs]
    for one, other in zip(alone.outputs, together.outputs, strict=True):
        # The direct path begins as the mean of a standardised context, which is 0 but for rounding.
        assert one.inf_norm == pytest.approx(other.inf_norm, rel=1e-4, abs=1e-6), one.name
    assert not any("memories.memory_proj" in row.name for row in alone.outputs)


def test_of_a_published_network_the_decoder_layers_can_be_counted_too() -> None:
    torch.manual_seed(3)
    network = build_network(CONFIG.model_copy(update=PUBLISHED), 3).eval()
    states: list[torch.Tensor] = []
    network.decoder[1].register_forward_hook(lambda _module, _inputs, output: states.append(output[0]))
    found = measure_outliers(network, [torch.randn(5, 37, 3)])
    counts = {counted: found.summary(counted).num_outputs for counted in found.selections}
    num_blocks = 2 + 3
    norms = 1 + num_blocks + 2 * 3  # of the embedding, each block, each decoder layer
    assert counts == {"blocks": 5, "feedforward": 2 * num_blocks, "norms": norms, "decoder": 3, "all": counts["all"]}
    (row,) = [row for row in found.outputs if row.name == "decoder.1"]
    assert row.inf_norm == pytest.approx(float(inf_norm(states[0]).mean()), rel=1e-6), "its state, not its forecast"


def test_a_network_without_a_decoder_has_no_figures_of_one(report) -> None:
    assert report.selections == ("blocks", "feedforward", "norms", "all")
    assert list(report.to_plain()["summary"]) == list(report.selections)


def test_a_summary_is_the_mean_kurtosis_and_the_largest_norm(report) -> None:
    rows = [row for row in report.outputs if "norms" in row.counted]
    summary = report.summary("norms")
    assert summary.average_kurtosis == pytest.approx(sum(row.kurtosis for row in rows) / len(rows))
    assert summary.max_inf_norm == max(row.inf_norm for row in rows)
    assert report.metrics()["outliers/norms/max_inf_norm"] == summary.max_inf_norm
    assert not any(math.isnan(value) for value in report.metrics().values())


def test_the_plot_is_a_png(report) -> None:
    assert outlier_plot(report, title="a $ title").startswith(b"\x89PNG")
