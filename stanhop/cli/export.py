"""``stanhop export``: a model directory in the form that other tools load."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from stanhop.cli.options import TRACKING_FLAGS, Flags, Model, command
from stanhop.cli.output import Output, aligned
from stanhop.config import Layer, RunConfig, resolve
from stanhop.errors import Code, MachineError, UsageError

if TYPE_CHECKING:
    from stanhop.forecasting.bundle import Bundle
    from stanhop.tracking.registry import Promotion
    from stanhop.tracking.store import Store

app = typer.Typer(
    no_args_is_help=True,
    help="Export a model for other tools. Example: stanhop export mlflow --model runs/ETTh1-1/model",
)

PYFUNC = "pyfunc"


@command(app, flags=TRACKING_FLAGS)
def mlflow(
    model: Model,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="MODEL", help="The registered model; stanhop-<data>-served if not given."),
    ] = None,
    alias: Annotated[
        Literal["champion", "challenger"], typer.Option("--alias", help="What the new version is to be.")
    ] = "challenger",
    folder: Annotated[
        Path | None,
        typer.Option("--output", metavar="FOLDER", help="Also write MLflow's model there.", show_default=False),
    ] = None,
    *,
    flags: Flags,
    output: Output,
) -> None:
    """Register a model so that `mlflow models serve` and `mlflow models predict` answer forecasts.

    What goes in is a table like the training data, time stamps as text; what comes out is what `stanhop forecast`
    writes. Loading it runs the code of the installed stanhop; the model directory itself holds none.

    Example: stanhop export mlflow --model runs/ETTh1-1/model --alias champion
    """
    from stanhop.forecasting.bundle import load_bundle
    from stanhop.storage import copy_directory, refuse_existing, temporary_folder
    from stanhop.tracking.store import open_store

    bundle = load_bundle(model)
    tracking = resolve([Layer(str(model), bundle.config.model_dump(mode="json")), *flags]).tracking
    if not tracking.enabled and folder is None:
        raise UsageError(Code.USAGE, "--no-tracking registers nothing", fix="add --output FOLDER")
    if folder is not None:
        refuse_existing(folder)
    store = open_store(tracking, folder=Path.cwd(), is_required=True) if tracking.enabled else None
    from stanhop.interop.pyfunc import save_pyfunc

    with temporary_folder() as place:
        made = place / PYFUNC
        save_pyfunc(made, model)
        if folder is not None:
            copy_directory(made, folder)
        done = None if store is None else _registered(store, bundle, made, name=name, alias=alias)
    served = str(folder) if done is None else done.uri
    document = {"model": model, "output": folder, "served": served, **({} if done is None else asdict(done))}
    facts = [
        *([] if folder is None else [("written", folder)]),
        *([] if done is None else [("model", f"{done.name}, version {done.version}"), (done.alias, done.uri)]),
        ("serve", f"mlflow models serve --env-manager local -m {served}"),
    ]
    output.result(document, human=aligned(facts))


def _registered(
    store: Store, bundle: Bundle, made: Path, *, name: str | None, alias: Literal["champion", "challenger"]
) -> Promotion:
    """Keep MLflow's model in a run of its own and register it from there."""
    from stanhop.tracking.registry import register, served_model_name
    from stanhop.tracking.run import recorded

    config: RunConfig = bundle.config
    dataset = Path(config.data.source).name
    tags = {
        "stanhop.command": "export mlflow",
        "stanhop.dataset": dataset,
        "stanhop.dataset_sha256": bundle.fingerprint,
        "stanhop.separation": config.model.separation,
    }
    with recorded(store, name=f"export-{dataset}", tags=tags) as run:
        run.log_config(config)
        run.log_folder(made)
        if run.run_id is None:
            problem = "MLflow could not record the model, so it is not registered"
            raise MachineError(Code.TRACKING, problem, fix="see the message before this one")
        return register(store, run.run_id, PYFUNC, name=name or served_model_name(dataset), alias=alias, tags=tags)
