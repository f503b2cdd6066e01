r"""What the direct path begins with: the ridge regression of all training windows, in closed form.

A context without its mean is :math:`x`, its target without that mean :math:`y` (without instance normalisation, both
as they are). Of all linear maps the ridge regression has the least

    mean :math:`\lVert y - W x \rVert^2 + \lambda \lVert W - W_0 \rVert^2`,
    which is :math:`W = (E[y x^\top] + \lambda W_0) (E[x x^\top] + \lambda I)^{-1}`,

over windows and channels, :math:`W_0` being the mean of the context. That a context is divided by its deviation as well
changes nothing, since the map is linear and errors count in scaled units. The penalty :math:`\lambda` is the one with
the least error on the validation windows.

Source: Hoerl & Kennard 1970; closed forms of linear forecasters, Toner & Darlow 2024, arXiv:2403.14587.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from stanhop.model.network import STanHopNet, mean_of_context
from stanhop.model.normalization import InstanceStatistics
from stanhop.series.datamodule import Batch, SeriesDataModule
from stanhop.training.lightning_module import ForecastingModule

PENALTIES = tuple(10.0**exponent for exponent in range(-5, 3))
"""Those to choose from, relative to the mean square of the contexts."""
PENALTY_UNSEEN = 0.01
"""The one where there are no validation windows."""
LONGEST_CONTEXT = 2048
"""Steps up to which the regression takes seconds; it takes their cube in time and their square in memory."""


@dataclass(frozen=True)
class Moments:
    r"""Means over windows and channels, in float64.

    Args:
        contexts: :math:`E[x x^\top]`, ``(context_length, context_length)``.
        products: :math:`E[x y^\top]`, ``(context_length, prediction_length)``.
        targets: :math:`E \lVert y \rVert^2`, a scalar.
    """

    contexts: Tensor
    products: Tensor
    targets: Tensor

    @classmethod
    def of(cls, batches: Iterable[Batch], *, instance_norm: bool) -> Self:
        """Those of ``batches``, of which there is at least one: contexts and targets, ``(batch, steps, channels)``."""
        sums: list[Tensor | float] = [0.0, 0.0, 0.0]
        count = 0
        for batch in batches:
            context, target = (part.double() for part in batch)  # a mean taken away in float32 is not quite gone
            level = InstanceStatistics.of(context).mean if instance_norm else 0.0
            x, y = _rows(context - level), _rows(target - level)
            sums = [one + more for one, more in zip(sums, (x.T @ x, x.T @ y, y.square().sum()), strict=True)]
            count += len(x)
        return cls(*(torch.as_tensor(one / count) for one in sums))

    def error(self, weight: Tensor) -> float:
        """Mean squared error over windows, channels and steps of the map ``(prediction_length, context_length)``."""
        explained = (weight @ self.contexts * weight).sum() - 2 * (weight.T * self.products).sum()
        return float((self.targets + explained) / len(weight))


def ridge_maps(moments: Moments, prior: Tensor, penalties: Sequence[float]) -> list[Tensor]:
    """The regression with each of ``penalties``.

    Args:
        moments: Of the windows to learn from.
        prior: The map that an infinite penalty gives, ``(prediction_length, context_length)``.
        penalties: Relative to the mean square of the contexts, above 0.

    Returns:
        Maps of the shape of ``prior``, in float64.
    """
    variances, axes = torch.linalg.eigh(moments.contexts)
    unit = variances.mean()
    if not unit > 0:  # contexts that never move say nothing
        return [prior.double()] * len(penalties)
    products, start = axes.T @ moments.products, axes.T @ prior.double().T
    maps = []
    for penalty in penalties:
        along_axes = (products + penalty * unit * start) / (variances.clamp(min=0) + penalty * unit)[:, None]
        maps.append((axes @ along_axes).T)
    return maps


def begin(module: ForecastingModule, datamodule: SeriesDataModule) -> None:
    """Have the network in ``module``, and its average, begin as the linear map that ``train.start`` names, if it does.

    The regression learns from the windows of the first epoch. A published network has no direct path and is left as it
    is.
    """
    start, model = module.config.train.start, module.config.model
    if start == "random" or not isinstance(module.network, STanHopNet):
        return
    weight = mean_of_context(model.context_length, model.prediction_length)
    if start == "ridge" and model.context_length <= LONGEST_CONTEXT:
        weight = _best_ridge(datamodule, prior=weight, instance_norm=model.instance_norm)
    for own in (module.network, module.trained_network):
        assert isinstance(own, STanHopNet)
        own.begin_as_linear(weight)


def _best_ridge(datamodule: SeriesDataModule, *, prior: Tensor, instance_norm: bool) -> Tensor:
    """The regression with the penalty that is best on the validation windows, in the dtype of ``prior``."""
    train = Moments.of(datamodule.train_dataloader(), instance_norm=instance_norm)
    if datamodule.num_windows("validation"):
        validation = Moments.of(datamodule.val_dataloader(), instance_norm=instance_norm)
        best = min(ridge_maps(train, prior, PENALTIES), key=validation.error)
    else:
        (best,) = ridge_maps(train, prior, [PENALTY_UNSEEN])
    return best.to(prior.dtype)


def _rows(part: Tensor) -> Tensor:
    """One row for each window and channel."""
    return part.transpose(1, 2).flatten(0, 1)
