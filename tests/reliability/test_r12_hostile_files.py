"""R12: no file of a stranger runs anything or writes anywhere: checkpoints, model directories, ids."""

from __future__ import annotations

import builtins
import io
import json
import os
import pickle
import random
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch

from stanhop.errors import ModelError, UserError
from stanhop.forecasting.bundle import load_bundle
from stanhop.forecasting.records import Records
from stanhop.storage import safe_name, sha256_of
from stanhop.training.checkpoint import CheckpointFolder, Identity
from tests.reliability.kit import processes, samples, training
from tests.reliability.kit.nursery import Nursery
from tests.reliability.kit.sizes import sizes

CANARY = "canary"
NUM_TEXTS, FEWEST_IDS = 10_500, 10_000
"""Texts drawn, some of them twice, and how many must be distinct."""
MOST_GROWTH_MB = 100
"""More than that would be memory for what a file only claims."""


class Calls:
    """Calls a function where it is unpickled."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.made = (function, arguments)

    def __reduce__(self) -> Any:
        return self.made


def payloads(canary: str) -> dict[str, object]:
    """Ways by which pickles are known to run something; each would leave the file or folder ``canary``."""
    code = f"open({canary!r}, 'w')"
    functions: dict[str, tuple[Callable[..., object], tuple[object, ...]]] = {
        "os.system": (os.system, (f"touch {canary}",)),
        "os.mkdir": (os.mkdir, (canary,)),
        "os.popen": (os.popen, (f"touch {canary}",)),
        "eval": (builtins.eval, (code,)),
        "exec": (builtins.exec, (code,)),
        "open": (builtins.open, (canary, "w")),
        "compile": (builtins.compile, (code, "", "exec")),
        "import": (builtins.__import__, ("antigravity",)),
        "getattr": (builtins.getattr, (Path, "touch")),
        "Popen": (subprocess.Popen, (["touch", canary],)),
        "call": (subprocess.call, (["touch", canary],)),
        "rmtree": (shutil.rmtree, (canary,)),
        "pickle.loads": (pickle.loads, (pickle.dumps(Calls(os.mkdir, canary)),)),
        "torch.load": (torch.load, (canary,)),
        "torch.hub": (torch.hub.load, (canary, "model")),
        "exit": (os._exit, (3,)),
        "chdir": (os.chdir, ("/",)),
        "putenv": (os.putenv, ("A", "B")),
        "unlink": (os.unlink, (canary,)),
        "setrecursionlimit": (sys.setrecursionlimit, (10**9,)),
        "Path.touch": (Path.touch, (Path(canary),)),
    }
    found: dict[str, object] = {name: Calls(function, *arguments) for name, (function, arguments) in functions.items()}
    found["in a list"] = [[Calls(os.mkdir, canary)]]
    found["as a key"] = {("a", 1): Calls(os.mkdir, canary)}
    found["_instantiator"] = {
        "hyper_parameters": {"_instantiator": "os.mkdir", "path": canary},
        "f": Calls(os.mkdir, canary),
    }
    found["in a tensor's hook"] = {"weight": torch.zeros(2), "hook": Calls(os.mkdir, canary)}
    return found


def raw_pickles(canary: str) -> dict[str, bytes]:
    """Files that are pickles themselves, in old and in hand-made forms."""
    return {
        "protocol 0": pickle.dumps(Calls(os.mkdir, canary), protocol=0),
        "protocol 5": pickle.dumps(Calls(os.mkdir, canary), protocol=5),
        "by hand": b"cos\nsystem\n(S'touch " + canary.encode() + b"'\ntR.",
        "a zip with a pickle": _zip(
            {"archive/data.pkl": pickle.dumps(Calls(os.mkdir, canary)), "archive/version": b"3\n"}
        ),
        "a zip that climbs out": _zip({"../../" + CANARY: b"x", "archive/data.pkl": b"."}),
    }


def _zip(files: dict[str, bytes]) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return sink.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("variable", ["", "1"])
def test_no_checkpoint_runs_anything(
    variable: str, nursery: Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: Callable[..., None]
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", variable)
    canary = str(tmp_path / CANARY)
    contents = raw_pickles(canary)
    for name, value in payloads(canary).items():
        sink = io.BytesIO()
        torch.save(value, sink)
        contents[name] = sink.getvalue()
    data = samples.write_csv(tmp_path / "sales.csv", samples.rows(100))
    run_path = tmp_path / "run"
    assert nursery.run("command", *training.options(data, run_path), "--epochs", "1").code == 0
    (run_path / "metrics.json").unlink()  # as if it was killed at the end
    manifest = json.loads((run_path / "checkpoints" / "manifest.json").read_bytes())
    checkpoint = run_path / "checkpoints" / manifest["current"]
    for name, content in contents.items():
        checkpoint.write_bytes(content)
        _sign(run_path / "checkpoints" / "manifest.json", {checkpoint.name: sha256_of(content)})
        ended = nursery.run("command", *training.options(data, run_path), "--epochs", "1", "--resume", cwd=tmp_path)
        assert (ended.code, ended.err.count("error[E303]")) == (2, 1), (name, ended.err)
        assert not Path(canary).exists(), name
    record(
        "R12", "checkpoints", f"{len(contents)} hostile files, signed as ours, with and without torch's variable: 0 ran"
    )


def _sign(path: Path, sha256: dict[str, str]) -> None:
    manifest = json.loads(path.read_bytes())
    for name, digest in sha256.items():
        manifest["files"][name]["sha256"] = digest
    del manifest["checksum"]
    manifest["checksum"] = sha256_of(json.dumps(manifest, indent=2).encode())
    path.write_text(json.dumps(manifest, indent=2) + "\n")


NUMBERS_OF_NO_USE = (0, -1, 1.5, 10**9, 10**18, 2**63, 1e308, True, None, "x", "", "os.system", [], {}, [[]], "\u0000")


@pytest.mark.parametrize("count", sizes(default=200, full=10_000, soak=100_000))
def test_no_generated_configuration_takes_memory_or_ends_in_a_traceback(
    count: int, model: Path, fast_folder: Path, record: Callable[..., None]
) -> None:
    moment, copy = random.Random(count), Path(shutil.copytree(model, fast_folder / "model"))
    plain, num_read, num_without_fix = json.loads((copy / "config.json").read_bytes()), 0, 0
    before_mb = processes.most_mb()
    for _ in range(count):
        config = json.loads(json.dumps(plain))
        for _ in range(moment.randrange(1, 4)):
            _spoil(config, moment)
        _replace_config(copy, json.dumps(config, indent=2, sort_keys=True).encode())
        try:
            load_bundle(copy)
            num_read += 1
        except ModelError as error:
            num_without_fix += error.fix is None
    assert not num_without_fix
    assert num_read < count // 2, "the damage is too small"
    assert processes.most_mb() - before_mb < MOST_GROWTH_MB
    record("R12", "configurations", f"{count:,} generated configurations: {count - num_read:,} refused, 0 other errors")


def _spoil(config: dict[str, Any], moment: random.Random) -> None:
    """Change one value, name or number of keys at a random depth."""
    place: Any = config
    while True:
        key = moment.choice(list(place) if isinstance(place, dict) else range(len(place)))
        if isinstance(place[key], dict | list) and place[key] and moment.random() < 0.8:
            place = place[key]
            continue
        break
    if isinstance(place, dict) and moment.random() < 0.2:
        place[moment.choice(("__class__", "loader_module", f"{key}s", "../x"))] = place.pop(key)
    else:
        place[key] = deepcopy(moment.choice(NUMBERS_OF_NO_USE))  # a list may be spoilt in its turn


def _replace_config(directory: Path, content: bytes) -> None:
    """Put another ``config.json`` in a model directory, and sign it as ours."""
    (directory / "config.json").write_bytes(content)
    manifest = json.loads((directory / "manifest.json").read_bytes())
    manifest["files"]["config.json"] = {"size": len(content), "sha256": sha256_of(content)}
    del manifest["checksum"]
    signed = (json.dumps(manifest, indent=2, sort_keys=True) + "\n").encode()
    whole = {**manifest, "checksum": sha256_of(signed)}
    (directory / "manifest.json").write_bytes((json.dumps(whole, indent=2, sort_keys=True) + "\n").encode())


def test_no_pickle_in_a_model_directory_is_opened(model: Path, tmp_path: Path, record: Callable[..., None]) -> None:
    canary = str(tmp_path / CANARY)
    hostile = raw_pickles(canary)
    count = 0
    for name in ("model.safetensors", "config.json", "scaler.json", "manifest.json"):
        for content in hostile.values():
            copy = tmp_path / str(count)
            shutil.copytree(model, copy)
            (copy / name).write_bytes(content)
            with pytest.raises(ModelError):
                load_bundle(copy)
            count += 1
    for extra in ("MLmodel", "model.pkl", "code.py", "data.pkl", "__init__.py"):
        copy = tmp_path / str(count)
        shutil.copytree(model, copy)
        (copy / extra).write_bytes(hostile["protocol 5"])
        load_bundle(copy)  # a file that the manifest does not list is never opened
        count += 1
    assert not Path(canary).exists()
    record("R12", "model directories", f"{count} directories with pickles in them: 0 ran")


def test_no_id_leaves_its_folder(tmp_path: Path, record: Callable[..., None]) -> None:
    moment = random.Random(5)
    alphabet = "ab/\\.:~$%*?<>|\"'\x00\n\r\t -_\u202e\ufeffÄß😀\ud800" + "".join(map(chr, range(1, 32)))
    hostile = [
        "../../etc/passwd",
        "/abs",
        "..",
        ".",
        "\\",
        "-rf",
        "CON",
        "nul.txt",
        "a" * 300,
        "",
        " ",
        "~root",
        "$HOME",
    ]
    ids = {*hostile, *("".join(moment.choices(alphabet, k=moment.randrange(1, 40))) for _ in range(NUM_TEXTS))}
    assert len(ids) >= FEWEST_IDS
    names = {safe_name(one) for one in ids}
    assert len(names) == len({name.casefold() for name in names}) == len(ids)
    for name in names:
        assert (tmp_path / name).resolve().parent == tmp_path.resolve()
        assert name.isascii()
        assert len(name) <= 100
    records = Records(tmp_path)
    assert all(records.read(one) is None for one in hostile if "\x00" not in one)
    record("R12", "ids", f"{len(ids):,} hostile ids: 0 leave the folder, 0 share a name")


def test_a_claimed_identity_is_not_believed(tmp_path: Path) -> None:
    identity = Identity(config={}, data_sha256="0" * 64, num_threads=1, versions={})
    (tmp_path / "manifest.json").write_text('{"current": "../../x.ckpt", "checksum": "0"}')
    with pytest.raises(UserError):
        CheckpointFolder(tmp_path, identity=identity).resume()
