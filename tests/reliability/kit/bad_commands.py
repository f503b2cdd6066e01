"""Command lines, settings, model directories and batches that cannot be."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.reliability.kit import samples
from tests.reliability.kit.mistakes import Case, Prepare, nothing, raw, text


def options() -> Iterator[Case]:
    """Command lines that cannot be."""
    good = ("train", "--data", "table.csv")
    for words, says in (
        (("trian",), "train"),
        (("train", "--dta", "x"), "--data"),
        (("forecast",), "--model"),
        (("train",), "--data"),
        ((*good, "--epochs", "many"), "--epochs"),
        ((*good, "--epochs", "1.5"), "--epochs"),
        ((*good, "--seed", ""), "--seed"),
        ((*good, "--device", "tpu"), "tpu"),
        ((*good, "--missing", "guess"), "guess"),
        ((*good, "--decimal", ";"), "--decimal"),
        ((*good, "--duplicates", "last"), "last"),
        (("data", "inspct"), "inspect"),
        (("config", "show", "--presett", "x"), "--preset"),
        (("data",), "data"),
        (("forecast", "--model", "m", "--output", "o", "--batch-size", "0", "--input", "x"), "--batch-size"),
        (("forecast", "--model", "m", "--output", "o", "--jobs", "0", "--input", "x"), "--jobs"),
        (("quantize", "--model", "m", "--scheme", "w1a1"), "w1a1"),
        (("evaluate", "--model", "m", "--split", "all"), "all"),
        (("data", "fetch", "nothing"), "nothing"),
        (("data", "export", "synthetic"), "export"),
        (("config", "copy", "x"), "FILE"),
        (("quantize", "--model", "m", "--max-degradation", "much"), "much"),
        (("outliers",), "--model"),
        (("-x",), "-x"),
        (("quantize", "--model", "m", "--scheme", "w8a16", "--backend", "static"), "static"),
        (("bench", "speed"), "speed"),
    ):
        yield Case(f"stanhop {' '.join(words)}", nothing, words, names=says)


NO_SETTINGS = (
    "model.dropot=0.1",
    "model.dropout=1.0",
    "model.dropout=-0.1",
    "model.dropout=abc",
    "model.context_length=0",
    "model.context_length=-1",
    "model.context_length=1.5",
    "model.context_length=1000000000",
    "model.prediction_length=0",
    "model.prediction_length=-1",
    "model.prediction_length=1.5",
    "model.prediction_length=1000000000",
    "model.num_heads=3",
    "model.patch_length=10000",
    "model.model_dim=0",
    "model.separation=relu",
    "model.network=transformer",
    "model.gate=maybe",
    "model.num_levels=1000",
    "model.num_updates=0",
    "train.max_epochs=0",
    "train.learning_rate=0",
    "train.learning_rate=-1",
    "train.learning_rate=inf",
    "train.learning_rate=nan",
    "train.batch_size=0",
    "train.seed=-1",
    "train.seed=4294967296",
    "train.patience=-1",
    "train.precision=8-true",
    "train.loss=rmse",
    "train.gradient_clip=0",
    "train.devices=0",
    "data.split.train=1.5",
    "data.split.train=0",
    "data.decimal=;",
    "data.thousands=.",
    "data.separator=:",
    "tracking.uri=5",
    "nothing.at=all",
    "model=3",
    "novalue",
    "=3",
    "model.=3",
    ".dropout=1",
    "model.dropout",
    "train.max_epochs=true",
)


def configs() -> Iterator[Case]:
    """Keys and values that do not hold together: as settings, in files, in the environment."""
    for setting in NO_SETTINGS:
        key = setting.split("=")[0].strip(".").split(".")[0]
        yield Case(f"--set {setting}", nothing, ("config", "show", "--set", setting), names=key)
    for name, content, says in (
        ("unknown key", "model:\n  dropot: 0.1\n", "dropot"),
        ("unknown section", "modell:\n  dropout: 0.1\n", "modell"),
        ("a key twice", "model:\n  dropout: 0.1\n  dropout: 0.2\n", "dropout"),
        ("a wrong type", "train:\n  seed: one\n", "seed"),
        ("an object", "model: !!python/object/apply:os.system ['true']\n", "c.yaml"),
        ("a list", "- 1\n- 2\n", "c.yaml"),
        ("no YAML", "model: {dropout: 0.1\n", "c.yaml"),
        ("a tab", "model:\n\tdropout: 0.1\n", "c.yaml"),
        ("empty text", "text", "c.yaml"),
        ("a date", "train:\n  seed: 2021-01-01\n", "seed"),
        ("null", "train:\n  seed: null\n", "seed"),
        ("bytes", "a: \x01\n", "c.yaml"),
        ("an alias bomb", "a: &a [x,x]\nb: &b [*a,*a]\nmodel: [*b,*b]\n", "c.yaml"),
    ):
        yield Case(f"a file with {name}", text(content, "c.yaml"), ("config", "show", "-c", "c.yaml"), names=says)
    yield Case("no such file of settings", nothing, ("config", "show", "-c", "no.yaml"), names="no.yaml")
    yield Case(
        "a file that is no text", raw(b"\xff\xfe\x00", "c.yaml"), ("config", "show", "-c", "c.yaml"), names="c.yaml"
    )
    yield Case("no such preset", nothing, ("train", "--data", "synthetic", "--preset", "ett"), names="ett")


def models() -> Iterator[Case]:
    """Paths that are no model directories, and directories that are damaged."""
    command = ("forecast", "--model", "model", "--input", "table.csv", "--output", "out")

    def changed(change: Callable[[Path], None]) -> Prepare:
        def prepare(folder: Path, model: Path) -> None:
            samples.write_csv(folder / "table.csv", samples.rows())
            change(Path(shutil.copytree(model, folder / "model")))

        return prepare

    def without(name: str) -> Callable[[Path], None]:
        return lambda path: (path / name).unlink()

    def cut(name: str) -> Callable[[Path], None]:
        return lambda path: void((path / name).write_bytes((path / name).read_bytes()[:-7]))

    def emptied(name: str) -> Callable[[Path], None]:
        return lambda path: void((path / name).write_bytes(b""))

    def swapped(name: str) -> Callable[[Path], None]:
        return lambda path: void((path / name).write_bytes(bytes(reversed((path / name).read_bytes()))))

    def linked(name: str) -> Callable[[Path], None]:
        def change(path: Path) -> None:
            (path / name).rename(path.parent / name)
            (path / name).symlink_to(path.parent / name)

        return change

    for name in ("manifest.json", "config.json", "model.safetensors", "scaler.json"):
        for what, change in (
            ("is gone", without),
            ("is cut", cut),
            ("is empty", emptied),
            ("is other", swapped),
            ("is a link", linked),
        ):
            yield Case(f"{name} {what}", changed(change(name)), command, names=name if what != "is gone" else "model")

    def newer(path: Path) -> None:
        manifest = json.loads((path / "manifest.json").read_bytes())
        manifest["format_version"] = 99
        (path / "manifest.json").write_text(json.dumps(manifest))

    yield Case("a newer format", changed(newer), command, names="manifest.json", says=("upgrade",))
    yield Case(
        "an empty folder as model",
        changed(lambda path: void(shutil.rmtree(path), path.mkdir())),
        command,
        names="model",
    )

    def text_file(path: Path) -> None:
        shutil.rmtree(path)
        path.write_text("a model")

    yield Case("a text file as model", changed(text_file), command, names="model", says=("stanhop model",))
    for address in ("http://localhost/model", "https://example.org/m", "s3://bucket/model", "file:///model"):
        words = ("forecast", "--model", address, "--input", "table.csv", "--output", "out")
        yield Case(f"--model {address}", nothing, words, names="model", says=("local path",))
    for verb in (("evaluate",), ("quantize",), ("outliers",)):
        yield Case(f"{verb[0]} without a model", nothing, (*verb, "--model", "nowhere"), names="nowhere")


def void(*_: object) -> None:
    """Takes what lambdas made and gives nothing back."""


def batches() -> Iterator[Case]:
    """Inputs and outputs that do not fit together."""

    def ready(folder: Path, model: Path) -> None:
        shutil.copytree(model, folder / "model")
        samples.write_csv(folder / "table.csv", samples.rows())
        samples.write_csv(folder / "other.csv", samples.rows(30))
        (folder / "empty").mkdir()
        (folder / "file").write_text("")
        (folder / "foreign").mkdir()
        (folder / "foreign" / "table.csv").write_text("mine")

    base = ("forecast", "--model", "model")
    for name, words, says, code in (
        ("no input", ("--output", "out"), "input", 2),
        ("an empty folder", ("--input", "empty", "--output", "out"), "empty", 2),
        ("a pattern of nothing", ("--input", "*.parquet", "--output", "out"), "*.parquet", 2),
        ("over the input", ("--input", "table.csv", "--output", "."), "table.csv", 2),
        ("over the input itself", ("--input", "table.csv", "--output", "table.csv"), "table.csv", 2),
        ("two inputs, one file", ("--input", "table.csv", "--input", "other.csv", "--output", "o.csv"), "o.csv", 2),
        ("over a file of mine", ("--input", "table.csv", "--output", "foreign"), "table.csv", 2),
        ("below a file", ("--input", "table.csv", "--output", "file/out"), "file", 4),
        ("no such input", ("--input", "no.csv", "--output", "out"), "no.csv", 2),
        (
            "a format that does not fit",
            ("--input", "table.csv", "--output", "o.csv", "--format-out", "parquet"),
            "o.csv",
            2,
        ),
        ("a device that is not there", ("--input", "table.csv", "--output", "out", "--device", "cuda"), "--device", 2),
        ("other channels", ("--input", "table.csv", "--output", "out", "--target-columns", "load"), "wind", 2),
        ("another frequency", ("--input", "daily.csv", "--output", "out"), "daily.csv", 2),
        ("all inputs bad", ("--input", "bad", "--output", "out"), "bad", 2),
    ):

        def prepare(folder: Path, model: Path) -> None:
            ready(folder, model)
            daily = [
                [f"2021-{1 + n // 28:02}-{1 + n % 28:02}" if n else "date", *line[1:]]
                for n, line in enumerate(samples.rows(28))
            ]
            samples.write_csv(
                folder / "daily.csv",
                [daily[0], *[[f"2021-01-{n:02}", *line[1:]] for n, line in enumerate(daily[1:], 1)]],
            )
            for number in (1, 2):
                samples.write_csv(folder / "bad" / f"{number}.csv", samples.rows(5))

        yield Case(f"forecast: {name}", prepare, (*base, *words), code=code, names=says)
    yield Case("resume of nothing", ready, ("train", "--data", "table.csv", "--resume"), names="runs", says=("no run",))
    resume = ("train", "--data", "table.csv", "--resume", "--output", "empty")
    yield Case("resume without a checkpoint", ready, resume, names="empty", says=("no checkpoint",))
    yield Case(
        "a run over other files", ready, ("train", "--data", "table.csv", "--output", "foreign"), names="foreign"
    )
    yield Case("a run over a file", ready, ("train", "--data", "table.csv", "--output", "file"), names="file")


GROUPS = (options, configs, models, batches)
