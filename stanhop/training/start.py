"""What a network begins as: a linear map, before the first step."""

from __future__ import annotations

from stanhop.model.network import STanHopNet, mean_of_context
from stanhop.series.datamodule import SeriesDataModule
from stanhop.training.joint_path import begin_joint_path
from stanhop.training.least_squares import LONGEST_CONTEXT, best_ridge
from stanhop.training.lightning_module import ForecastingModule


def begin(module: ForecastingModule, datamodule: SeriesDataModule) -> None:
    """Have the network in ``module``, and its average, begin as the linear map that ``train.start`` names, if it does.

    The regressions learn from the windows of the first epoch. A published network has no direct path and is left as it
    is.
    """
    start, model = module.config.train.start, module.config.model
    if start == "random" or not isinstance(module.network, STanHopNet):
        return
    weight = mean_of_context(model.context_length, model.prediction_length)
    if start == "ridge" and model.context_length <= LONGEST_CONTEXT:
        weight = best_ridge(datamodule)
    for own in (module.network, module.trained_network):
        assert isinstance(own, STanHopNet)
        own.begin_as_linear(weight)
    if start == "ridge":
        begin_joint_path(module, datamodule, weight)
