"""The network as Lightning trains it: loss, optimiser, learning rate, and exact means over an epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from stanhop.config import RunConfig
from stanhop.errors import Code, ModelError
from stanhop.forecasting.intervals import tails
from stanhop.model.network import Outputs, build_network, with_head
from stanhop.training.averaging import MovingAverage
from stanhop.training.guards import Step, StepGuard

LOSSES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mae": functional.l1_loss,
    "mse": functional.mse_loss,
    "huber": functional.huber_loss,
}
"""Mean over windows, steps and channels, in scaled units; ``huber`` turns from square to line at 1."""
WARM_UP_SHARE = 0.05
"""Share of all steps over which the learning rate rises to its highest."""
FINAL_FACTOR = 0.01
"""What is left of the highest learning rate at the last step."""
LAST_HALVING = 5
"""Times that the halving schedule halves the learning rate."""


class RunningMean:
    """Mean over all windows of an epoch: batches count by their windows, sums are kept in float64."""

    def __init__(self) -> None:
        self._sum: Tensor | float = 0.0
        self._count = 0

    def add(self, mean: Tensor, count: int) -> None:
        """Take in a batch of ``count`` windows with this ``mean``, a scalar; the device is not waited for."""
        self._sum = self._sum + mean.detach().double() * count
        self._count += count

    def totals(self) -> list[float]:
        """Sum and count so far."""
        return [float(self._sum), float(self._count)]

    def restore(self, totals: Sequence[float]) -> None:
        """Go on from ``totals``."""
        self._sum, self._count = totals[0], int(totals[1])


class ForecastingModule(pl.LightningModule):
    """Fits a network to scaled windows.

    Args:
        config: Network, loss and optimiser.
        channels: Names of the channels, for messages.
    """

    def __init__(self, config: RunConfig, channels: Sequence[str]) -> None:
        super().__init__()
        self.config = config
        self.channels = tuple(channels)
        self.network: nn.Module = build_network(config.model, len(channels))
        self.num_overflows: Tensor | int = 0
        """Steps of mixed precision that were left out because float16 could not hold their gradient."""
        self.last_learning_rate = math.nan
        """That of the last step."""
        self._loss = LOSSES[config.train.loss]
        self._training_loss, self._validation_loss = RunningMean(), RunningMean()
        self._last_loss: Tensor | None = None
        self._last_forecast: Tensor | None = None
        self._guard = StepGuard()
        decay = config.train.ema_decay
        self._average = MovingAverage(self.network, decay) if decay else None
        # The bound methods: a module that holds the network would be a second one with the same weights.
        self._call: Callable[[Tensor], Outputs] = with_head(self.trained_network).__call__
        called = with_head(self.network)
        self._call_to_train: Callable[[Tensor], Outputs] = (
            _compiled(called) if config.train.compile else called.__call__
        )

    @property
    def trained_network(self) -> nn.Module:
        """The network to validate and to keep: the moving average of ``network`` if there is one."""
        return self.network if self._average is None else self._average.network

    def begin_from(self, network: nn.Module) -> None:
        """Take the weights of ``network`` to start with."""
        for own in (self.network, self.trained_network):
            own.load_state_dict(network.state_dict())

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        """The loss of a batch ``(context, target)``."""
        context, target = batch
        if self.config.train.compile:
            torch.compiler.cudagraph_mark_step_begin()  # what the step before returned may be overwritten
        forecast, loss = self._forecast_and_loss(self._call_to_train(context), target)
        self._training_loss.add(loss, len(context))
        self._last_loss, self._last_forecast = loss.detach(), forecast.detach()
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> None:
        """Add the loss of a batch to that of the epoch."""
        context, target = batch
        _, loss = self._forecast_and_loss(self._call(context), target)
        self._validation_loss.add(loss, len(context))

    def _forecast_and_loss(self, outputs: Outputs, target: Tensor) -> tuple[Tensor, Tensor]:
        """The forecast in what the network returned, and the loss; bounds add their mean pinball loss."""
        if isinstance(outputs, Tensor):
            return outputs, self._loss(outputs, target)
        forecast, *bounds = outputs
        return forecast, self._loss(forecast, target) + pinball_loss(bounds, target, levels=self.config.model.levels)

    def on_train_epoch_start(self) -> None:
        """Begin a new mean; not called for an epoch that is taken up in the middle."""
        self._training_loss = RunningMean()

    def on_validation_epoch_start(self) -> None:
        """Begin a new mean."""
        self._validation_loss = RunningMean()

    def epoch_losses(self) -> dict[str, float]:
        """Means over all windows: ``train/loss`` of the weights along the way, ``val/loss`` of those at the end."""
        means = {"train/loss": self._training_loss, "val/loss": self._validation_loss}
        sums = {name: self._over_processes(mean.totals()) for name, mean in means.items()}
        return {name: total / count if count else math.nan for name, (total, count) in sums.items()}

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW, its learning rate set anew before every step."""
        train = self.config.train
        optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=train.learning_rate, weight_decay=train.weight_decay
        )
        # Not trainer.estimated_stepping_batches: it sets up the loader before a checkpoint is restored, and Lightning
        # then never gives the loader its saved position (pytorch-lightning 2.6).
        epoch_steps = len(self.trainer.datamodule.train_dataloader())  # type: ignore[attr-defined]
        schedule = LambdaLR(
            optimizer,
            (lambda step: cosine_factor(step, num_steps=train.max_epochs * epoch_steps))
            if train.schedule == "cosine"
            else (lambda step: halving_factor(step, epoch_steps=epoch_steps)),
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Take a step, and have the average follow before anything is saved."""
        super().optimizer_step(*args, **kwargs)
        if self._average is not None:
            self._average.update(self.network, num_steps=self.trainer.global_step + 1)

    def configure_gradient_clipping(self, optimizer: Optimizer, *_: object, **__: object) -> None:
        """Clip the norm of the gradient; Lightning calls this once a step, before the weights change.

        Raises:
            DivergedError: loss or gradient are not finite.
        """
        self.last_learning_rate = float(optimizer.param_groups[0]["lr"])
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.config.train.gradient_clip)
        loss = self._last_loss
        assert loss is not None
        if self.config.train.precision == "16-mixed":
            # The scaler of mixed precision looks for the largest factor that just works: it leaves such steps out.
            self.num_overflows = self.num_overflows + (~torch.isfinite(norm)).long()
            norm = torch.zeros_like(norm)
        if self.trainer.world_size > 1:
            loss = torch.as_tensor(self.trainer.strategy.reduce(loss, reduce_op="sum"))
        step, epoch = self.trainer.global_step + 1, self.trainer.current_epoch + 1
        self._guard.check(Step(loss, norm, number=step, epoch=epoch, broken=self._broken_channels))

    def on_train_epoch_end(self) -> None:
        """Look at the last step.

        Raises:
            DivergedError: its loss or gradient are not finite.
        """
        self._guard.settle()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the mean of an epoch that is under way; refuse to keep weights that a step has spoilt.

        Raises:
            DivergedError: loss or gradient of the last step are not finite.
        """
        self._guard.settle()
        checkpoint["training_loss"] = self._over_processes(self._training_loss.totals())

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up the mean again; of several processes the first one takes all of it.

        Raises:
            ModelError: its weights are not those of this network, as where another version began the training.
        """
        differing = sorted(set(checkpoint["state_dict"]) ^ set(self.state_dict()))
        if differing:
            problem = f"the checkpoint and this version differ in {len(differing)} weights, such as {differing[0]}"
            fix = "resume with the version of stanhop that it was started with, or start again"
            raise ModelError(Code.CHECKPOINT, problem, fix=fix)
        if self.trainer.is_global_zero:
            self._training_loss.restore(checkpoint["training_loss"])

    def _over_processes(self, totals: list[float]) -> list[float]:
        if self.trainer.world_size == 1:
            return totals
        local = torch.tensor(totals, dtype=torch.float64, device=self.device)
        return [float(total) for total in torch.as_tensor(self.trainer.strategy.reduce(local, reduce_op="sum"))]

    def _broken_channels(self) -> list[str]:
        """Channels whose forecast of the last batch is not finite."""
        assert self._last_forecast is not None
        is_broken = ~torch.isfinite(self._last_forecast).all(dim=0).all(dim=0)  # (channels,)
        return [channel for channel, broken in zip(self.channels, is_broken.tolist(), strict=True) if broken]


def pinball_loss(bounds: Sequence[Tensor], target: Tensor, *, levels: Sequence[float]) -> Tensor:
    r"""Mean over all bounds, windows, steps and channels of :math:`\max(p\,(y - q), (p - 1)(y - q))`.

    Args:
        bounds: Lower and upper bounds :math:`q`, ``(batch, levels, prediction_length, channels)`` each.
        target: :math:`y`, ``(batch, prediction_length, channels)``.
        levels: Percentages; the lower bound of 80 is the quantile :math:`p = 0.1`, the upper one that of 0.9.

    Source: Koenker & Bassett 1978.
    """
    losses = []
    for side, bound in enumerate(bounds):
        probabilities = torch.tensor([tails(level)[side] for level in levels], dtype=bound.dtype, device=bound.device)
        error = target.unsqueeze(1) - bound
        scaled = probabilities[:, None, None]
        losses.append(torch.maximum(scaled * error, (scaled - 1) * error))
    return torch.stack(losses).mean()


def cosine_factor(step: int, *, num_steps: int) -> float:
    """Share of the highest learning rate at ``step`` (from 0) of ``num_steps``: a line up, then half a cosine down."""
    num_warm_up = max(1, round(WARM_UP_SHARE * num_steps))
    if step < num_warm_up:
        return (step + 1) / num_warm_up
    progress = min(1.0, (step - num_warm_up) / max(1, num_steps - num_warm_up))
    return FINAL_FACTOR + (1 - FINAL_FACTOR) * (1 + math.cos(math.pi * progress)) / 2


def halving_factor(step: int, *, epoch_steps: int) -> float:
    """Share of the highest learning rate at ``step`` (from 0): halved after epochs 2, 4, 6, 8 and 10, then kept.

    Source: schedule "type1" of the published STanHop and Crossformer code.
    """
    epochs_done = step // epoch_steps
    factor: float = 0.5 ** min(epochs_done // 2, LAST_HALVING)
    return factor


def _compiled(network: nn.Module) -> Callable[[Tensor], Outputs]:
    """The forward pass of ``network``, compiled when first called; on CUDA captured in a CUDA graph as well.

    It is the method that is compiled, so that names of weights and what is saved of them stay as they are.
    """
    forward: Callable[[Tensor], Outputs] = torch.compile(network.forward, dynamic=False, mode="reduce-overhead")
    return forward
