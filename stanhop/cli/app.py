"""The command ``stanhop``: its verbs, and the one place where errors become a line and an exit code."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from typer.exceptions import TyperException

import stanhop
from stanhop.cli import (
    backtest,
    bench,
    config,
    data,
    doctor,
    evaluate,
    export,
    forecast,
    outliers,
    quantize,
    report,
    runs,
    tracking,
    train,
    tune,
)
from stanhop.cli.output import Format, Output
from stanhop.errors import Code, InternalError, MachineError, UsageError, UserError, masked, quoted
from stanhop.storage import write_text

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False, rich_markup_mode="rich")
for verb in (train, forecast, evaluate, backtest, quantize, outliers, tune, report, doctor):
    app.add_typer(verb.app)
app.add_typer(data.app, name="data")
app.add_typer(config.app, name="config")
app.add_typer(runs.app, name="runs")
app.add_typer(tracking.app, name="tracking")
app.add_typer(export.app, name="export")
app.add_typer(bench.app, name="bench")


def _print_version(is_asked: bool) -> None:
    if is_asked:
        print(f"stanhop {stanhop.__version__}")
        raise typer.Exit


@app.callback()
def describe(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Forecast multivariate time series with STanHop-Net on outlier-efficient Hopfield layers.

    Example: stanhop train --data ETTh1
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        arguments: What follows the program's name; that of this process if not given.
    """
    output, arranged = _arrange(sys.argv[1:] if arguments is None else arguments)
    with _warnings_shown(output):
        return _run(arranged, output)


def entry_point() -> None:
    """The console script."""
    sys.exit(main())


def _run(arguments: list[str], output: Output) -> int:
    try:
        return app(arguments, standalone_mode=False, prog_name="stanhop") or 0
    except SystemExit as leaving:
        if isinstance(leaving.__context__, BrokenPipeError):  # typer's answer to a reader of the help text that left
            return 0
        raise
    except Exception as caught:
        if type(caught).__name__ == "NoArgsIsHelpError":  # typer has printed the help by now
            return 2
        return _report(caught, output)


class _Notes(logging.Handler):
    """Prints what the library logs the way that notes are printed."""

    def __init__(self, output: Output) -> None:
        super().__init__(logging.WARNING)
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        self._output.notes([record.getMessage()])


@contextmanager
def _warnings_shown(output: Output) -> Iterator[None]:
    handler = _Notes(output)
    logger = logging.getLogger("stanhop")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _arrange(arguments: Sequence[str]) -> tuple[Output, list[str]]:
    """What ``--format`` and ``--debug`` say, and ``arguments`` with these two behind the verb, where it takes them.

    They are looked for before the command line is parsed, since they decide how an error in it is printed.
    """
    end = arguments.index("--") if "--" in arguments else len(arguments)
    others: list[str] = []
    moved: list[str] = []
    formats: list[str] = []
    words = iter(arguments[:end])
    for word in words:
        if word == "--debug":
            moved.append(word)
        elif word == "--format":
            values = [value for value in [next(words, None)] if value is not None]
            formats += values
            moved += [word, *values]
        elif word.startswith("--format="):
            formats.append(word.removeprefix("--format="))
            moved.append(word)
        else:
            others.append(word)
    is_known = bool(formats) and formats[-1] in set(Format)
    output = Output(format=Format(formats[-1]) if is_known else Format.HUMAN, debug="--debug" in moved)
    return output, [*others, *moved, *arguments[end:]]


def _report(caught: Exception, output: Output) -> int:
    """Print what went wrong and return the exit code."""
    problem = _as_user_error(caught)
    if problem is None:
        problem = _as_defect(caught)
    if output.debug:
        print(masked("".join(traceback.format_exception(caught))), file=sys.stderr, end="")
    output.error(problem)
    return problem.exit_code


def _as_user_error(caught: Exception) -> UserError | None:
    """The error a user can act on, if ``caught`` is one or stands for one."""
    if isinstance(caught, UserError):
        return caught
    if isinstance(caught, TyperException):
        return _usage_error(caught)
    text = str(caught)
    # torch's CPU allocator raises a bare RuntimeError; its CUDA allocator a class that is not worth importing torch for
    if isinstance(caught, MemoryError) or "DefaultCPUAllocator" in text or type(caught).__name__ == "OutOfMemoryError":
        return MachineError(Code.ENVIRONMENT, "not enough memory", fix="lower --batch-size or the sizes of the model")
    return None


def _usage_error(caught: TyperException) -> UsageError:
    problem = caught.format_message().split(" (Possible options:")[0].rstrip(".").replace("Value error, ", "")
    possible = getattr(caught, "possibilities", None)
    command = getattr(getattr(caught, "ctx", None), "command_path", "stanhop")
    fix = f"did you mean {possible[0]}?" if possible else f"see {command} --help"
    if "Did you mean" in problem:
        problem, _, guess = problem.partition(". Did you mean ")
        fix = f"did you mean {guess.split(',')[0].rstrip('?')}?"
    return UsageError(Code.USAGE, problem[:1].lower() + problem[1:], fix=fix)


def _as_defect(caught: Exception) -> InternalError:
    """The line about an error that should not have happened, with the place of its traceback."""
    report = masked("".join(traceback.format_exception(caught)))
    name = f"defect-{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}.log"
    problem = f"{type(caught).__name__}: {quoted(caught)}"
    for folder in _log_folders():
        try:
            write_text(folder / name, report)
        except (MachineError, OSError, RuntimeError):
            continue
        return InternalError(Code.INTERNAL, problem, fix=f"this is a defect; please report it with {folder / name}")
    return InternalError(Code.INTERNAL, problem, fix="this is a defect; please report it with the output of --debug")


def _log_folders() -> list[Path]:
    """Where logs may go, best first: this user's state folder, then one for temporary files."""
    state = os.environ.get("XDG_STATE_HOME")
    folders = [Path(state) / "stanhop"] if state else []
    try:
        folders.append(Path.home() / ".local" / "state" / "stanhop")
        folders.append(Path(tempfile.gettempdir()))
    except (OSError, RuntimeError):  # no home, or no folder for temporary files
        pass
    return folders
