"""One figure of a table of accuracy: a forecaster measured on the test rows of a data set at one horizon."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from stanhop.config import Section
from stanhop.errors import Code, OutputError, quoted
from stanhop.storage import write_text


class Measurement(Section):
    """How wrong one forecaster is, in scaled units, over the windows whose targets lie in the test rows."""

    data: str
    """Name of the data set."""
    prediction_length: int
    model: str
    """Name of the forecaster, as the table calls it."""
    seed: int | None
    """None where nothing is drawn."""
    mse: float
    mae: float
    num_windows: int
    stride: int
    """Every which window was measured; 1 is all of them."""
    seconds: float
    """Time of training or, where nothing is trained, of forecasting."""
    num_parameters: int | None
    settings: dict[str, Any]
    """What the forecaster was made with; a measurement is taken up again only if these are the same."""


def write_measurement(path: Path, measurement: Measurement) -> None:
    """Keep ``measurement`` at ``path``, whole or not at all."""
    write_text(path, measurement.model_dump_json(indent=2) + "\n")


def read_measurement(path: Path) -> Measurement | None:
    """The measurement at ``path``; None if there is none.

    Raises:
        OutputError: the file is damaged.
    """
    if not path.exists():
        return None
    try:
        return Measurement.model_validate_json(path.read_bytes())
    except ValidationError as error:
        problem = f"is damaged: {quoted(str(error).splitlines()[0])}"
        raise OutputError(Code.OUTPUT, problem, fix="delete it to have it measured again", file=path) from None
