"""What keeps the house in order: who may import whom, what is done in one place only, how a file opens."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import stanhop

PACKAGE = Path(stanhop.__file__).parent
FILES = sorted(path for path in PACKAGE.rglob("*.py") if "_bundled" not in path.parts)

ROWS = [
    {"errors", "resources", "config", "storage"},
    {"kernels", "series"},
    {"hopfield"},
    {"model"},
    {"forecasting"},
    {"quantization", "tracking"},
    {"training", "series.datamodule", "report"},
    {"benchmarks", "tuning"},
    {"interop", "cli", "__main__"},
]
ROW = {name: row for row, names in enumerate(ROWS) for name in names}
PACKAGE_ITSELF = "__init__"
"""It may name what it likes, lazily; and all may ask it for ``__version__``."""

MAY_IMPORT: dict[str, set[str]] = {
    "__init__": set(),
    "__main__": set(),
    "errors": set(),
    "resources": set(),
    "config": {"pydantic", "yaml"},
    "storage": {"filelock"},
    "cli": {"pydantic", "typer"},
}
"""What these import from elsewhere when they are imported themselves; the rest costs the start of every command."""


def ids(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def row_of(module: str) -> int:
    return ROW.get(module, ROW.get(module.split(".")[0], len(ROWS)))


def imported_modules(tree: ast.AST) -> Iterator[str]:
    """Dotted names that ``tree`` imports, at its top or inside a function."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "stanhop":
            yield from (f"stanhop.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_by(path: Path) -> set[str]:
    """Our modules that the file imports, cut to two parts: ``{"series.read", "config"}``."""
    names = imported_modules(ast.parse(path.read_text()))
    ours = {name.removeprefix("stanhop.") for name in names if name.startswith("stanhop.")}
    return {".".join(name.split(".")[:2]) for name in ours if not name.startswith("__version__")}


def rows_below(own: str, imported: set[str]) -> set[str]:
    return {name for name in imported if row_of(name) > row_of(own)}


@pytest.mark.parametrize("path", [path for path in FILES if part_of(path) != PACKAGE_ITSELF], ids=ids)
def test_imports_never_point_to_a_row_below(path: Path) -> None:
    own = ".".join(path.relative_to(PACKAGE).with_suffix("").parts[:2])
    below = rows_below(own, imported_by(path))
    assert not below, f"{own} must not import {sorted(below)}"


def test_every_part_of_the_package_has_a_row() -> None:
    parts = set(map(part_of, FILES)) - {PACKAGE_ITSELF}
    assert parts <= set(ROW), "give it a row in ROWS"


def test_a_wrong_import_would_be_noticed() -> None:
    assert rows_below("series.read", {"series.datamodule"})
    assert rows_below("forecasting.batch", {"tracking.run"})
    assert rows_below("config", {"series.catalog"})
    assert not rows_below("training.fit", {"series.datamodule", "tracking.run", "config"})
    tree = ast.parse(
        "from stanhop import config\ndef f():\n    from stanhop.series import read\n    import stanhop.cli.app\n"
    )
    assert set(imported_modules(tree)) == {"stanhop.config", "stanhop.series.read", "stanhop.cli.app"}


@pytest.mark.parametrize("path", [path for path in FILES if part_of(path) in MAY_IMPORT], ids=ids)
def test_what_must_start_fast_imports_nothing_heavy_at_its_top(path: Path) -> None:
    foreign = {
        name.split(".")[0]
        for node in ast.parse(path.read_text()).body
        for name in imported_modules(ast.Module([node], []))
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert foreign - set(sys.stdlib_module_names) - {"stanhop"} <= MAY_IMPORT[part_of(path)]


@pytest.mark.parametrize("path", [*FILES, *sorted(Path(__file__).parent.rglob("*.py"))], ids=lambda path: path.name)
def test_every_file_opens_with_a_docstring(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring
    assert docstring.split("\n\n")[0].rstrip().endswith((".", ":")), "a sentence that says what the file is"


# --- what is done in one place only -------------------------------------------------------------------------------

METHODS_THAT_WRITE = {"write_text", "write_bytes", "touch", "mkdir", "unlink", "rename", "symlink_to", "hardlink_to"}
FUNCTIONS_THAT_WRITE = {
    *("os.rename", "os.replace", "os.remove", "os.unlink", "os.mkdir", "os.makedirs", "os.link"),
    *("os.symlink", "os.truncate", "np.save", "np.savez", "np.savetxt", "pickle.dump"),
}
TABLE_WRITERS = {"to_csv", "to_parquet", "to_json", "to_excel", "to_pickle"}
TABLE_READERS = {
    "read_csv",
    "read_parquet",
    "read_excel",
    "read_json",
    "reader",
    "DictReader",
    "ParquetFile",
    "read_table",
}
NETWORK = {"requests", "urllib3", "pooch", "http", "ftplib", "smtplib", "aiohttp", "httpx", "zipfile", "tarfile"}
RUNS_WHAT_IT_READS = {
    *("pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "subprocess", "runpy", "skops"),
    "multiprocessing",
}
BUILTINS_THAT_RUN = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_NAMES = {
    *("load_model", "load_from_checkpoint", "unsafe_load", "full_load", "UnsafeLoader", "FullLoader", "MLFlowLogger"),
    *("import_module", "system", "popen"),
}
EXCEPTIONS = {
    ("cli/output.py", "os.open"): "opens /dev/null for what a reader that left does not want",
    ("__init__.py", "import_module"): "the package's own names are lazy",
    ("forecasting/workers.py", "multiprocessing"): "starts itself, and pickles what it tells itself at the start",
}


def dotted(node: ast.expr) -> str:
    """``a.b.c`` of an expression that is one; ``?.c`` of an attribute of anything else."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def opens_to_write(call: ast.Call) -> bool:
    name = dotted(call.func)
    if name.split(".")[-1] not in ("open", "fdopen") or name == "os.open":
        return False
    position = 0 if isinstance(call.func, ast.Attribute) and name != "os.fdopen" else 1
    modes = [keyword.value for keyword in call.keywords if keyword.arg == "mode"] + call.args[position : position + 1]
    return any(not isinstance(mode, ast.Constant) or set(str(mode.value)) & set("wax+") for mode in modes)


def writes(call: ast.Call) -> str | None:
    name = dotted(call.func)
    owner, _, last = name.rpartition(".")
    if name == "os.open":
        return None if "os.O_RDONLY" in ast.unparse(call) else name
    if name in FUNCTIONS_THAT_WRITE or (owner == "shutil" and last != "which") or opens_to_write(call):
        return name
    if owner == "tempfile" and last != "gettempdir":
        return name
    if isinstance(call.func, ast.Attribute) and last in METHODS_THAT_WRITE and owner != "storage":
        return last
    if last in TABLE_WRITERS and (call.args or any(keyword.arg == "path_or_buf" for keyword in call.keywords)):
        return last
    # Path.replace takes one argument, str.replace two, dataclasses.replace names what it changes
    return "Path.replace" if last == "replace" and owner and len(call.args) == 1 and not call.keywords else None


def breaches(tree: ast.AST, file: str) -> set[str]:
    """What ``file`` does that belongs elsewhere or nowhere."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            found |= _breaches_of_call(node, file)
        elif isinstance(node, ast.Attribute) and node.attr in FORBIDDEN_NAMES - {"system", "popen"}:
            found.add(node.attr)
        elif isinstance(node, ast.Attribute) and dotted(node) in ("os.system", "os.popen", "yaml.Loader"):
            found.add(dotted(node))
        elif isinstance(node, ast.Attribute) and dotted(node.value) == "socket" and node.attr != "gethostname":
            found.add(f"socket.{node.attr}")
    roots = {name.split(".")[0] for name in imported_modules(tree)}
    roots |= {"urllib.request" for name in imported_modules(tree) if name.startswith("urllib.request")}
    found |= roots & RUNS_WHAT_IT_READS
    if file != "series/catalog.py":
        found |= roots & (NETWORK | {"urllib.request"})
    found |= {name for name in imported_modules(tree) if name.split(".")[-1] in FORBIDDEN_NAMES}
    return {name for name in found if (file, name) not in EXCEPTIONS}


def _breaches_of_call(call: ast.Call, file: str) -> set[str]:
    name = dotted(call.func)
    last = name.split(".")[-1]
    found = {name} if name in BUILTINS_THAT_RUN else set()
    if file != "storage.py" and (written := writes(call)):
        found.add(written)
    if file != "series/read.py" and last in TABLE_READERS and name != "read_table":  # a function of ours
        found.add(name)
    if name == "torch.load":
        is_safe = any(key.arg == "weights_only" and ast.unparse(key.value) == "True" for key in call.keywords)
        found |= set() if is_safe and file == "training/checkpoint.py" else {name}
    if name == "yaml.load" and file != "config/strict_yaml.py":
        found.add(name)
    return found


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_what_belongs_in_one_place_is_done_nowhere_else(path: Path) -> None:
    assert not breaches(ast.parse(path.read_text()), ids(path))


@pytest.mark.parametrize(
    "code",
    [
        "open('x', 'w')",
        "open('x', mode='ab')",
        "open('x', mode)",
        "Path('x').open('wb')",
        "os.fdopen(3, 'wb')",
        "os.open(path, os.O_WRONLY | os.O_CREAT)",
        "Path('x').write_text('')",
        "path.replace(other)",
        "path.mkdir(parents=True)",
        "shutil.rmtree(path)",
        "tempfile.mkdtemp()",
        "frame.to_csv(path)",
        "pd.read_csv(path)",
        "csv.reader(lines)",
        "torch.load(path, weights_only=True)",
        "import requests",
        "def f():\n    from urllib.request import urlopen",
        "socket.create_connection(('x', 1))",
        "import pickle",
        "import subprocess",
        "import multiprocessing",
        "mlflow.pyfunc.load_model(uri)",
        "from pytorch_lightning.loggers import MLFlowLogger",
        "yaml.load(text, Loader=yaml.Loader)",
        "yaml.unsafe_load(text)",
        "eval(text)",
        "exec(text)",
        "os.system('ls')",
        "importlib.import_module(name)",
    ],
)
def test_a_breach_would_be_noticed(code: str) -> None:
    assert breaches(ast.parse(code), "series/frame.py")


@pytest.mark.parametrize(
    "code",
    [
        "open('x')",
        "path.open('rb')",
        "os.open(path, os.O_RDONLY | os.O_NOFOLLOW)",
        "dataclasses.replace(bundle, config=config)",
        "build().eval()",
        "text.replace('a', 'b')",
        "frame.to_csv(index=False)",
        "module.eval()",
        "storage.write_text(path, text)",
        "write_bytes(path, content)",
        "shutil.which('c++')",
        "socket.gethostname()",
        "from urllib.parse import urljoin",
        "re.compile('x')",
    ],
)
def test_what_only_looks_like_a_breach_is_none(code: str) -> None:
    assert not breaches(ast.parse(code), "series/frame.py")


def test_checkpoints_are_read_with_weights_only() -> None:
    assert breaches(ast.parse("torch.load(path)"), "training/checkpoint.py")
    assert not breaches(ast.parse("torch.load(path, weights_only=True)"), "training/checkpoint.py")
