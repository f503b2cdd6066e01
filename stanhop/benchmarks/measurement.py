"""One line's worth of a table of accuracy, a forecaster on the test rows at one horizon; and how figures are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from stanhop.config import Section
from stanhop.errors import Code, OutputError, quoted
from stanhop.storage import write_text

Figures = TypeVar("Figures", bound=Section)


class WholeBatches(Section):
    """Errors in scaled units over the first windows, as many as fill batches of ``batch_size``."""

    batch_size: int
    mse: float
    mae: float
    num_windows: int


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
    step_ms: float | None = None
    """Median time of a training step, the networks of the grid in turns; None of other forecasters."""
    outliers: dict[str, float] | None = None
    """Kurtosis and inf-norm by selection of outputs, as MLflow names them; None of other forecasters."""
    in_whole_batches: tuple[WholeBatches, ...] = ()
    """The same forecasts over the windows that published figures are of; empty of other forecasters."""


def keep(path: Path, figures: Section) -> None:
    """Write ``figures`` to ``path``, whole or not at all."""
    write_text(path, figures.model_dump_json(indent=2) + "\n")


def kept(path: Path, kind: type[Figures]) -> Figures | None:
    """The figures at ``path``; None if there are none.

    Raises:
        OutputError: the file is damaged.
    """
    if not path.exists():
        return None
    try:
        return kind.model_validate_json(path.read_bytes())
    except ValidationError as error:
        problem = f"is damaged: {quoted(str(error).splitlines()[0])}"
        raise OutputError(Code.OUTPUT, problem, fix="delete it to have it measured again", file=path) from None
