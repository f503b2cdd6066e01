"""The regression that the direct path begins with, against its definition and what it is for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from stanhop.config import RunConfig
from stanhop.model.network import STanHopNet, build_network
from stanhop.series.datamodule import SeriesDataModule
from stanhop.series.frame import Series, SeriesSet
from stanhop.series.windows import Borders, borders
from stanhop.training import least_squares, start
from stanhop.training.in_memory import fit_in_memory
from stanhop.training.least_squares import PENALTIES, RANKS, Moments, of_best_rank, own_rows, reduced, ridge_maps
from stanhop.training.lightning_module import ForecastingModule
from stanhop.training.start import begin

CONTEXT, STEPS = 7, 3


def batches(generator: torch.Generator, sizes: tuple[int, ...] = (5, 4, 2)) -> list[tuple[Tensor, Tensor]]:
    """Contexts and targets of 2 channels, far from 0."""
    made = [3 + torch.randn(size, CONTEXT + STEPS, 2, generator=generator) for size in sizes]
    return [(whole[:, :CONTEXT], whole[:, CONTEXT:]) for whole in made]


def rows(given: list[tuple[Tensor, Tensor]], *, norm: bool) -> tuple[np.ndarray, np.ndarray]:
    """Every context and target as a row."""
    pairs = [
        (context[window, :, channel].double().numpy(), target[window, :, channel].double().numpy())
        for context, target in given
        for window in range(len(context))
        for channel in range(2)
    ]
    means = [context.mean() if norm else 0.0 for context, _ in pairs]
    x, y = ([part - mean for part, mean in zip(each, means, strict=True)] for each in zip(*pairs, strict=True))
    return np.stack(x), np.stack(y)


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("penalty", [1e-5, 0.3, 100.0])
def test_it_is_the_least_squares_of_rows_that_pull_it_to_the_prior(norm: bool, penalty: float) -> None:
    generator = torch.Generator().manual_seed(4)
    given = batches(generator)
    prior = torch.randn(STEPS, CONTEXT, generator=generator)
    (weight,) = ridge_maps(Moments.of(own_rows(given, instance_norm=norm)), prior, [penalty])
    x, y = rows(given, norm=norm)
    pull = np.sqrt(penalty * len(x) * (x**2).mean())  # the penalty as rows to fit as well
    fitted = np.linalg.lstsq(
        np.vstack([x, pull * np.eye(CONTEXT)]), np.vstack([y, pull * prior.double().numpy().T]), rcond=None
    )[0]
    np.testing.assert_allclose(weight.numpy(), fitted.T, rtol=1e-5, atol=1e-5)  # windows are float32


@pytest.mark.parametrize("norm", [True, False])
def test_its_error_is_that_of_the_forecasts(norm: bool) -> None:
    generator = torch.Generator().manual_seed(5)
    given, weight = batches(generator), torch.randn(STEPS, CONTEXT, generator=generator).double()
    x, y = rows(given, norm=norm)
    expected = ((y - x @ weight.numpy().T) ** 2).mean()
    assert Moments.of(own_rows(given, instance_norm=norm)).error(weight) == pytest.approx(expected, rel=1e-5)


def test_contexts_that_never_move_leave_the_prior() -> None:
    flat = [(torch.full((4, CONTEXT, 2), 3.0), torch.full((4, STEPS, 2), 3.0))]
    prior = torch.full((STEPS, CONTEXT), 1 / CONTEXT)
    for weight in ridge_maps(Moments.of(own_rows(flat, instance_norm=True)), prior, [1e-5, 1.0]):
        assert torch.equal(weight, prior.double())


def begun(config: RunConfig, data: SeriesSet) -> ForecastingModule:
    """A module whose direct path has begun."""
    torch.manual_seed(1)
    module = ForecastingModule(config, data.channels)
    begin(module, SeriesDataModule(data, config))
    return module


@pytest.mark.parametrize("returns", [True, False], ids=["returns to its level", "stays where it is"])
def test_prior_and_penalty_are_the_best_on_the_validation_windows(
    returns: bool, config: RunConfig, data: SeriesSet
) -> None:
    (one,) = data.series
    noise = np.random.default_rng(4).normal(size=one.values.shape)
    values = noise if returns else noise.cumsum(axis=0)
    data = SeriesSet.of((Series("", one.times, values, one.channels),), data.layout)
    module = begun(config, data)
    datamodule = SeriesDataModule(data, config)
    train, validation = (
        Moments.of(own_rows(loader, instance_norm=True))
        for loader in (datamodule.train_dataloader(), datamodule.val_dataloader())
    )
    mean = torch.full((config.model.prediction_length, config.model.context_length), 1 / config.model.context_length)
    last = torch.eye(config.model.context_length)[-1:].expand_as(mean)
    errors, others = (
        [validation.error(weight) for weight in ridge_maps(train, prior, PENALTIES)]
        for prior in ((mean, last) if returns else (last, mean))
    )
    assert min(errors) < min(others)
    assert isinstance(module.network, STanHopNet)
    assert validation.error(module.network.direct.weight.detach().double()) == pytest.approx(min(errors), rel=1e-5)
    assert errors[0] > 1.01 * min(errors)  # the smallest penalty, best on the windows learned from, is not taken
    for name, weight in module.network.state_dict().items():  # the average begins where the network does
        assert torch.equal(module.trained_network.state_dict()[name], weight), name


def test_the_rest_of_the_network_begins_as_without_it(config: RunConfig, data: SeriesSet) -> None:
    mean = config.model_copy(update={"train": config.train.model_copy(update={"start": "mean"})})
    ours, plain = begun(config, data).network.state_dict(), begun(mean, data).network.state_dict()
    assert [name for name, weight in plain.items() if not torch.equal(ours[name], weight)] == ["direct.weight"]
    assert torch.allclose(plain["direct.weight"], torch.tensor(1 / config.model.context_length))


@pytest.mark.parametrize("start", ["ridge", "mean"])
def test_the_encoder_has_no_say_at_the_start(start: str, config: RunConfig, data: SeriesSet) -> None:
    train = config.train.model_copy(update={"start": start})
    module = begun(config.model_copy(update={"train": train}), data)
    context = torch.randn(5, config.model.context_length, 3, generator=torch.Generator().manual_seed(2))
    for network in (module.network, module.trained_network):  # the average begins where the network does
        assert isinstance(network, STanHopNet)
        standardized = (context - context.mean(1, keepdim=True)) / context.std(1, keepdim=True, correction=0)
        linear = network.direct(standardized.transpose(1, 2)).transpose(1, 2)
        expected = linear * context.std(1, keepdim=True, correction=0) + context.mean(1, keepdim=True)
        torch.testing.assert_close(network.eval()(context), expected, rtol=1e-5, atol=1e-5)


def test_a_random_start_is_left_as_it_was_drawn(config: RunConfig, data: SeriesSet) -> None:
    drawn = config.model_copy(update={"train": config.train.model_copy(update={"start": "random"})})
    torch.manual_seed(1)
    expected = build_network(config.model, 3).state_dict()
    for name, weight in begun(drawn, data).network.state_dict().items():
        assert torch.equal(weight, expected[name]), name


def test_long_contexts_are_left_as_they_begin(
    config: RunConfig, data: SeriesSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "LONGEST_CONTEXT", config.model.context_length - 1)
    direct = begun(config, data).network.get_parameter("direct.weight")
    assert torch.allclose(direct, torch.tensor(1 / config.model.context_length))


def test_a_line_is_forecast_before_the_first_step(config: RunConfig, data: SeriesSet) -> None:
    """What a linear map can know is known after one crawling step; with the mean of the context it is not."""
    (one,) = data.series
    steps = np.arange(len(one))
    values = np.stack([np.sin(2 * np.pi * steps / period) for period in (5, 6, 8)], axis=1)
    waves = SeriesSet.of((Series("", one.times, values, one.channels),), data.layout)
    crawl = {"learning_rate": 1e-12, "max_epochs": 1, "loss": "mse"}

    def loss(**changes: str) -> float:
        train = config.train.model_copy(update=crawl | changes)
        silent = config.model_copy(update={"train": train})
        bundle = fit_in_memory(silent, waves, borders_of=lambda series: borders(len(series), config.data.split))
        assert isinstance(bundle.network, STanHopNet)
        datamodule = SeriesDataModule(waves, silent)
        return Moments.of(own_rows(datamodule.test_dataloader(), instance_norm=True)).error(
            bundle.network.direct.weight.detach().double()
        )

    assert loss() < 1e-4 < 0.1 < loss(start="mean")


def test_without_validation_windows_a_fixed_penalty_is_taken(config: RunConfig, data: SeriesSet) -> None:
    crawl = config.train.model_copy(update={"learning_rate": 1e-12, "max_epochs": 1})
    config = config.model_copy(update={"train": crawl})

    def all_rows(series: Series) -> Borders:
        return Borders(range(len(series)), range(0), range(0))

    bundle = fit_in_memory(config, data, borders_of=all_rows)
    datamodule = SeriesDataModule(data, config, borders_of=all_rows)
    prior = torch.full((config.model.prediction_length, config.model.context_length), 1 / config.model.context_length)
    moments = Moments.of(own_rows(datamodule.train_dataloader(), instance_norm=True))
    (expected,) = ridge_maps(moments, prior, [least_squares.PENALTY_UNSEEN])
    assert torch.allclose(bundle.network.get_parameter("direct.weight").double(), expected, atol=1e-6)


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_the_map_of_a_rank_forecasts_as_much_like_the_whole_one_as_one_can(rank: int) -> None:
    generator = torch.Generator().manual_seed(6)
    x = torch.randn(50, 6, generator=generator).double() @ torch.diag(10.0 ** torch.arange(6).double())
    weight = torch.randn(9, 6, generator=generator).double()
    down, up = reduced(weight, Moments.of([(x, x)]), rank)
    assert (down.shape, up.shape) == ((rank, 6), (9, rank))
    fitted = x @ weight.T
    lost = np.linalg.svd(fitted.numpy(), compute_uv=False)[rank:]
    found = (fitted - x @ (up @ down).T).square().sum().sqrt()
    assert float(found) == pytest.approx(np.sqrt((lost**2).sum()), rel=1e-6, abs=1e-6 * float(fitted.norm()))


def test_inputs_that_never_move_are_left_out_of_a_reduced_map() -> None:
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(7)).double() * torch.tensor([1.0, 0.0, 2.0])
    weight = torch.ones(2, 3, dtype=torch.float64)
    down, up = reduced(weight, Moments.of([(x, x)]), 3)
    torch.testing.assert_close(x @ (up @ down).T, x @ weight.T)
    assert down.isfinite().all()


def waves(generator: torch.Generator, count: int) -> Moments:
    """Those of windows of 48 steps and the 32 after them: a wave of another phase in each, and noise."""
    time = torch.arange(80, dtype=torch.float64)
    phase = 6.3 * torch.rand(count, 1, generator=generator, dtype=torch.float64)
    whole = torch.sin(time / 4 + phase) + torch.randn(count, 80, generator=generator, dtype=torch.float64)
    return Moments.of([(whole[:, :48], whole[:, 48:])])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("has_prior", [True, False])
def test_of_all_ranks_the_best_on_the_validation_windows_is_taken(has_prior: bool, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    train, validation = waves(generator, 100), waves(generator, 100)
    prior = torch.randn(32, 48, generator=generator, dtype=torch.float64) / 10 * has_prior
    maps = ridge_maps(train, prior, PENALTIES)
    ranks = [rank for rank in RANKS if rank < 32]
    bests = []
    for each in maps:
        factors = [reduced(each - prior, train, rank) for rank in ranks]
        bests.append(min((prior + up @ down for down, up in factors), key=validation.error))
        torch.testing.assert_close(of_best_rank([each], prior, train, validation, margin=-np.inf), bests[-1])
    found = of_best_rank(maps, prior, train, validation, margin=-np.inf)
    torch.testing.assert_close(found, min(bests, key=validation.error))
    assert torch.linalg.matrix_rank(found - prior) in ranks


def test_a_lower_rank_forecasts_later_windows_of_a_noisy_wave_better() -> None:
    generator = torch.Generator().manual_seed(9)
    train, validation, later = (waves(generator, 100) for _ in range(3))
    prior = torch.zeros(32, 48, dtype=torch.float64)
    maps = ridge_maps(train, prior, PENALTIES)
    whole = min(maps, key=validation.error)
    assert later.error(of_best_rank(maps, prior, train, validation)) < 0.99 * later.error(whole)


def test_the_whole_map_stays_where_no_lower_rank_is_better_by_the_margin() -> None:
    generator = torch.Generator().manual_seed(8)
    train, validation = waves(generator, 100), waves(generator, 100)
    prior = torch.zeros(32, 48, dtype=torch.float64)
    maps = ridge_maps(train, prior, PENALTIES)
    whole = min(maps, key=validation.error)
    gain = 1 - validation.error(of_best_rank(maps, prior, train, validation, margin=0.0)) / validation.error(whole)
    assert torch.equal(of_best_rank(maps, prior, train, validation, margin=1.01 * gain), whole)
    assert not torch.equal(of_best_rank(maps, prior, train, validation, margin=0.99 * gain), whole)


def test_a_short_horizon_or_a_flat_context_leaves_no_lower_rank() -> None:
    flat = Moments.of([(torch.zeros(4, 48, dtype=torch.float64), torch.zeros(4, 32, dtype=torch.float64))])
    prior = torch.ones(32, 48, dtype=torch.float64)
    assert torch.equal(of_best_rank(ridge_maps(flat, prior, PENALTIES), prior, flat, flat), prior)
    whole = torch.randn(9, 51, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    short = Moments.of([(whole[:, :48], whole[:, 48:])])
    maps = ridge_maps(short, prior[:3], PENALTIES)
    assert any(torch.equal(of_best_rank(maps, prior[:3], short, short), each) for each in maps)


def test_the_regression_of_a_long_horizon_may_have_a_low_rank(config: RunConfig, data: SeriesSet) -> None:
    (one,) = data.series
    noise = np.random.default_rng(4).normal(size=one.values.shape)
    values = np.sin(np.arange(len(one)) / 4)[:, None] * [1.0, 0.5, 2.0] + noise
    data = SeriesSet.of((Series("", one.times, values, one.channels),), data.layout)
    sizes = config.model.model_copy(update={"context_length": 48, "prediction_length": 20, "seasonal_profile": False})
    weight = least_squares.best_ridge(SeriesDataModule(data, config.model_copy(update={"model": sizes})))
    assert torch.linalg.matrix_rank(weight - 1 / 48, rtol=1e-4) in RANKS


def followers(data: SeriesSet) -> SeriesSet:
    """The second channel repeats the first three steps later, the third is noise."""
    (one,) = data.series
    noise = np.random.default_rng(9).normal(size=(len(one) + 3, 2))
    values = np.stack([noise[3:, 0], noise[:-3, 0], noise[3:, 1]], axis=1)
    return SeriesSet.of((Series("", one.times, values, one.channels),), data.layout)


def joint(config: RunConfig, **model: object) -> RunConfig:
    changes = {"joint_rank": 4, "seasonal_profile": False, **model}
    return config.model_copy(update={"model": config.model.model_copy(update=changes)})


@pytest.mark.parametrize("norm", [True, False])
def test_what_one_channel_says_of_another_is_known_before_the_first_step(
    norm: bool, config: RunConfig, data: SeriesSet
) -> None:
    data, config = followers(data), joint(config, instance_norm=norm)
    module = begun(config, data)
    error = []
    for network in (module.network.eval(), module.trained_network.eval()):
        with torch.no_grad():
            parts = [
                (network(x) - y).square().mean(dim=(0, 1)) for x, y in SeriesDataModule(data, config).test_dataloader()
            ]
        error.append(torch.stack(parts).mean(dim=0))
    torch.testing.assert_close(*error)
    assert error[0][1] < 0.4 * error[0][0]
    assert error[0][2] > 0.7


def test_the_joint_path_learns_what_the_direct_path_leaves(config: RunConfig, data: SeriesSet) -> None:
    """Of waves that the direct path knows it adds nothing, rather than as much again."""
    (one,) = data.series
    steps = np.arange(len(one))
    values = np.stack([np.sin(2 * np.pi * steps / period) for period in (5, 6, 8)], axis=1)
    waves = SeriesSet.of((Series("", one.times, values, one.channels),), data.layout)
    config = joint(config)
    network = begun(config, waves).network.eval()
    with torch.no_grad():
        errors = [float((network(x) - y).square().mean()) for x, y in SeriesDataModule(waves, config).test_dataloader()]
    assert max(errors) < 1e-3


def test_a_joint_path_that_forecasts_no_better_begins_as_nothing(config: RunConfig, data: SeriesSet) -> None:
    (one,) = followers(data).series
    rows = borders(len(one), config.data.split).train
    values = one.values.copy()
    values[rows.stop :, 1] *= -1  # what was learned is wrong there
    module = begun(joint(config), SeriesSet.of((Series("", one.times, values, one.channels),), data.layout))
    assert not module.network.get_parameter("joint.up.weight").any()


@pytest.mark.parametrize("start", ["mean", "random"])
def test_the_joint_path_is_a_regression_where_the_direct_path_is(
    start: str, config: RunConfig, data: SeriesSet
) -> None:
    train = config.train.model_copy(update={"start": start})
    module = begun(joint(config.model_copy(update={"train": train})), followers(data))
    assert not module.network.get_parameter("joint.up.weight").any()
