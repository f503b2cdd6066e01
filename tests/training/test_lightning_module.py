"""The losses, the learning rate and the optimiser, apart from the course of a training."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from stanhop.config import RunConfig
from stanhop.errors import Code, DivergedError, ModelError
from stanhop.training.guards import Step, StepGuard
from stanhop.training.lightning_module import (
    FINAL_FACTOR,
    LOSSES,
    ForecastingModule,
    RunningMean,
    cosine_factor,
    halving_factor,
    pinball_loss,
)

CHANNELS = ("a", "b", "c")


def module_of(config: RunConfig, **train: Any) -> ForecastingModule:
    """A module that believes it is trained."""
    torch.manual_seed(1)
    module = ForecastingModule(config.model_copy(update={"train": config.train.model_copy(update=train)}), CHANNELS)
    trainer = SimpleNamespace(global_step=6, current_epoch=2, world_size=1)
    module.__dict__["_trainer"] = trainer
    return module


def batch_of(num_windows: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(num_windows, 11, 3, generator=generator), torch.randn(num_windows, 3, 3, generator=generator)


def test_one_batch_is_learnt_by_heart(config: RunConfig) -> None:
    module = module_of(config).train()
    for dropout in (one for one in module.modules() if isinstance(one, torch.nn.Dropout)):
        dropout.p = 0.0
    batch = batch_of(5)
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.03)
    losses = []
    for step in range(150):
        loss = module.training_step(batch, step)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.2 * losses[0]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("mae", 1.25), ("mse", 2.75), ("huber", (0.5 * 0.25 + 0.5 * 1 + 0 + 2.5) / 4)],
)
def test_each_loss_is_the_mean_of_its_formula(name: str, expected: float) -> None:
    forecast, target = torch.tensor([0.0, 0.0, 1.0, 0.0]), torch.tensor([0.5, -1.0, 1.0, 3.0])
    differences = {"mae": (0.5 + 1 + 0 + 3) / 4, "mse": (0.25 + 1 + 0 + 9) / 4, "huber": expected}
    assert float(LOSSES[name](forecast, target)) == pytest.approx(differences[name])


def test_an_epoch_is_the_mean_over_windows_not_over_batches(config: RunConfig) -> None:
    module = module_of(config).eval()
    context, target = batch_of(7)
    with torch.no_grad():
        module.on_validation_epoch_start()
        module.validation_step((context[:5], target[:5]), 0)
        module.validation_step((context[5:], target[5:]), 1)
        whole = float((module.network(context) - target).abs().mean())
    assert module.epoch_losses()["val/loss"] == pytest.approx(whole, rel=1e-6)
    module.on_validation_epoch_start()
    assert math.isnan(module.epoch_losses()["val/loss"])


def test_what_is_validated_is_the_average(config: RunConfig) -> None:
    module, batch = module_of(config).eval(), batch_of(5)
    assert module.trained_network is not module.network
    with torch.no_grad():
        for weight in module.network.parameters():
            weight.add_(1.0)
        module.on_validation_epoch_start()
        module.validation_step(batch, 0)
        expected = float((module.trained_network(batch[0]) - batch[1]).abs().mean())
        of_the_step = float((module.network(batch[0]) - batch[1]).abs().mean())
    assert module.epoch_losses()["val/loss"] == pytest.approx(expected, rel=1e-6)
    assert expected != pytest.approx(of_the_step, rel=0.01)


def test_without_decay_there_is_no_average(config: RunConfig) -> None:
    module = module_of(config, ema_decay=0.0)
    assert module.trained_network is module.network
    assert all(name.startswith("network.") for name in module.state_dict())


def test_only_the_network_is_optimised(config: RunConfig) -> None:
    module = module_of(config)
    module.trainer.datamodule = SimpleNamespace(train_dataloader=lambda: range(9))  # type: ignore[attr-defined]
    optimizer = module.configure_optimizers()["optimizer"]
    optimised = [weight for group in optimizer.param_groups for weight in group["params"]]
    assert [id(weight) for weight in optimised] == [id(weight) for weight in module.network.parameters()]


def test_a_running_mean_goes_on_bit_for_bit_from_its_totals() -> None:
    losses = torch.rand(13, generator=torch.Generator().manual_seed(3))
    whole, first, second = RunningMean(), RunningMean(), RunningMean()
    for index, loss in enumerate(losses):
        whole.add(loss, 3 + index)
        (first if index < 5 else second).add(loss, 3 + index)
        if index == 4:
            second.restore(first.totals())
    assert second.totals() == whole.totals()


@given(num_steps=st.integers(1, 5000))
def test_the_cosine_of_the_learning_rate_rises_once_and_falls_once(num_steps: int) -> None:
    factors = [cosine_factor(step, num_steps=num_steps) for step in range(num_steps)]
    highest = factors.index(max(factors))
    assert max(factors) == 1
    assert min(factors) > 0
    assert factors[:highest] == sorted(factors[:highest])
    assert factors[highest:] == sorted(factors[highest:], reverse=True)
    assert highest <= 0.06 * num_steps + 1


def test_the_learning_rate_ends_low_and_stays_there() -> None:
    assert cosine_factor(999, num_steps=1000) == pytest.approx(FINAL_FACTOR, abs=1e-4)
    assert cosine_factor(5000, num_steps=1000) == pytest.approx(FINAL_FACTOR)


def test_halving_keeps_the_rate_for_two_epochs_and_halves_it_five_times() -> None:
    steps = 7
    by_epoch = [halving_factor(steps * epoch, epoch_steps=steps) for epoch in range(14)]
    assert by_epoch == [1, 1, 1 / 2, 1 / 2, 1 / 4, 1 / 4, 1 / 8, 1 / 8, 1 / 16, 1 / 16, *[1 / 32] * 4]
    assert halving_factor(2 * steps - 1, epoch_steps=steps) == 1


def clip(module: ForecastingModule, *, loss: float = 1.0, gradient: float = 1.0) -> float:
    """Pretend a backward pass and clip its gradient; the norm that is left."""
    module.training_step(batch_of(5), 0)
    module._last_loss = torch.tensor(loss)
    for parameter in module.network.parameters():
        parameter.grad = torch.full_like(parameter, gradient)
    module.configure_gradient_clipping(torch.optim.SGD(module.parameters(), lr=0.5))
    return float(torch.cat([p.grad.flatten() for p in module.network.parameters() if p.grad is not None]).norm())


def test_the_gradient_is_clipped_by_its_norm(config: RunConfig) -> None:
    assert clip(module_of(config, gradient_clip=0.25)) == pytest.approx(0.25, rel=1e-4)
    assert clip(module_of(config, gradient_clip=0.25), gradient=1e-6) < 0.01


def test_a_gradient_that_is_not_finite_stops_the_step_before_the_weights_change(config: RunConfig) -> None:
    module = module_of(config)
    with pytest.raises(DivergedError, match=r"the gradient is inf at step 7 of epoch 3") as caught:
        clip(module, gradient=math.inf)
    assert caught.value.exit_code == 5


def test_a_loss_that_is_not_finite_stops_the_step_though_its_gradient_is(config: RunConfig) -> None:
    with pytest.raises(DivergedError, match=r"the loss is inf at step 7 of epoch 3"):
        clip(module_of(config), loss=math.inf)


def test_the_channel_whose_forecast_is_not_finite_is_named(config: RunConfig) -> None:
    module = module_of(config)
    module.training_step(batch_of(5), 0)
    forecast = torch.zeros(5, 3, 3)
    forecast[4, 2, 1] = math.nan
    module._last_forecast, module._last_loss = forecast, torch.tensor(math.nan)
    with pytest.raises(DivergedError, match=r"the loss is nan at step 7 of epoch 3 \(forecast of channel 'b'\)"):
        module.configure_gradient_clipping(torch.optim.SGD(module.parameters(), lr=0.5))


def test_float16_leaves_out_steps_that_overflow_and_counts_them(config: RunConfig) -> None:
    module = module_of(config, precision="16-mixed")
    clip(module, gradient=math.inf)
    clip(module, gradient=1.0)
    clip(module, gradient=math.nan)
    assert int(module.num_overflows) == 2
    with pytest.raises(DivergedError):
        clip(module, loss=math.nan)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.compile, about itself
def test_a_compiled_network_gives_the_same_loss_under_the_same_names_of_weights(config, monkeypatch) -> None:
    compiled = []
    compile_ = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda forward, **options: compiled.append(options) or compile_(forward, backend="eager")
    )
    plain, module = module_of(config).eval(), module_of(config, compile=True).eval()
    assert compiled == [{"dynamic": False, "mode": "reduce-overhead"}]
    assert list(module.state_dict()) == list(plain.state_dict())
    assert module.training_step(batch_of(5), 0).equal(plain.training_step(batch_of(5), 0))


def test_weights_that_a_step_has_spoilt_are_not_saved(config) -> None:
    module = module_of(config)
    module._guard = StepGuard(lags=True)
    spoilt = Step(torch.tensor(math.nan), torch.tensor(1.0), number=3, epoch=1, broken=list)
    module._guard.check(spoilt)
    with pytest.raises(DivergedError, match="the loss is nan at step 3"):
        module.on_save_checkpoint({})


def test_a_checkpoint_of_another_network_is_refused_with_a_weight_that_differs(config: RunConfig) -> None:
    module = module_of(config)
    weights = module.state_dict()
    (gone, *_) = [name for name in weights if name.endswith(".scale")]
    older = {name: weight for name, weight in weights.items() if name != gone}
    for state in (older, weights | {gone + "s": weights[gone]}):
        with pytest.raises(ModelError, match=f"this version differ in 1 weights, such as {gone}") as caught:
            module.on_load_checkpoint({"state_dict": state})
        assert caught.value.code == Code.CHECKPOINT


def test_the_pinball_loss_is_least_at_the_quantiles() -> None:
    target = torch.linspace(0, 1, 1001, dtype=torch.float64)[:, None, None]

    def loss(low: float, high: float) -> float:
        bounds = [torch.full((1001, 1, 1, 1), value, dtype=torch.float64) for value in (low, high)]
        return float(pinball_loss(bounds, target, levels=(80.0,)))

    assert loss(0.1, 0.9) == pytest.approx(0.045, abs=1e-3)  # p (1 - p) / 2 of a uniform variable
    for low, high in ((0.05, 0.9), (0.15, 0.9), (0.1, 0.85), (0.1, 0.95)):
        assert loss(low, high) > loss(0.1, 0.9) + 1e-4


def test_a_quantile_head_learns_from_the_forecast_and_from_its_bounds(config: RunConfig) -> None:
    model = config.model.model_copy(update={"head": "quantile", "levels": (60.0, 90.0)})
    module = module_of(config.model_copy(update={"model": model}))
    context, target = batch_of(5)
    loss = module.train().training_step((context, target), 0)
    loss.backward()
    assert all(weight.grad is not None for weight in module.network.parameters())
    module.eval()
    module.on_validation_epoch_start()
    with torch.no_grad():
        module.validation_step((context, target), 0)
        forecast, lower, upper = module.network.with_bounds(context)  # type: ignore[operator]
        expected = LOSSES[config.train.loss](forecast, target)
        expected += pinball_loss([lower, upper], target, levels=(60.0, 90.0))
    assert module.epoch_losses()["val/loss"] == pytest.approx(float(expected), rel=1e-5)
