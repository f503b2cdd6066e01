"""What a network begins as, before the first step: a linear map, and levels that return to their mean."""

from __future__ import annotations

from stanhop.model.network import STanHopNet, mean_of_context
from stanhop.series.datamodule import SeriesDataModule
from stanhop.training.joint_path import begin_joint_path
from stanhop.training.least_squares import LONGEST_CONTEXT, best_ridge
from stanhop.training.lightning_module import ForecastingModule
from stanhop.training.mean_reversion import begin_reversion


def begin(module: ForecastingModule, datamodule: SeriesDataModule) -> None:
    """Have the network in ``module``, and its average, begin as the linear map that ``train.start`` names, if it does.

    The regressions learn from all training windows, or many (``ordered_train_windows``). How far levels return to their
    mean (``model.mean_reversion``) is estimated beside the ridge regression, whatever the start is. A published network
    has neither and is left as it is.
    """
    if not isinstance(module.network, STanHopNet):
        return
    start, model = module.config.train.start, module.config.model
    reverts = module.network.reversion is not None
    weight = ridge = mean_of_context(model.context_length, model.prediction_length)
    if (start == "ridge" or reverts) and model.context_length <= LONGEST_CONTEXT:
        ridge = best_ridge(datamodule)
    networks = [own for own in (module.network, module.trained_network) if isinstance(own, STanHopNet)]
    if reverts:
        begin_reversion(networks, datamodule, ridge)
    if start == "random":
        return
    if start == "ridge":
        weight = ridge
    for own in networks:
        own.begin_as_linear(weight)
    if start == "ridge":
        begin_joint_path(networks, datamodule, weight)
