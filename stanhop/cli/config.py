"""``stanhop config``: list, show and copy presets."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from stanhop.cli.layers import run_layers
from stanhop.cli.options import READ_FLAGS, TRAIN_FLAGS, Assignments, Files, Flags, Overwrite, command
from stanhop.cli.output import Output, aligned
from stanhop.config import find_preset, flatten, origin_of_keys, resolve
from stanhop.resources import preset_paths
from stanhop.storage import refuse_existing, write_text

app = typer.Typer(no_args_is_help=True, help="List, show and copy presets. Example: stanhop config show etth1")


@command(app, name="list")
def list_presets(*, output: Output) -> None:
    """Name every preset and say what it is for.

    Example: stanhop config list
    """
    presets = [{"name": name, "description": _first_comment(path)} for name, path in preset_paths().items()]
    output.result({"presets": presets}, human=aligned([tuple(preset.values()) for preset in presets]))


@command(app, flags=TRAIN_FLAGS | READ_FLAGS)
def show(
    preset: Annotated[str | None, typer.Argument(metavar="[PRESET]", help="A preset, or a YAML file.")] = None,
    data: Annotated[str | None, typer.Option("--data", help="As for `stanhop train`.")] = None,
    files: Files = None,
    assignments: Assignments = None,
    *,
    flags: Flags,
    output: Output,
) -> None:
    """Print every key of a configuration, its value, and where that was set.

    Example: stanhop config show etth1 --set model.dropout=0.1
    """
    layers = run_layers(
        data=data,
        preset=preset,
        files=files or [],
        assignments=assignments or [],
        flags=flags,
        environment=os.environ,
    )
    values = flatten(resolve(layers).model_dump(mode="json"))
    origins = origin_of_keys(layers)
    keys = {key: {"value": value, "origin": origins[key]} for key, value in values.items()}
    rows = [(key, json.dumps(value, ensure_ascii=False), origins[key]) for key, value in values.items()]
    output.result({"keys": keys}, human=aligned(rows))


@command(app)
def copy(
    preset: Annotated[str, typer.Argument(metavar="PRESET", help="A preset's name.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write.")],
    overwrite: Overwrite = False,
    *,
    output: Output,
) -> None:
    """Copy a preset to a file of your own, to change it and use it with -c.

    Example: stanhop config copy etth1 mine.yaml
    """
    source = find_preset(preset)
    if not overwrite:
        refuse_existing(file)
    write_text(file, source.read_text(encoding="utf-8"))
    output.result({"file": file}, human=f"{file}")


def _first_comment(path: Path) -> str:
    first_line = path.read_text(encoding="utf-8").partition("\n")[0]
    return first_line.removeprefix("#").strip()
