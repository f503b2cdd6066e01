r"""The trained network and the ridge regression, combined in the proportion that forecasts the validation windows best.

With :math:`f` the network, :math:`r` the regression that it may have begun as (``least_squares.py``) and a share
:math:`s` between 0 and 1 the forecast is :math:`s f + (1 - s) r`. What training takes too far, above all on short or
unsteady series, is taken back, and forecasts of two models that err differently err less together. Since a network is a
sum of linear maps of its context and of what its encoder makes of it, the combination is a network of the same shape.

Source: stacked regressions, Breiman 1996, Machine Learning 24; Bates & Granger 1969, Operational Research Quarterly 20.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stanhop.forecasting.forecaster import choose_device
from stanhop.model.network import STanHopNet
from stanhop.model.normalization import InstanceStatistics
from stanhop.series.datamodule import SeriesDataModule
from stanhop.training.least_squares import LONGEST_CONTEXT, best_ridge
from stanhop.training.lightning_module import LOSSES

SHARES = tuple(step / 20 for step in range(21))
"""Of the network, to choose from."""


@dataclass(frozen=True)
class Stacking:
    """What was chosen.

    Args:
        share: Of the network.
        validation_loss: Of the combination, as ``train.loss`` measures it; without that of bounds.
    """

    share: float
    validation_loss: float


def stack(network: nn.Module, datamodule: SeriesDataModule) -> Stacking | None:
    """Make of a trained ``network`` its combination with the ridge regression; the whole share leaves every bit.

    It is on the CPU afterwards.

    Returns:
        What was chosen; None where nothing was: ``train.stacking`` is off, there are no validation windows, the context
        is too long for the regression, or the network is a published one, which has no linear path.
    """
    config = datamodule.config
    model = config.model
    if not config.train.stacking or not isinstance(network, STanHopNet) or model.context_length > LONGEST_CONTEXT:
        return None
    datamodule.trainer = None  # training is over: windows are shared with no other process
    if not datamodule.num_windows("validation"):
        return None
    ridge = best_ridge(datamodule)
    losses = _losses(network, datamodule, ridge)
    network.cpu()
    best = int((losses == losses.min()).nonzero().max())  # of equal ones the largest share
    network.shrink_towards(ridge, SHARES[best])
    return Stacking(SHARES[best], float(losses[best]))


@torch.no_grad()
def _losses(network: STanHopNet, datamodule: SeriesDataModule, ridge: Tensor) -> Tensor:
    """Loss on the validation windows with each of ``SHARES``, float64."""
    loss = LOSSES[datamodule.config.train.loss]
    network.eval()
    total, count = torch.zeros(len(SHARES), dtype=torch.float64), 0
    for forecast, linear, target in _forecasts(network, datamodule, ridge):
        change = forecast - linear
        each = torch.stack([loss(linear + share * change, target) for share in SHARES])
        total += each.double().cpu() * len(target)
        count += len(target)
    return total / count


def _forecasts(
    network: STanHopNet, datamodule: SeriesDataModule, ridge: Tensor
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Of each batch of validation windows both forecasts and the target, ``(batch, prediction_length, channels)``."""
    device = choose_device(datamodule.config.train.device)
    network, ridge = network.to(device), ridge.to(device)
    for batch in datamodule.val_dataloader():
        context, target = (part.to(device) for part in batch)
        yield network(context), linear_forecast(ridge, context, network), target


def linear_forecast(weight: Tensor, context: Tensor, network: STanHopNet) -> Tensor:
    """What ``weight`` ``(prediction_length, context_length)`` makes of each channel less its mean, and the mean.

    Where levels return in ``network``, this one does likewise.
    """
    context = context[..., : network.num_channels]
    statistics = InstanceStatistics.of(context) if network.config.instance_norm else None
    level = torch.zeros_like(context[:, :1]) if statistics is None else statistics.mean
    forecast = ((context - level).transpose(1, 2) @ weight.T).transpose(1, 2) + level
    return network.reverted(forecast, statistics)
