"""The command line as a whole: one line for every error, the right exit code, results apart from everything else."""

from __future__ import annotations

import importlib
import json
import logging
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import typer

import stanhop
from stanhop.cli import app as app_module
from stanhop.cli.app import main
from stanhop.errors import Code, DataError, MachineError

ROOT = Path(stanhop.__file__).parent.parent
IN_A_CHECKOUT = (ROOT / "cli.py").exists()


def leaves(command: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Every command by the words that call it."""
    inner = getattr(command, "commands", None)
    if inner is None:
        return {path: command}
    return {words: leaf for name, child in inner.items() for words, leaf in leaves(child, (*path, name)).items()}


COMMANDS = leaves(typer.main.get_command(app_module.app))


def raise_instead(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Let ``stanhop config list`` fail with ``error``."""

    def fail() -> dict[str, Path]:
        raise error

    # the module, which the name `config` of this package's `app` stands for
    monkeypatch.setattr(importlib.import_module("stanhop.cli.config"), "preset_paths", fail)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example_of_itself(words: tuple[str, ...], run: Any) -> None:
    answer = run(*words, "--help")
    assert answer.code == 0
    assert answer.err == ""
    assert COMMANDS[words].help.count("Example: stanhop " + " ".join(words)) >= 1
    assert all(option.help for option in COMMANDS[words].params), "every option says what it does"


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_example_can_be_parsed(words: tuple[str, ...]) -> None:
    examples = re.findall(r"Example: stanhop (.*)", COMMANDS[words].help)
    for example in examples:
        arguments = example.replace("';'", ";").split()[len(words) :]
        context = COMMANDS[words].make_context(" ".join(words), arguments)
        assert not context.args, "every word is taken"


def test_the_groups_have_examples_too() -> None:
    for group in ("data", "config"):
        assert "Example: stanhop" in typer.main.get_command(app_module.app).commands[group].help  # type: ignore[attr-defined]  # a group has commands


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("trian", "no such command 'trian'; did you mean 'train'?"),
        ("data lst", "no such command 'lst'; did you mean 'list'?"),
        ("frobnicate", "no such command 'frobnicate'; see stanhop --help"),
        ("train --epoch 3", "no such option: --epoch; did you mean --epochs?"),
        ("train --data x --epochs 1.5", "'--epochs'"),
        ("train --data x --epochs", "option '--epochs' requires an argument"),
        ("train --data x --device gpu", "'gpu' is not one of 'auto', 'cpu', 'cuda'"),
        ("train --data x --missing maybe", "'maybe' is not one of 'error', 'ffill', 'interpolate', 'drop'"),
        ("train extra --data x", "unexpected extra argument"),
        ("train", "no data set or file is given; add --data NAME or --data FILE"),
        ("train --data x --format xml", "'xml' is not one of 'human', 'json', 'quiet'"),
        ("forecast --input x --output y", "missing option '--model'; see stanhop forecast --help"),
        ("forecast --model m --input x", "missing option '--output'"),
        ("evaluate --model m --split all", "'all' is not one of 'train', 'validation', 'test'"),
        ("data fetch", "missing argument 'NAME'"),
        ("data export synthetic", "missing argument 'CSV'"),
        ("config copy etth1", "missing argument 'FILE'"),
        ("config show --bogus", "no such option: --bogus"),
        ("evaluate --model m --batch-size 0", "'--batch-size'"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_code_2(line: str, text: str, run: Any) -> None:
    answer = run(*line.split())
    assert (answer.code, answer.out) == (2, "")
    assert len(answer.err.splitlines()) == 1
    assert answer.err.startswith("stanhop: error[E001]: ")
    assert text in answer.err


def test_no_arguments_give_the_help(run: Any) -> None:
    for arguments in ((), ("data",), ("config",)):
        answer = run(*arguments)
        assert answer.code == 2
        assert "Usage: stanhop" in answer.out
        assert answer.err == ""


def test_the_version_is_that_of_the_package(run: Any) -> None:
    answer = run("--version")
    assert (answer.code, answer.out) == (0, f"stanhop {stanhop.__version__}\n")


@pytest.mark.parametrize(
    "line",
    [
        "--format json train",
        "train --format json",
        "train --format=json",
        "--format=json train",
        "train --format json --debug",
    ],
)
def test_an_error_is_one_json_line_on_stderr_wherever_format_stands(line: str, run: Any) -> None:
    answer = run(*line.split())
    assert (answer.code, answer.out) == (2, "")
    assert answer.error["code"] == "E001"
    assert answer.error["exit_code"] == 2
    assert "--data" in answer.error["hint"]


def test_usage_errors_are_json_as_well(run: Any) -> None:
    assert run("data", "--format", "json", "lst").error["hint"] == "did you mean 'list'?"


def test_format_without_a_value_is_a_usage_error(run: Any) -> None:
    assert "option '--format' requires an argument" in run("train", "--format").err


def test_what_follows_two_dashes_is_left_alone() -> None:
    assert app_module._arrange(["forecast", "--debug", "--", "--format", "json"])[1] == [
        *("forecast", "--debug", "--", "--format", "json")
    ]


def test_options_before_the_verb_reach_it(run: Any) -> None:
    assert json.loads(run("--format", "json", "config", "list").out)["presets"] is not None
    assert run("--format", "quiet", "config", "list").out == ""


def test_a_user_s_error_has_its_own_exit_code_and_line(monkeypatch: pytest.MonkeyPatch, run: Any) -> None:
    error = DataError(Code.VALUE, "'x' is not a number", file="a.csv", line=3, column="y", fix="mend it")
    raise_instead(monkeypatch, error)
    answer = run("config", "list")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err == "stanhop: error[E105]: a.csv:3: column 'y': 'x' is not a number; mend it\n"
    raise_instead(monkeypatch, MachineError(Code.ENVIRONMENT, "disk full"))
    assert run("config", "list").code == 4


def test_debug_adds_the_traceback(monkeypatch: pytest.MonkeyPatch, run: Any) -> None:
    raise_instead(monkeypatch, DataError(Code.FILE, "odd"))
    assert "Traceback" not in run("config", "list").err
    answer = run("config", "list", "--debug")
    assert answer.err.startswith("Traceback")
    assert answer.err.endswith("error[E101]: odd\n")


def test_a_defect_is_one_line_that_names_a_log(monkeypatch: pytest.MonkeyPatch, run: Any, tmp_path: Path) -> None:
    raise_instead(monkeypatch, KeyError("https://me:secret@host"))
    answer = run("config", "list")
    assert answer.code == 1
    assert len(answer.err.splitlines()) == 1
    (log,) = (tmp_path / "state" / "stanhop").iterdir()
    assert answer.err.startswith("stanhop: error[E002]: KeyError: ")
    assert str(log) in answer.err
    assert "Traceback" in log.read_text()
    assert "KeyError" in log.read_text()
    assert "secret" not in answer.err + log.read_text()


def test_a_defect_is_reported_also_where_no_log_can_be_written(
    monkeypatch: pytest.MonkeyPatch, run: Any, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    for name in ("XDG_STATE_HOME", "HOME", "TMPDIR"):
        monkeypatch.setenv(name, str(tmp_path / "file" / "nothing"))
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "file"))
    raise_instead(monkeypatch, ZeroDivisionError("no"))
    answer = run("config", "list")
    assert answer.code == 1
    assert "ZeroDivisionError: 'no'; this is a defect; please report it with the output of --debug" in answer.err


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried …")]
)
def test_too_little_memory_is_the_machine_s_problem(
    error: Exception, monkeypatch: pytest.MonkeyPatch, run: Any
) -> None:
    raise_instead(monkeypatch, error)
    answer = run("config", "list")
    assert answer.code == 4
    assert "error[E402]: not enough memory; lower --batch-size" in answer.err


def test_ctrl_c_is_130(monkeypatch: pytest.MonkeyPatch, run: Any) -> None:
    raise_instead(monkeypatch, KeyboardInterrupt())
    assert run("config", "list").code == 130


def test_a_library_that_ends_the_process_does_so(monkeypatch: pytest.MonkeyPatch) -> None:
    raise_instead(monkeypatch, SystemExit(7))
    with pytest.raises(SystemExit) as leaving:
        main(["config", "list"])
    assert leaving.value.code == 7


def test_warnings_of_the_library_are_notes_on_stderr(monkeypatch: pytest.MonkeyPatch, run: Any) -> None:
    def warn() -> dict[str, Path]:
        logging.getLogger("stanhop.anything").warning("look at %s", "this")
        return {}

    monkeypatch.setattr(importlib.import_module("stanhop.cli.config"), "preset_paths", warn)
    assert run("config", "list").err == "stanhop: look at this\n"
    assert json.loads(run("config", "list", "--format", "json").err) == {"note": "look at this"}
    assert run("config", "list", "--format", "quiet").err == ""
    assert not logging.getLogger("stanhop").handlers


def test_main_takes_the_arguments_of_the_process_if_it_gets_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["stanhop", "--version"])
    assert main() == 0
    assert capsys.readouterr().out.startswith("stanhop ")


def python(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, **options)


def test_help_imports_nothing_that_is_slow() -> None:
    heavy = ("torch", "numpy", "pandas", "pytorch_lightning", "mlflow", "sktime", "matplotlib", "pooch", "requests")
    code = f"""
import sys
from stanhop.cli.app import main
for arguments in (["--help"], ["train", "--help"], ["data", "--help"], ["config", "list"], ["--version"]):
    assert main(arguments) == 0
print([name for name in {heavy!r} if name in sys.modules], file=sys.stderr)
"""
    done = python("-c", code, check=True)
    assert done.stderr.strip() == "[]"


@pytest.mark.slow
def test_help_takes_less_than_a_second() -> None:
    def seconds() -> float:
        begin = time.perf_counter()
        python("-m", "stanhop", "--help", check=True)
        return time.perf_counter() - begin

    assert min(seconds() for _ in range(5)) < 1


@pytest.mark.slow
def test_the_three_ways_to_call_it_are_one() -> None:
    answers = {python("-m", "stanhop", "config", "list", check=True).stdout}
    answers.add(
        python("-c", "from stanhop.cli.app import entry_point; entry_point()", "config", "list", check=True).stdout
    )
    if IN_A_CHECKOUT:
        answers.add(python(str(ROOT / "cli.py"), "config", "list", check=True).stdout)
    assert len(answers) == 1


@pytest.mark.slow
def test_exit_codes_reach_the_shell() -> None:
    assert python("-m", "stanhop", "trian").returncode == 2
    assert python("-m", "stanhop", "--version").returncode == 0


@pytest.mark.slow
def test_a_reader_that_leaves_early_is_no_error() -> None:
    for arguments in (["config", "show"], ["train", "--help"]):
        command = [sys.executable, "-m", "stanhop", *arguments]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        process.stderr.close()
        assert process.wait() == 0
