"""The trained network combined with the ridge regression: what it forecasts, how the share is chosen, and where."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from stanhop.config import RunConfig
from stanhop.forecasting.bundle import load_bundle
from stanhop.forecasting.evaluation import evaluate
from stanhop.model.network import STanHopNet, build_network
from stanhop.series.datamodule import SeriesDataModule
from stanhop.series.frame import Series, SeriesSet
from stanhop.series.windows import Borders
from stanhop.training import stacking
from stanhop.training.fit import FitResult
from stanhop.training.in_memory import fit_in_memory
from stanhop.training.least_squares import Moments, best_ridge, own_rows, ridge_maps
from stanhop.training.lightning_module import LOSSES
from stanhop.training.stacking import SHARES, linear_forecast, stack

Train = Callable[..., FitResult]


@pytest.fixture
def config(config: RunConfig) -> RunConfig:
    """With stacking."""
    return config.model_copy(update={"train": config.train.model_copy(update={"stacking": True})})


def opened(config: RunConfig, *, scale: float = 0.3, **model: object) -> STanHopNet:
    """A network whose every parameter matters."""
    torch.manual_seed(4)
    network = build_network(config.model.model_copy(update=model), 3)
    assert isinstance(network, STanHopNet)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    if network.reversion is not None:
        network.reversion.begin_as(torch.linspace(0.2, 0.8, config.model.prediction_length), torch.tensor(9.0))
    return network.eval()


def ridge_of(config: RunConfig, data: SeriesSet) -> Tensor:
    return best_ridge(SeriesDataModule(data, config))


@pytest.mark.parametrize("share", [0.0, 0.35, 1.0])
@pytest.mark.parametrize(
    "model",
    [
        {},
        {"joint_rank": 2},
        {"joint_rank": 2, "joint_memories": 3},
        {"instance_norm": False},
        {"head": "quantile"},
        {"mean_reversion": True},
    ],
)
def test_a_shrunk_network_forecasts_the_combination(config: RunConfig, share: float, model: dict[str, object]) -> None:
    network = opened(config, **model).double()
    weight = torch.randn(config.model.prediction_length, config.model.context_length).double()
    context = 2 + torch.randn(5, config.model.context_length, 3).double()
    context[..., 1] = 7.0  # never moves
    shrunk = copy.deepcopy(network)
    shrunk.shrink_towards(weight, share)
    expected = share * network(context) + (1 - share) * linear_forecast(weight, context, network)
    if network.config.instance_norm:
        expected[..., 1] = 7.0
    torch.testing.assert_close(shrunk(context), expected)
    if network.config.head == "quantile":
        forecast, lower, upper = network.with_bounds(context)
        moved = (shrunk(context) - forecast)[:, None]
        torch.testing.assert_close(shrunk.with_bounds(context)[1], lower + moved)
        torch.testing.assert_close(shrunk.with_bounds(context)[2], upper + moved)


def test_the_whole_network_keeps_every_bit(config: RunConfig) -> None:
    network = opened(config)
    before = copy.deepcopy(network.state_dict())
    network.shrink_towards(torch.full_like(network.direct.weight, torch.nan), 1.0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("loss", ["mae", "mse", "huber"])
def test_the_share_has_the_least_loss_on_the_validation_windows(loss: str, config: RunConfig, data: SeriesSet) -> None:
    config = config.model_copy(update={"train": config.train.model_copy(update={"loss": loss})})
    ridge = ridge_of(config, data)
    moments = Moments.of(own_rows(SeriesDataModule(data, config).val_dataloader(), instance_norm=True))
    (best,) = ridge_maps(moments, ridge, [1e-3])
    network = opened(config)
    network.begin_as_linear(ridge + 2 * (best - ridge))  # as far beyond what is best as the regression is short of it
    plain = copy.deepcopy(network)
    chosen = stack(network, SeriesDataModule(data, config))
    assert chosen is not None
    context, target = (torch.cat(parts) for parts in zip(*SeriesDataModule(data, config).val_dataloader(), strict=True))
    with torch.no_grad():
        linear = linear_forecast(ridge, context, plain)
        losses = [float(LOSSES[loss](linear + s * (plain(context) - linear), target)) for s in SHARES]
        assert chosen.share == SHARES[int(np.argmin(losses))]
        assert 0 < chosen.share < 1
        assert chosen.validation_loss == pytest.approx(min(losses), rel=1e-5)
        assert float(LOSSES[loss](network(context), target)) == pytest.approx(min(losses), rel=1e-5)


def test_a_network_that_is_the_regression_is_kept_whole(config: RunConfig, data: SeriesSet) -> None:
    network = opened(config)
    network.begin_as_linear(ridge_of(config, data))
    before = copy.deepcopy(network.state_dict())
    chosen = stack(network, SeriesDataModule(data, config))
    assert chosen is not None
    torch.testing.assert_close(network.state_dict(), before)


def test_what_only_does_harm_is_left_out(config: RunConfig, data: SeriesSet) -> None:
    network = opened(config, scale=3.0)
    chosen = stack(network, SeriesDataModule(data, config))
    assert chosen is not None
    assert chosen.share == 0
    torch.testing.assert_close(network.direct.weight.detach(), ridge_of(config, data))
    assert not any(read_out.linear.weight.any() for read_out in network.read_outs)  # type: ignore[union-attr]


def published(config: RunConfig) -> RunConfig:
    keys = {"network": "published_outeffhop", "channel_embedding": False, "instance_norm": False, "merge_size": 1}
    return config.model_copy(update={"model": config.model.model_copy(update=keys)})


def without(config: RunConfig) -> RunConfig:
    return config.model_copy(update={"train": config.train.model_copy(update={"stacking": False})})


@pytest.mark.parametrize("change", [published, without, lambda config: config])
def test_where_there_is_nothing_to_combine_the_network_stays(
    change: Callable[[RunConfig], RunConfig], config: RunConfig, data: SeriesSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = change(config)
    if changed is config:
        monkeypatch.setattr(stacking, "LONGEST_CONTEXT", config.model.context_length - 1)
    network = build_network(changed.model, 3)
    before = copy.deepcopy(network.state_dict())
    assert stack(network, SeriesDataModule(data, changed)) is None
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_without_validation_windows_the_network_stays(config: RunConfig, data: SeriesSet) -> None:
    def all_rows(series: Series) -> Borders:
        return Borders(range(len(series)), range(0), range(0))

    combined = fit_in_memory(config, data, borders_of=all_rows)
    plain = fit_in_memory(without(config), data, borders_of=all_rows)
    for name, tensor in plain.network.state_dict().items():
        assert torch.equal(combined.network.state_dict()[name], tensor), name


def test_a_training_keeps_the_combination_and_says_so(
    train: Train, config: RunConfig, data: SeriesSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (one,) = data.series
    noise = np.random.default_rng(8).normal(size=one.values.shape)  # what is learned of it is of no use
    data = SeriesSet.of((Series("", one.times, noise, one.channels),), data.layout)
    result = train(tmp_path / "run", series_set=data, progress=True)
    plain = train(tmp_path / "plain", series_set=data, config=without(config))
    share, loss = (result.metrics[f"val/{name}"] for name in ("network_share", "stacked_loss"))
    assert 0 <= share < 1
    assert loss < result.metrics["val/best_loss"] == plain.metrics["val/best_loss"]
    assert f"{share:.0%} network" in capsys.readouterr().err
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["metrics"]["val/network_share"] == share
    assert not {"val/network_share", "val/stacked_loss"} & plain.metrics.keys()
    found = evaluate(load_bundle(result.model_path), data, split="validation").metrics["mae_scaled"]
    assert found == pytest.approx(loss, rel=1e-4)
    kept, trained = (load_bundle(each.model_path).network for each in (result, plain))
    assert isinstance(trained, STanHopNet)
    trained.shrink_towards(ridge_of(config, data), share)
    torch.testing.assert_close(kept.state_dict(), trained.state_dict())
