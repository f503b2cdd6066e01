"""The code that MLflow copies into a model and runs when it loads it."""

from mlflow.models import set_model

from stanhop.interop.pyfunc import ForecastModel

set_model(ForecastModel())
