"""``stanhop tracking``: what an MLflow server that did not answer is still to be told."""

from __future__ import annotations

from pathlib import Path

import typer

from stanhop.cli.options import TRACKING_FLAGS, Flags, command
from stanhop.cli.output import Output
from stanhop.config import resolve

app = typer.Typer(
    no_args_is_help=True,
    help="What an MLflow server has missed. Example: stanhop tracking send --tracking-uri http://…",
)
STORE_FLAGS = {key: names for key, names in TRACKING_FLAGS.items() if key != "tracking.enabled"}


@command(app, flags=STORE_FLAGS)
def send(*, flags: Flags, output: Output) -> None:
    """Send what is kept in mlflow-unsent of the current folder for this server; runs under way are left alone.

    Every training that reaches the server does this by itself. Sending twice records nothing twice.

    Example: stanhop tracking send --tracking-uri http://localhost:5000
    """
    from stanhop.errors import Code, MachineError, masked
    from stanhop.tracking.store import open_store, reason
    from stanhop.tracking.unsent import pending, send_all

    tracking = resolve(flags).tracking
    store = open_store(tracking, folder=Path.cwd(), is_required=True)
    try:
        num_sent = send_all(store)
    except Exception as error:  # MLflow and what lies under it each raise their own
        problem = f"tracking store {masked(store.uri)}: {reason(error)}; nothing is lost"
        raise MachineError(Code.TRACKING, problem, fix="send it again later") from error
    num_left = len(list(pending(store)))
    document = {"sent": num_sent, "left": num_left}
    left = f", {num_left} under way or being sent by another process" if num_left else ""
    output.result(document, human=f"{num_sent} run{'s' * (num_sent != 1)} sent{left}")
