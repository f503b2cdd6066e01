"""STanHop-Net as a forecaster of sktime: fit, predict, intervals, update and pretrain on pandas containers."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils import check_random_state
from sktime.datatypes import update_data
from sktime.forecasting.base import BaseForecaster

from stanhop.config import Layer, ModelConfig, RunConfig, TrainConfig, nest, resolve
from stanhop.forecasting.bundle import Bundle
from stanhop.forecasting.calibration import KnownErrors
from stanhop.forecasting.forecaster import Forecaster
from stanhop.forecasting.intervals import conformal_quantile, scale_of
from stanhop.forecasting.rolling import roll
from stanhop.interop.plan import borders_for, longest_context
from stanhop.series.frame import Layout, Series, SeriesSet
from stanhop.series.scaling import Scaler
from stanhop.series.windows import Borders, origins
from stanhop.training.in_memory import fit_in_memory

MODEL, TRAIN = ModelConfig(), TrainConfig()
LARGEST_SEED = 2**31 - 1
FIRST_DAY = "2000-01-01"
"""The network sees no dates, so every series gets the same calendar; sktime knows the index of the forecast."""


class STanHopForecaster(BaseForecaster):  # type: ignore[misc]  # sktime has no types
    """Forecasts all channels of a series jointly with STanHop-Net, on outlier-efficient Hopfield layers.

    ``fit`` trains the network of ``stanhop train`` on the series, in memory: no file is written. A panel is fitted
    series by series; ``pretrain`` trains one network on all series of a panel, and ``fit`` then goes on from it.
    Quantiles and intervals are conformal: errors of the forecast of each step and channel on the last rows, which the
    network has not learned from, and on those before, magnified to the size of the others. With ``validation=0`` there
    are none to magnify to, and the intervals are too narrow.

    Parameters
    ----------
    context_length : int or None, optional (default=None)
        Steps of history the network sees; if None, up to 336, as the series allows. A series too short for it has it
        shortened, with a warning.
    patch_length : int, optional (default=24)
        Steps per patch; never more than the context.
    model_dim : int, optional (default=64)
        Features per patch.
    num_heads : int, optional (default=4)
        Parallel retrievals per Hopfield layer; must divide ``model_dim``.
    num_levels : int, optional (default=2)
        Encoder levels, each but the first at half the resolution.
    separation : str, optional (default="outeffhop")
        How scores become weights: ``"outeffhop"``, ``"sparse_outeffhop"``, ``"softmax"``, ``"gsh"``, ``"sparsemax"``,
        ``"clipped_softmax"`` or ``"clipped_outeffhop"``.
    dropout : float, optional (default=0.1)
        Share of activations dropped in training.
    max_epochs : int, optional (default=5)
        Epochs at most.
    learning_rate : float, optional (default=0.002)
        Highest step size of AdamW.
    batch_size : int, optional (default=64)
        Windows per step.
    loss : str, optional (default="mae")
        ``"mae"``, ``"mse"`` or ``"huber"``, in units of each channel's deviation.
    validation : float, optional (default=0.1)
        Share of the rows, the last ones, that choose the best epoch and calibrate quantiles; at least one horizon. 0
        trains on all rows.
    update_epochs : int, optional (default=1)
        Epochs of ``update`` with ``update_params=True``, and of ``fit`` after ``pretrain``; 0 leaves the weights.
    settings : dict or None, optional (default=None)
        Further keys of stanhop's configuration, such as ``{"model.gate": True, "train.patience": 0}``.
    device : str, optional (default="auto")
        ``"cpu"``, ``"cuda"``, or whichever there is.
    verbose : bool, optional (default=False)
        Whether to show epochs on standard error.
    random_state : int, RandomState or None, optional (default=None)
        Seed of weights, order of windows and dropout.

    Attributes:
    ----------
    bundle_ : stanhop.forecasting.bundle.Bundle
        The fitted network with its configuration and scaler.

    References:
    ----------
    .. [1] Wu et al., "STanHop: Sparse Tandem Hopfield Model for Memory-Enhanced Time Series Prediction", ICLR 2024.
    .. [2] Hu et al., "Outlier-Efficient Hopfield Layers for Large Transformer-Based Models", ICML 2024.

    Examples:
    --------
    >>> from sktime.datasets import load_airline
    >>> from stanhop.interop.sktime import STanHopForecaster
    >>> forecaster = STanHopForecaster(
    ...     context_length=24, patch_length=6, model_dim=16, max_epochs=2, random_state=1
    ... )
    >>> forecaster.fit(load_airline(), fh=[1, 2, 3])
    STanHopForecaster(...)
    >>> y_pred = forecaster.predict()
    >>> y_interval = forecaster.predict_interval(coverage=0.8)
    """

    _tags = {  # noqa: RUF012 - sktime's own way
        "authors": ["stanhop"],
        "maintainers": ["stanhop"],
        "python_dependencies": ["torch", "pytorch_lightning"],
        "y_inner_mtype": "pd.DataFrame",
        "X_inner_mtype": "pd.DataFrame",
        "capability:multivariate": True,
        "capability:exogenous": False,
        "capability:insample": False,
        "capability:pred_int": True,
        "capability:pred_int:insample": False,
        "capability:missing_values": False,
        "capability:update": True,
        "capability:pretrain": True,
        "capability:random_state": True,
        "property:randomness": "derandomized",
        "requires-fh-in-fit": True,
        "X-y-must-have-same-index": False,
    }

    def __init__(
        self,
        context_length: int | None = None,
        patch_length: int = MODEL.patch_length,
        model_dim: int = MODEL.model_dim,
        num_heads: int = MODEL.num_heads,
        num_levels: int = MODEL.num_levels,
        separation: str = MODEL.separation,
        dropout: float = MODEL.dropout,
        max_epochs: int = TRAIN.max_epochs,
        learning_rate: float = TRAIN.learning_rate,
        batch_size: int = TRAIN.batch_size,
        loss: str = TRAIN.loss,
        validation: float = 0.1,
        update_epochs: int = 1,
        settings: Mapping[str, Any] | None = None,
        device: str = TRAIN.device,
        verbose: bool = False,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.context_length = context_length
        self.patch_length = patch_length
        self.model_dim = model_dim
        self.num_heads = num_heads
        self.num_levels = num_levels
        self.separation = separation
        self.dropout = dropout
        self.max_epochs = max_epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.loss = loss
        self.validation = validation
        self.update_epochs = update_epochs
        self.settings = settings
        self.device = device
        self.verbose = verbose
        self.random_state = random_state
        with warnings.catch_warnings():  # remember_data changes in sktime 1.3, and nothing here depends on it
            warnings.simplefilter("ignore", FutureWarning)
            super().__init__()

    # --- what sktime calls --------------------------------------------------------------------------------------

    def _fit(self, y: pd.DataFrame, X: pd.DataFrame | None, fh: Any) -> STanHopForecaster:  # noqa: N803 - sktime's name
        """Train on ``y``, or go on from what ``pretrain`` has learned."""
        _check_index(y.index)
        self._seed = self._drawn_seed()
        self._rows = y
        series_set = _series_set([y])
        pretrained: Bundle | None = getattr(self, "pretrained_bundle_", None)
        if pretrained is None:
            self.bundle_ = self._trained(series_set, horizon=int(self._steps(fh).max()) + 1)
        else:
            self._check_pretrained(pretrained, y, horizon=int(self._steps(fh).max()) + 1)
            self.bundle_ = self._adapted(pretrained, series_set)
        self._calibrate(series_set)
        return self

    def _predict(self, fh: Any, X: pd.DataFrame | None) -> pd.DataFrame:  # noqa: N803
        """The forecast at ``fh``."""
        values = self.bundle_.scalers[""].inverse(self._scaled_forecast())[self._steps(fh)]
        return pd.DataFrame(values, index=fh.to_absolute_index(self.cutoff), columns=self._rows.columns)

    def _predict_quantiles(self, fh: Any, X: pd.DataFrame | None, alpha: list[float]) -> pd.DataFrame:  # noqa: N803
        """Conformal quantiles at ``fh``: the forecast, and the quantiles of its errors."""
        forecast = self._scaled_forecast()
        scale = scale_of(self._scaled_context(), self._floor)[0]  # (1, channels)
        scaler, steps = self.bundle_.scalers[""], self._steps(fh)
        quantiles = [
            scaler.inverse(forecast + scale * conformal_quantile(self._scores, probability))[steps]
            for probability in alpha
        ]
        values = np.stack(quantiles, axis=-1).reshape(len(steps), -1)  # channel by channel
        columns = pd.MultiIndex.from_product([self._get_varnames(), alpha])
        return pd.DataFrame(values, index=fh.to_absolute_index(self.cutoff), columns=columns)

    def _update(
        self,
        y: pd.DataFrame,
        X: pd.DataFrame | None = None,  # noqa: N803
        update_params: bool = True,
    ) -> STanHopForecaster:
        """Forecast from the end of ``y`` on; with ``update_params``, learn from all rows so far before."""
        self._rows = update_data(self._rows, y)
        if update_params:
            series_set = _series_set([self._rows])
            self.bundle_ = self._adapted(self.bundle_, series_set)
            self._calibrate(series_set)
        return self

    def _pretrain(self, y: pd.DataFrame, X: pd.DataFrame | None = None, fh: Any = None) -> STanHopForecaster:  # noqa: N803
        """Train one network on all series of the panel ``y``."""
        if fh is None or not fh.is_relative:
            raise ValueError("STanHopForecaster.pretrain needs a relative horizon, such as pretrain(y, fh=[1, 2, 3])")
        self._seed = self._drawn_seed()
        self.pretrained_bundle_ = self._trained(_series_set(_tables_of(y)), horizon=int(fh.to_numpy().max()))
        return self

    def _pretrain_update(
        self,
        y: pd.DataFrame,
        X: pd.DataFrame | None = None,  # noqa: N803
        fh: Any = None,
    ) -> STanHopForecaster:
        """Train the network further on another panel."""
        self.pretrained_bundle_ = self._adapted(self.pretrained_bundle_, _series_set(_tables_of(y)))
        return self

    @classmethod
    def get_test_params(cls, parameter_set: str = "default") -> list[dict[str, Any]]:
        """Two small sets of parameters for sktime's tests."""
        tiny = {"model_dim": 4, "num_heads": 2, "num_levels": 1, "max_epochs": 1, "device": "cpu", "random_state": 7}
        sizes = {"model.feedforward_dim": 4, "model.num_memories": 2}
        return [
            {**tiny, "context_length": 4, "patch_length": 2, "settings": sizes},
            {**tiny, "patch_length": 3, "separation": "gsh", "validation": 0.0, "settings": sizes},
        ]

    # --- training -----------------------------------------------------------------------------------------------

    def _trained(self, series_set: SeriesSet, *, horizon: int) -> Bundle:
        """A new network, its context as long as asked for, or as half of the series allow."""
        lengths = [len(self._borders(len(one), horizon).train) for one in series_set.series]
        config = self._run_config(horizon=horizon, longest=longest_context(int(np.median(lengths)), horizon=horizon))
        return self._fitted(config, series_set)

    def _adapted(self, bundle: Bundle, series_set: SeriesSet) -> Bundle:
        """The network of ``bundle`` after ``update_epochs`` more on ``series_set``, if that has a window."""
        config = bundle.config
        needed = config.model.context_length + config.model.prediction_length
        lengths = [len(self._borders(len(one), config.model.prediction_length).train) for one in series_set.series]
        if self.update_epochs == 0 or max(lengths) < needed:
            scalers = {one.id: Scaler.fit(one.values) for one in series_set.series}
            return dataclasses.replace(bundle, scalers=scalers)
        train = config.train.model_copy(update={"max_epochs": self.update_epochs})
        updated = self._fitted(config.model_copy(update={"train": train}), series_set, bundle=bundle)
        return dataclasses.replace(updated, config=config)

    def _fitted(self, config: RunConfig, series_set: SeriesSet, *, bundle: Bundle | None = None) -> Bundle:
        horizon = config.model.prediction_length
        return fit_in_memory(
            config,
            series_set,
            borders_of=lambda series: self._borders(len(series), horizon),
            network=None if bundle is None else bundle.network,
            progress=self.verbose,
        )

    def _borders(self, length: int, horizon: int) -> Borders:
        return borders_for(length, horizon=horizon, validation=self.validation)

    def _run_config(self, *, horizon: int, longest: int) -> RunConfig:
        """The configuration that the parameters describe; a context no longer than ``longest``."""
        asked = MODEL.context_length if self.context_length is None else self.context_length
        if self.context_length is not None and asked > longest:
            problem = f"context_length {asked} is shortened to {longest}: the series has no more rows to learn from"
            warnings.warn(problem, UserWarning, stacklevel=2)
        context_length = min(asked, longest)
        model = {
            "context_length": context_length,
            "prediction_length": horizon,
            "patch_length": min(self.patch_length, context_length),
            "model_dim": self.model_dim,
            "num_heads": self.num_heads,
            "num_levels": self.num_levels,
            "separation": self.separation,
            "dropout": self.dropout,
            "seasonal_profile": False,  # steps are counted here, not dated
            "time_features": (),
        }
        train = {
            "max_epochs": self.max_epochs,
            "learning_rate": self.learning_rate,
            "batch_size": self.batch_size,
            "loss": self.loss,
            "device": self.device,
            "seed": self._seed,
        }
        own = Layer("STanHopForecaster", {"model": model, "train": train, "tracking": {"enabled": False}})
        return resolve([own, Layer("settings", nest(self.settings or {}))])

    def _drawn_seed(self) -> int:
        return int(check_random_state(self.random_state).randint(LARGEST_SEED))

    def _check_pretrained(self, pretrained: Bundle, y: pd.DataFrame, *, horizon: int) -> None:
        """Refuse a series that the pretrained network cannot forecast; warn of one shorter than its context."""
        model = pretrained.config.model
        if horizon > model.prediction_length:
            raise ValueError(f"fh reaches {horizon} steps, the pretrained network {model.prediction_length}")
        if y.shape[1] != pretrained.num_channels:
            raise ValueError(f"y has {y.shape[1]} columns, the pretrained network {pretrained.num_channels}")
        if len(y) < model.context_length:
            problem = f"the series has {len(y)} rows, its context {model.context_length}; the first row is repeated"
            warnings.warn(problem, UserWarning, stacklevel=2)

    # --- forecasting --------------------------------------------------------------------------------------------

    def _calibrate(self, series_set: SeriesSet) -> None:
        """Keep the scores of the windows whose outcome is known."""
        (series,) = series_set.series
        model = self.bundle_.config.model
        lengths = {"context_length": model.context_length, "prediction_length": model.prediction_length}
        rows = self._borders(len(series), model.prediction_length)
        unseen = origins(rows.validation, **lengths, is_first=False)
        learned = origins(rows.train, **lengths, is_first=True)
        if not (unseen or learned):  # pretrained, and the series has no window: the error of no window is known
            self._floor, self._scores = np.ones(series.values.shape[1]), np.zeros((1, *self._scaled_forecast().shape))
            return
        forecaster, scaler = Forecaster(self.bundle_, device=self._device), self.bundle_.scalers[""]
        errors = KnownErrors.of(
            *(
                list(roll(forecaster, series, each, scaler=scaler, batch_size=self.batch_size))
                for each in (unseen, learned)
            )
        )
        self._floor, self._scores = errors.floor, errors.scores()  # (windows, steps, channels)

    def _scaled_context(self) -> np.ndarray:
        """The last rows, ``(1, context_length, channels)``; the first is repeated where they do not suffice."""
        length = self.bundle_.config.model.context_length
        values = self._rows.to_numpy(dtype=np.float64)[-length:]
        padded = np.concatenate([np.repeat(values[:1], length - len(values), axis=0), values])
        return self.bundle_.scalers[""].transform(padded)[None]

    def _scaled_forecast(self) -> np.ndarray:
        """The forecast of every step, ``(prediction_length, channels)``."""
        forecast: np.ndarray = Forecaster(self.bundle_, device=self._device).predict(self._scaled_context())[0]
        return forecast

    @property
    def _device(self) -> Any:
        return self.bundle_.config.train.device

    def _steps(self, fh: Any) -> np.ndarray:
        """``fh`` as positions in a forecast, from 0."""
        steps: np.ndarray = fh.to_relative(self.cutoff).to_numpy().astype(np.int64) - 1
        if (steps < 0).any():
            raise NotImplementedError("STanHopForecaster forecasts the future only: fh must lie after the cutoff")
        return steps


def _check_index(index: pd.Index) -> None:
    """Explain what sktime answers with a bare TypeError."""
    if isinstance(index, pd.DatetimeIndex) and index.freq is None and len(index) > 2 and pd.infer_freq(index) is None:
        raise ValueError(
            "the times of y have no regular step, so the times of a forecast are not defined; bring y to one with "
            "y.asfreq('D') (or the step it has), or use a PeriodIndex or RangeIndex"
        )


def _tables_of(panel: pd.DataFrame) -> list[pd.DataFrame]:
    """The series of a panel or hierarchy: all levels of the index but the last tell them apart."""
    keys = list(range(panel.index.nlevels - 1))
    return [table for _, table in panel.groupby(level=keys, sort=False)]


def _series_set(tables: Sequence[pd.DataFrame]) -> SeriesSet:
    """``tables`` as series called ``""``, ``"1"``, ``"2"``, …, their columns as channels ``"0"``, ``"1"``, …."""
    channels = tuple(map(str, range(tables[0].shape[1])))
    series = [
        Series(
            id=str(number) if number else "",
            times=pd.date_range(FIRST_DAY, periods=len(table), freq="D", unit="us"),
            values=np.ascontiguousarray(table.to_numpy(dtype=np.float64)),
            channels=channels,
        )
        for number, table in enumerate(tables)
    ]
    return SeriesSet.of(series, Layout("wide", "time", None, channels))
