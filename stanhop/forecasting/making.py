"""From one input to the bytes of its outputs: read, forecast, laid out as a table and drawn; nothing is written."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass

from stanhop.config import DataConfig
from stanhop.errors import DataError, UserError
from stanhop.forecasting.bundle import Bundle
from stanhop.forecasting.forecaster import DEFAULT_BATCH_SIZE, Device, Forecast, Forecaster
from stanhop.forecasting.tables import table_bytes
from stanhop.forecasting.tasks import Task
from stanhop.series.frame import Series, SeriesSet
from stanhop.series.load import read_series_file


@dataclass(frozen=True)
class Recipe:
    """How outputs are made, beside the model they are made with.

    Args:
        reading: How to read the inputs.
        raw_ids: Leave text of CSV outputs as it is, also where a spreadsheet may take it for a formula.
        device: Where to compute.
        batch_size: Series of a long table that are computed together.
        is_compiled: Whether torch compiles the network first; see ``Forecaster``.
        levels: Prediction intervals to write beside each forecast, in percent.
    """

    reading: DataConfig
    raw_ids: bool = False
    device: Device = "auto"
    batch_size: int = DEFAULT_BATCH_SIZE
    is_compiled: bool = False
    levels: tuple[float, ...] = ()


@dataclass(frozen=True)
class Made:
    """What became of one input.

    Args:
        contents: The bytes of each output by its name, the table first.
        batch_size: Series computed together; less than asked for if memory did not suffice.
        notes: What was inferred on the way, one line each.
    """

    contents: dict[str, bytes]
    batch_size: int
    notes: tuple[str, ...]


class Maker:
    """Makes the outputs of tasks, one after the other, in this process.

    Args:
        bundle: The model.
        recipe: How to apply it.

    Raises:
        UsageError: as ``Forecaster``.
    """

    def __init__(self, bundle: Bundle, recipe: Recipe) -> None:
        self.recipe = recipe
        self.forecaster = Forecaster(
            bundle,
            device=recipe.device,
            batch_size=recipe.batch_size,
            is_compiled=recipe.is_compiled,
            levels=recipe.levels,
        )

    def make_all(self, tasks: Iterable[Task]) -> Generator[tuple[Task, Made | UserError]]:
        """Each of ``tasks`` with what it became, as soon as it is done."""
        for task in tasks:
            yield task, self.answer(task)

    def answer(self, task: Task) -> Made | UserError:
        """What ``task`` becomes, or why it cannot be done."""
        try:
            return self._make(task)
        except UserError as error:
            return error

    def _make(self, task: Task) -> Made:
        needed = self.forecaster.bundle.config.model.context_length
        series_set = read_series_file(task.source.path, self.recipe.reading, minimum_length=needed)
        forecasts = self._forecasts_of(series_set, task)
        contents = {
            task.name: table_bytes(
                forecasts, series_set.layout, table_format=task.table_format, raw_ids=self.recipe.raw_ids
            )
        }
        if task.plot_name is not None:
            contents[task.plot_name] = _plot(series_set.series, forecasts)
        return Made(contents, min(forecast.batch_size for forecast in forecasts), series_set.notes)

    def _forecasts_of(self, series_set: SeriesSet, task: Task) -> list[Forecast]:
        try:
            if series_set.layout.kind == "wide":
                return [self.forecaster.forecast(series_set.series[0])]
            return self.forecaster.forecast_all(series_set.series)
        except DataError as error:  # the forecaster knows no file
            raise DataError(error.code, error.problem, fix=error.fix, file=task.source.path) from None


def _plot(series: Sequence[Series], forecasts: Sequence[Forecast]) -> bytes:
    from stanhop.forecasting.plots import forecast_plots  # matplotlib: only those who ask for plots wait for it

    return forecast_plots(list(zip(series, forecasts, strict=True)))
