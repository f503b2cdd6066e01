"""A model directory as MLflow's generic model: a table of histories in, a table of forecasts out.

Time stamps are text in both: MLflow turns no text of CSV or JSON into a declared date.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models.signature import ModelSignature
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.types.schema import ColSpec, DataType, ParamSchema, ParamSpec, Schema

import stanhop
from stanhop.errors import UserError
from stanhop.forecasting.bundle import Bundle, load_bundle
from stanhop.forecasting.forecaster import Forecaster
from stanhop.forecasting.in_memory import STEPS, forecast_table
from stanhop.forecasting.tables import value_columns

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # MLflow warns of type hints in classes of its own
    from mlflow.pyfunc import save_model
    from mlflow.pyfunc.model import PythonModel

SERVED_MODEL = Path(__file__).with_name("served_model.py")
MODEL = "model"
"""The model directory among the artifacts of MLflow's model."""
BARS = "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"


class ForecastModel(PythonModel):
    """Forecasts what follows each series of a table, as ``stanhop forecast`` does."""

    def load_context(self, context: Any) -> None:
        """Open the model directory."""
        self.forecaster = Forecaster(load_bundle(context.artifacts[MODEL]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Forecast every series in ``model_input``, a table like the training data.

        Args:
            context: MLflow's; not looked at.
            model_input: Time stamps as text, ids if the training data had any, and the channels.
            params: ``prediction_length``, to have fewer steps than the model forecasts.

        Returns:
            The columns that ``stanhop forecast`` writes, time stamps as text.

        Raises:
            MlflowException: the table cannot be used; a server answers 400 with what is wrong.
        """
        try:
            return forecast_table(self.forecaster, model_input, steps=(params or {}).get(STEPS))
        except UserError as error:
            raise MlflowException(error.message, error_code=INVALID_PARAMETER_VALUE) from error


def signature_of(bundle: Bundle) -> ModelSignature:
    """Names and types of the columns that go in and come out, and the parameter ``prediction_length``."""
    layout = bundle.layout
    keys = [name for name in (layout.id_column, layout.time_column) if name is not None]
    texts = [ColSpec(DataType.string, name) for name in keys]
    steps = ParamSpec(STEPS, DataType.long, default=bundle.config.model.prediction_length)
    return ModelSignature(
        inputs=Schema([*texts, *(ColSpec(DataType.double, name) for name in bundle.channels)]),
        outputs=Schema([*texts, *(ColSpec(DataType.double, name) for name in value_columns(bundle.channels, layout))]),
        params=ParamSchema([steps]),
    )


def save_pyfunc(path: Path, model_path: Path) -> None:
    """Write the MLflow model of the model directory at ``model_path`` into the new folder ``path``.

    Raises:
        ModelError: it is no model directory.
    """
    signature = signature_of(load_bundle(model_path))
    with _quiet():
        save_model(
            str(path),
            python_model=str(SERVED_MODEL),  # code, which is run when the model is loaded; nothing is pickled
            artifacts={MODEL: str(model_path)},
            signature=signature,
            pip_requirements=[f"stanhop=={stanhop.__version__}"],
            metadata={"stanhop.version": stanhop.__version__},
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """MLflow without its advice and its progress bars."""
    logger = logging.getLogger("mlflow")
    level, bars = logger.level, os.environ.get(BARS)
    logger.setLevel(logging.ERROR)
    os.environ[BARS] = "false"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
        os.environ.pop(BARS)
        if bars is not None:
            os.environ[BARS] = bars
