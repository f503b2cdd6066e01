"""What a network is shown of a series: the same in training, evaluation, calibration and reports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from stanhop.forecasting.bundle import Bundle
from stanhop.forecasting.forecaster import Forecaster
from stanhop.forecasting.rolling import as_the_network_sees, origins_of, roll
from stanhop.model.network import STanHopNet
from stanhop.quantization.windows import calibration_contexts, split_contexts
from stanhop.report.contents import _scaled_windows
from stanhop.series.datamodule import SeriesDataModule
from stanhop.series.frame import Layout, Series, SeriesSet

ROWS = 24 * 40


@pytest.fixture
def series_set(make_series: Callable[..., Series]) -> SeriesSet:
    series = make_series(ROWS)
    return SeriesSet.of([series], Layout("wide", "ds", None, series.channels))


@pytest.fixture(params=[(), ("day", "week")], ids=["untold", "told"])
def trained(bundle: Bundle, series_set: SeriesSet, request: pytest.FixtureRequest) -> tuple[Bundle, SeriesDataModule]:
    """A model with the scalers of a training, told the time or not, and the windows of that training."""
    model = bundle.config.model.model_copy(update={"joint_rank": 2, "time_features": request.param})
    config = bundle.config.model_copy(update={"model": model})
    datamodule = SeriesDataModule(series_set, config)
    assert datamodule.scalers[""].profile is not None
    network = STanHopNet(model, bundle.num_channels).eval().requires_grad_(False)
    return replace(bundle, config=config, network=network, scalers=datamodule.scalers), datamodule


def test_the_windows_of_a_training_are_those_that_are_rolled_over(
    trained: tuple[Bundle, SeriesDataModule], series_set: SeriesSet
) -> None:
    bundle, datamodule = trained
    (series,) = series_set.series
    batches = list(datamodule.test_dataloader())
    contexts, targets = (torch.cat(parts).double().numpy() for parts in zip(*batches, strict=True))
    origins = origins_of(bundle, series, "test")
    rolled = list(roll(Forecaster(bundle), series, origins, scaler=bundle.scalers[""], batch_size=7))
    channels = contexts[..., : bundle.num_channels]
    np.testing.assert_allclose(np.concatenate([batch.context for batch in rolled]), channels, atol=1e-6)
    np.testing.assert_allclose(np.concatenate([batch.target for batch in rolled]), targets, atol=1e-6)
    calibrated = torch.cat(list(split_contexts(bundle, series_set, "test"))).numpy()
    np.testing.assert_allclose(calibrated, contexts, atol=1e-6)
    reported = _scaled_windows(Forecaster(bundle), series, origins)
    np.testing.assert_allclose(reported[0], contexts, atol=1e-6)
    np.testing.assert_allclose(reported[1], targets, atol=1e-6)


def test_what_is_calibrated_with_is_drawn_from_the_windows_of_the_training(
    trained: tuple[Bundle, SeriesDataModule], series_set: SeriesSet
) -> None:
    bundle, datamodule = trained
    known = {context.numpy().round(4).tobytes() for batch, _ in datamodule.train_dataloader() for context in batch}
    (drawn,) = calibration_contexts(bundle, series_set, num_batches=1, batch_size=50)
    assert len(drawn) == 50
    assert all(context.float().numpy().round(4).tobytes() in known for context in drawn)


def test_a_single_window_is_forecast_without_a_warning(
    trained: tuple[Bundle, SeriesDataModule], series_set: SeriesSet
) -> None:
    bundle, _ = trained
    (series,) = series_set.series
    origins = origins_of(bundle, series, "test")[:1]
    (alone,) = roll(Forecaster(bundle), series, origins, scaler=bundle.scalers[""], batch_size=1)
    contexts, _ = _scaled_windows(Forecaster(bundle), series, origins)
    frozen = contexts.copy()
    frozen.flags.writeable = False
    np.testing.assert_array_equal(Forecaster(bundle).predict(frozen), alone.forecast)


def test_a_series_the_model_has_not_seen_is_shown_by_its_own_training_rows(
    trained: tuple[Bundle, SeriesDataModule], make_series: Callable[..., Series]
) -> None:
    bundle, _ = trained
    stranger = make_series(ROWS, series_id="stranger", seed=3)
    expected = as_the_network_sees(Forecaster(bundle), stranger)
    stranger.values[ROWS // 2 :] += 1e3
    changed = as_the_network_sees(Forecaster(bundle), stranger)
    np.testing.assert_array_equal(changed[: ROWS // 2], expected[: ROWS // 2])
