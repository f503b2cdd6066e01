"""What a model directory holds once it is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn

from stanhop.config import RunConfig
from stanhop.forecasting.intervals import Intervals
from stanhop.model.int8 import Quantization
from stanhop.series.frame import Layout
from stanhop.series.scaling import Scaler


@dataclass(frozen=True, eq=False)
class Bundle:
    """A trained network with all that turns a raw history into a forecast in original units.

    Args:
        config: The resolved configuration of the run that made it.
        num_channels: Variates of one series.
        channels: Their names, in the order the network takes them.
        frequency: Step of time, as a pandas alias.
        layout: Layout of the training table.
        scalers: One scaler per series id.
        network: Maps scaled contexts ``(batch, context_length, columns)`` to scaled forecasts
            ``(batch, prediction_length, channels)``.
        fingerprint: SHA-256 of the training data.
        versions: Of the program and libraries that wrote the directory; empty before it is saved.
        quantization: How the linear maps of ``network`` were quantised; None if they are floats.
        intervals: Calibrated prediction intervals; None if there are none.
    """

    config: RunConfig
    num_channels: int
    channels: tuple[str, ...]
    frequency: str
    layout: Layout
    scalers: Mapping[str, Scaler]
    network: nn.Module
    fingerprint: str
    versions: Mapping[str, str] = field(default_factory=dict)
    quantization: Quantization | None = None
    intervals: Intervals | None = None

    @property
    def num_columns(self) -> int:
        """Columns of a context: the channels, and the time features that the network is told."""
        return self.num_channels + self.config.model.num_time_features
