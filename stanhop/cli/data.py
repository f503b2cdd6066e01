"""``stanhop data``: list and fetch named data sets, inspect and export any."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stanhop.cli.layers import SYNTHETIC, data_set_layers
from stanhop.cli.options import READ_FLAGS, Flags, NoProgress, Overwrite, command
from stanhop.cli.output import Output, aligned
from stanhop.config import Layer, resolve
from stanhop.errors import MachineError

if TYPE_CHECKING:
    from stanhop.series.catalog import DataSet
    from stanhop.series.frame import Series, SeriesSet

app = typer.Typer(
    no_args_is_help=True, help="List and fetch named data sets, inspect and export any. Example: stanhop data list"
)

MOST_SERIES_SHOWN = 20

Source = Annotated[str, typer.Argument(metavar="NAME|FILE", help="A named data set, or a CSV or Parquet file.")]


@command(app, name="list")
def list_data_sets(*, output: Output) -> None:
    """Name the known data sets, what they are, and whether they are on this machine.

    Example: stanhop data list
    """
    from stanhop.series.catalog import data_sets

    entries = [_built_in(), *map(_described, data_sets().values())]
    heads = ["name", "step", "channels", "rows", "at hand", "title"]
    rows = [
        [entry["name"], entry["frequency"], entry["num_channels"], entry["num_rows"], entry["state"], entry["title"]]
        for entry in entries
    ]
    output.result({"data_sets": entries}, human=aligned([heads, *rows]))


@command(app)
def fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A named data set; `stanhop data list` names them.")],
    no_progress: NoProgress = False,
    *,
    output: Output,
) -> None:
    """Download a named data set, unless it is here already, and verify its checksum.

    Example: stanhop data fetch ETTh1
    """
    from stanhop.series import catalog

    if name == SYNTHETIC:
        output.result({"name": name, "path": None}, human="synthetic is built in; there is nothing to fetch")
        return
    path = catalog.fetch(catalog.find(name), progress=output.is_human and not no_progress)
    output.result({"name": name, "path": path}, human=f"{path}")


@command(app, flags=READ_FLAGS)
def inspect(source: Source, *, flags: Flags, output: Output) -> None:
    """Say how data are read: layout, time column, frequency, channels; or what is wrong with them.

    Example: stanhop data inspect sales.csv --sep ';' --decimal ,
    """
    series_set = _load(source, flags)
    output.notes(series_set.notes)
    document = _summary(source, series_set)
    output.result(document, human=_text(document))


@command(app, flags=READ_FLAGS)
def export(
    source: Source,
    file: Annotated[Path, typer.Argument(metavar="CSV", help="The file to write.")],
    first: Annotated[int | None, typer.Option("--first", min=1, help="Only the first rows of each series.")] = None,
    last: Annotated[int | None, typer.Option("--last", min=1, help="Only the last rows (of these).")] = None,
    overwrite: Overwrite = False,
    *,
    flags: Flags,
    output: Output,
) -> None:
    """Write data as they are read (gaps filled and all) to a plain CSV file.

    Example: stanhop data export synthetic new/synthetic.csv --last 1000
    """
    from stanhop.series.write import csv_bytes
    from stanhop.storage import refuse_existing, write_bytes

    if not overwrite:
        refuse_existing(file)
    series_set = _load(source, flags)
    output.notes(series_set.notes)
    write_bytes(file, csv_bytes(series_set, first=first, last=last))
    output.result({"file": file}, human=f"{file}")


def _load(source: str, flags: Flags) -> SeriesSet:
    from stanhop.series.load import load_series

    return load_series(resolve([*data_set_layers(source), *flags, Layer("source", {"data": {"source": source}})]).data)


def _built_in() -> dict[str, Any]:
    from stanhop.series.synthetic import generate

    series_set = generate()
    return {
        "name": SYNTHETIC,
        "title": "Toy energy market, drawn from a seed",
        "frequency": series_set.frequency,
        "num_channels": series_set.num_channels,
        "num_rows": len(series_set.series[0]),
        "licence": None,
        "url": None,
        "path": None,
        "state": "built in",
    }


def _described(data_set: DataSet) -> dict[str, Any]:
    from stanhop.series.catalog import locate

    try:
        path = locate(data_set)
        state = "no" if path is None else "yes"
    except MachineError:
        path, state = None, "damaged"
    return {
        "name": data_set.name,
        "title": data_set.title,
        "frequency": data_set.frequency,
        "num_channels": data_set.num_channels,
        "num_rows": data_set.num_rows,
        "licence": data_set.licence,
        "url": data_set.url,
        "path": path,
        "state": state,
    }


def _summary(source: str, series_set: SeriesSet) -> dict[str, Any]:
    layout = series_set.layout
    return {
        "source": source,
        "layout": layout.kind,
        "time_column": layout.time_column,
        "id_column": layout.id_column,
        "frequency": series_set.frequency,
        "channels": list(series_set.channels),
        "fingerprint": series_set.fingerprint,
        "series": [_extent(one) for one in series_set.series],
        "notes": list(series_set.notes),
    }


def _extent(series: Series) -> dict[str, Any]:
    return {
        "id": series.id,
        "num_rows": len(series),
        "first": series.times[0].isoformat(sep=" "),
        "last": series.times[-1].isoformat(sep=" "),
        "ranges": {
            channel: [float(column.min()), float(column.max())]
            for channel, column in zip(series.channels, series.values.T, strict=True)
        },
    }


def _text(summary: dict[str, Any]) -> str:
    series = summary["series"]
    facts = [
        ("layout", summary["layout"]),
        ("time column", summary["time_column"]),
        *([("id column", summary["id_column"])] if summary["id_column"] else []),
        ("frequency", summary["frequency"]),
        ("channels", ", ".join(summary["channels"])),
        ("series", len(series)),
        ("fingerprint", summary["fingerprint"]),
    ]
    extents: list[tuple[str, ...]] = [("id", "rows", "first", "last")]
    extents += [(one["id"], f"{one['num_rows']:,}", one["first"], one["last"]) for one in series[:MOST_SERIES_SHOWN]]
    if summary["id_column"] is None:
        extents = [extent[1:] for extent in extents]
    ranges = [("channel", "lowest", "highest")]
    ranges += [(channel, f"{low:.6g}", f"{high:.6g}") for channel, (low, high) in series[0]["ranges"].items()]
    blocks = [aligned(facts), aligned(extents)]
    if len(series) > MOST_SERIES_SHOWN:
        blocks.append(f"and {len(series) - MOST_SERIES_SHOWN:,} more")
    of_whom = "" if summary["id_column"] is None else f"of {series[0]['id']}:\n"
    return "\n\n".join([*blocks, f"{of_whom}{aligned(ranges)}"])
