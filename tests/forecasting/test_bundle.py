"""The model directory: what is saved loads the same, and nothing damaged or hostile loads at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from stanhop.config import TrackingConfig
from stanhop.errors import Code, ModelError, OutputError
from stanhop.forecasting.bundle import Bundle, bundle_digest, load_bundle, save_bundle
from stanhop.series.frame import Series
from stanhop.storage import write_directory

FILES = ["config.json", "manifest.json", "model.safetensors", "scaler.json"]


def as_json(values: Any) -> bytes:
    return (json.dumps(values, indent=2, sort_keys=True) + "\n").encode()


def sign(path: Path, **changes: Any) -> None:
    """Make the manifest of ``path`` true again after a file was changed; ``changes`` are put into it."""
    manifest = json.loads((path / "manifest.json").read_bytes())
    for name in [name for name in FILES if name != "manifest.json" and (path / name).is_file()]:
        content = (path / name).read_bytes()
        manifest["files"][name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    manifest |= changes
    del manifest["checksum"]
    manifest["checksum"] = hashlib.sha256(as_json(manifest)).hexdigest()
    (path / "manifest.json").write_bytes(as_json(manifest))


def change_config(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    config = json.loads((path / "config.json").read_bytes())
    change(config)
    (path / "config.json").write_bytes(as_json(config))
    sign(path)


def change_weights(path: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    weights = safetensors.torch.load_file(path / "model.safetensors")
    change(weights)
    (path / "model.safetensors").write_bytes(safetensors.torch.save(weights))
    sign(path)


@pytest.fixture
def model(bundle_path: Path, tmp_path: Path) -> Path:
    """A model directory that a test may damage."""
    return Path(shutil.copytree(bundle_path, tmp_path / "model"))


def assert_refused(path: Path | str, match: str) -> ModelError:
    """Loading ``path`` is the user's to mend: ``match`` tells what, and the error that is returned has the fix."""
    with pytest.raises(ModelError, match=match) as caught:
        load_bundle(path)
    assert caught.value.exit_code == 2
    assert caught.value.fix
    return caught.value


def test_a_loaded_bundle_is_the_saved_one(bundle: Bundle, bundle_path: Path) -> None:
    loaded = load_bundle(bundle_path)
    assert loaded.config == bundle.config
    assert loaded.channels == bundle.channels
    assert loaded.num_channels == bundle.num_channels
    assert loaded.frequency == bundle.frequency
    assert loaded.layout == bundle.layout
    assert loaded.fingerprint == bundle.fingerprint
    assert {"stanhop", "torch", "numpy", "pandas", "python", "safetensors"} == set(loaded.versions)
    for key, scaler in bundle.scalers.items():
        assert np.array_equal(loaded.scalers[key].mean, scaler.mean)
        assert np.array_equal(loaded.scalers[key].deviation, scaler.deviation)
    context = torch.randn(2, 37, 3, dtype=torch.float64)
    assert torch.equal(loaded.network(context), bundle.network(context))
    assert not loaded.network.training
    assert not any(parameter.requires_grad for parameter in loaded.network.parameters())


def test_a_model_directory_holds_four_files_and_no_code(bundle_path: Path) -> None:
    assert sorted(path.name for path in bundle_path.iterdir()) == FILES
    for name in ("config.json", "manifest.json", "scaler.json"):
        json.loads((bundle_path / name).read_bytes())


def test_the_manifest_is_written_last(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    orders = []

    def spy(path: Path, files: dict[str, bytes], *, overwrite: bool) -> None:
        orders.append(list(files))
        write_directory(path, files, overwrite=overwrite)

    monkeypatch.setattr("stanhop.forecasting.bundle.save.write_directory", spy)
    save_bundle(tmp_path / "model", bundle)
    assert orders[0][-1] == "manifest.json"


def test_saving_the_same_bundle_twice_gives_the_same_bytes(bundle: Bundle, bundle_path: Path, tmp_path: Path) -> None:
    save_bundle(tmp_path / "again", load_bundle(bundle_path))
    for name in FILES:
        assert (tmp_path / "again" / name).read_bytes() == (bundle_path / name).read_bytes()


def test_the_digest_changes_with_everything_that_decides_a_forecast(
    bundle: Bundle, bundle_path: Path, make_bundle: Callable[..., Bundle]
) -> None:
    digest = bundle_digest(bundle)
    assert bundle_digest(load_bundle(bundle_path)) == digest
    assert bundle_digest(make_bundle(seed=1)) != digest
    assert bundle_digest(replace(bundle, frequency="D")) != digest
    assert bundle_digest(replace(bundle, scalers={"other": bundle.scalers[""]})) != digest


def test_loading_leaves_the_random_numbers_alone(bundle_path: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(5)
    torch.manual_seed(3)
    load_bundle(bundle_path)
    assert torch.equal(torch.rand(5), expected)


def test_passwords_in_the_tracking_address_are_not_saved(bundle: Bundle, tmp_path: Path) -> None:
    tracking = TrackingConfig(uri="https://ann:secret@example.org/mlflow")
    save_bundle(tmp_path / "model", replace(bundle, config=bundle.config.model_copy(update={"tracking": tracking})))
    assert b"secret" not in (tmp_path / "model" / "config.json").read_bytes()
    assert load_bundle(tmp_path / "model").config.tracking.uri == "https://***@example.org/mlflow"


def test_an_existing_directory_is_replaced_only_if_asked_for(bundle: Bundle, model: Path) -> None:
    with pytest.raises(OutputError, match="exists already"):
        save_bundle(model, bundle)
    save_bundle(model, replace(bundle, frequency="D"), overwrite=True)
    assert load_bundle(model).frequency == "D"


@pytest.mark.parametrize("what", ["folder of other files", "model with a file of the user's", "file"])
def test_overwriting_deletes_nothing_but_a_model(bundle: Bundle, model: Path, tmp_path: Path, what: str) -> None:
    path = {"folder of other files": tmp_path / "home", "file": tmp_path / "file"}.get(what, model)
    if what == "file":
        path.write_text("mine")
    else:
        path.mkdir(exist_ok=True)
        (path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="not replaced"):
        save_bundle(path, bundle, overwrite=True)
    assert (path if what == "file" else path / "notes.txt").read_text() == "mine"


def test_a_path_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    assert assert_refused(tmp_path / "none", "no such model directory").code == Code.MODEL


@pytest.mark.parametrize("name", ["notes.txt", "last.ckpt"])
def test_a_file_is_no_model(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("text")
    assert_refused(tmp_path / name, "not a stanhop model")


def test_a_folder_without_manifest_is_no_model(tmp_path: Path) -> None:
    assert_refused(tmp_path, r"not a stanhop model: it holds no manifest\.json")


@pytest.mark.parametrize(
    "address",
    ["http://example.org/model", "https://example.org/model", "s3://bucket/model", "models:/stanhop@champion"],
)
def test_an_address_is_no_model(address: str) -> None:
    assert_refused(address, "local paths only")
    assert_refused(Path(address), "local paths only")


@pytest.mark.parametrize("name", FILES)
def test_no_truncated_file_is_accepted(model: Path, name: str) -> None:
    content = (model / name).read_bytes()
    for length in {0, 1, *range(0, len(content), len(content) // 40), len(content) - 1}:
        (model / name).write_bytes(content[:length])
        assert assert_refused(model, name).code in (Code.MODEL, Code.MODEL_DAMAGED)
    (model / name).write_bytes(content + b" ")
    assert_refused(model, name)


def test_no_flipped_bit_is_accepted(model: Path) -> None:
    random = np.random.default_rng(5)
    for name in FILES * 30:
        content = bytearray((model / name).read_bytes())
        where = int(random.integers(len(content)))
        content[where] ^= 1 << int(random.integers(8))
        original = (model / name).read_bytes()
        (model / name).write_bytes(content)
        assert_refused(model, name)
        (model / name).write_bytes(original)
    load_bundle(model)


def test_a_missing_file_is_refused(model: Path) -> None:
    (model / "scaler.json").unlink()
    assert_refused(model, r"scaler\.json: cannot read")


def test_files_outside_of_the_manifest_are_never_opened(model: Path, bundle_path: Path) -> None:
    (model / "extra.pkl").write_bytes(b"\x80\x04cos\nsystem\n(S'touch /nowhere'\ntR.")
    os.mkfifo(model / "pipe")  # opening it would hang
    assert load_bundle(model).channels == load_bundle(bundle_path).channels


@pytest.mark.parametrize("name", FILES)
def test_a_symlink_in_a_model_is_refused(model: Path, tmp_path: Path, name: str) -> None:
    (model / name).rename(tmp_path / name)
    (model / name).symlink_to(tmp_path / name)
    assert_refused(model, f"{name}: is a symlink")


def test_a_pipe_in_a_model_is_refused_without_waiting(model: Path) -> None:
    (model / "config.json").unlink()
    os.mkfifo(model / "config.json")
    assert_refused(model, "not a regular file")


@pytest.mark.parametrize("name", ["../config.json", "/etc/passwd", "extra.json", ""])
def test_the_manifest_lists_the_files_of_the_format_and_no_others(model: Path, name: str) -> None:
    files = json.loads((model / "manifest.json").read_bytes())["files"]
    sign(model, files={**files, name: files["config.json"]})
    assert_refused(model, r"lists .* not \['config\.json', 'model\.safetensors', 'scaler\.json'\]")
    del files["scaler.json"]
    sign(model, files=files)


def test_a_newer_format_asks_for_an_upgrade(model: Path) -> None:
    sign(model, format_version=6)
    assert assert_refused(model, "format version 6; this program reads up to 5").fix == "upgrade stanhop"


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b"null", b"[" * 100_000, b"\xff\xfe", b'{"format_version": "1"}']
)
def test_a_manifest_of_another_kind_is_refused(model: Path, content: bytes) -> None:
    (model / "manifest.json").write_bytes(content)
    assert_refused(model, r"manifest\.json")


def test_a_claimed_size_is_not_believed(model: Path) -> None:
    manifest = json.loads((model / "manifest.json").read_bytes())
    manifest["files"]["model.safetensors"]["size"] = 100 * 2**30
    del manifest["checksum"]
    manifest["checksum"] = hashlib.sha256(as_json(manifest)).hexdigest()
    (model / "manifest.json").write_bytes(as_json(manifest))
    assert_refused(model, "claims 107,374,182,400 bytes")


def set_at(values: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    for section in sections:
        values = values[section]
    values[last] = value


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("run.model.num_levels", 1_000_000_000),
        ("run.model.model_dim", -64),
        ("run.model.dropout", "0.1"),
        ("run.model.separation", "os.system"),
        ("run.model.__class__", "nn.Linear"),
        ("run.unknown", {}),
        ("run.data.split.train", "NaN"),
        ("num_channels", 10**9),
        ("num_channels", True),
        ("channels", "flow"),
        ("layout.kind", "sideways"),
        ("layout.extra", 1),
        ("frequency", "h" * 33),
        ("network_class", "evil.Network"),
    ],
)
def test_a_configuration_outside_of_the_schema_is_refused_by_key(model: Path, key: str, value: object) -> None:
    change_config(model, lambda config: set_at(config, key, value))
    error = assert_refused(model, rf"config\.json: '{key}")
    assert error.code == Code.MODEL


@pytest.mark.parametrize(
    ("key", "value", "match"),
    [
        ("num_channels", 2, "channels must be 2 different names"),
        ("channels", ["flow", "flow", "rain"], "channels must be 3 different names"),
        ("frequency", "fortnight", "'fortnight' is none"),
        ("run.model.patch_length", 38, r"patch_length \(38\) must not exceed"),
    ],
)
def test_a_configuration_that_does_not_fit_together_is_refused(
    model: Path, key: str, value: object, match: str
) -> None:
    change_config(model, lambda config: set_at(config, key, value))
    assert_refused(model, match)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)


@given(data=st.data())
def test_any_configuration_loads_or_is_refused(
    data: st.DataObject, bundle_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = Path(shutil.copytree(bundle_path, tmp_path_factory.mktemp("any") / "model"))
    config = json.loads((model / "config.json").read_bytes())
    section = data.draw(st.sampled_from([config, config["run"], config["run"]["model"], config["layout"]]))
    key = data.draw(st.sampled_from(sorted(section)) | st.text(max_size=5))
    section[key] = data.draw(JSON_VALUES)
    (model / "config.json").write_bytes(as_json(config))
    sign(model)
    with suppress(ModelError):
        assert load_bundle(model).num_channels == config["num_channels"]


def test_a_network_far_larger_than_its_weights_is_refused_before_memory_is(model: Path) -> None:
    largest = {
        "context_length": 1_000_000,
        "prediction_length": 1_000_000,
        "patch_length": 1,
        "model_dim": 16_384,
        "num_heads": 1_024,
        "feedforward_dim": 65_536,
        "num_levels": 64,
        "num_memories": 65_536,
    }
    change_config(model, lambda config: config["run"]["model"].update(largest))
    assert_refused(model, "asks for a network with far more")


def test_weights_of_another_shape_are_named_with_both_shapes(model: Path) -> None:
    change_config(model, lambda config: config["run"]["model"].update({"feedforward_dim": 8}))
    assert_refused(model, r"weights hold '.*' as \(7, 6\) float32, config\.json asks for \(8, 6\) float32")


def test_weights_of_another_type_are_refused(model: Path) -> None:
    change_weights(model, lambda weights: weights.update({"direct.bias": weights["direct.bias"].half()}))
    assert_refused(model, r"'direct\.bias' as \(11,\) float16, config\.json asks for \(11,\) float32")


def test_missing_and_unexpected_weights_are_counted_and_the_first_three_named(model: Path) -> None:
    def change(weights: dict[str, torch.Tensor]) -> None:
        del weights["direct.bias"]
        weights.update({f"extra.{number}": torch.zeros(1) for number in range(5)})

    change_weights(model, change)
    assert_refused(model, r"1 missing \('direct\.bias'\) and 5 unexpected \('extra\.0', 'extra\.1', 'extra\.2'\)")


def test_weights_of_the_time_before_scales_load_with_scales_of_one(model: Path) -> None:
    scales = [name for name in load_bundle(model).network.state_dict() if name.endswith(".scale")]
    assert len(scales) > 1
    change_weights(model, lambda weights: weights.update({name: torch.ones(()) for name in scales}))
    now = load_bundle(model).network.state_dict()
    change_weights(model, lambda weights: [weights.pop(name) for name in scales])
    before = load_bundle(model).network.state_dict()
    assert now.keys() == before.keys()
    assert all(torch.equal(before[name], weight) for name, weight in now.items())


def test_one_scale_of_several_that_is_missing_is_refused(model: Path) -> None:
    change_weights(model, lambda weights: weights.pop(min(name for name in weights if name.endswith(".scale"))))
    assert_refused(model, r"1 missing \('encoder\..*\.scale'\)")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(model: Path, value: float) -> None:
    change_weights(model, lambda weights: weights["direct.bias"].fill_(value))
    assert_refused(model, r"NaN or infinite values in 'direct\.bias'")


def test_a_bundle_with_weights_that_are_not_finite_is_not_saved(
    make_bundle: Callable[..., Bundle], tmp_path: Path
) -> None:
    broken = make_bundle()
    next(broken.network.parameters()).fill_(float("nan"))
    with pytest.raises(ModelError, match="NaN or infinite"):
        save_bundle(tmp_path / "model", broken)
    assert not list(tmp_path.iterdir())


def tensors_file(header: dict[str, Any], data: bytes = b"\0" * 8) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    "content",
    [
        b"\xff" * 8 + b"{}",
        struct.pack("<Q", 2**62) + b"{}",
        tensors_file({"a": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 8]}}),
        tensors_file({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, b"\0" * 9),
        tensors_file(
            {
                "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
                "b": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]},
            }
        ),
        tensors_file({"a": {"dtype": "F99", "shape": [2], "data_offsets": [0, 8]}}),
        b"\x80\x04cos\nsystem\n(S'true'\ntR.",
    ],
)
def test_a_malformed_table_of_tensors_is_refused(model: Path, content: bytes) -> None:
    (model / "model.safetensors").write_bytes(content)
    sign(model)
    assert_refused(model, r"model\.safetensors: is not a table of tensors")


@pytest.mark.parametrize(
    ("scalers", "match"),
    [
        ({}, "scalers"),
        ({"": {"mean": [0, 0, 0], "deviation": [1, 1, 0]}}, "deviation"),
        ({"": {"mean": [0, 0, "x"], "deviation": [1, 1, 1]}}, "mean"),
        ({"": {"mean": [0, 0], "deviation": [1, 1]}}, "not one of 3 channels"),
        ({"": {"mean": [0, 0, 0], "deviation": [1, 1, 1], "code": "x"}}, "unknown key"),
    ],
)
def test_scalers_that_do_not_fit_are_refused(model: Path, scalers: dict[str, Any], match: str) -> None:
    (model / "scaler.json").write_bytes(as_json({"scalers": scalers}))
    sign(model)
    assert_refused(model, rf"scaler\.json: .*{match}")


def test_intervals_come_back_as_they_were_saved(interval_bundle: Bundle, tmp_path: Path) -> None:
    save_bundle(tmp_path / "model", interval_bundle)
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == sorted([*FILES, "intervals.json"])
    assert json.loads((tmp_path / "model" / "manifest.json").read_bytes())["format_version"] == 3
    loaded, saved = load_bundle(tmp_path / "model").intervals, interval_bundle.intervals
    assert loaded is not None
    assert saved is not None
    assert (loaded.levels, loaded.num_windows) == (saved.levels, saved.num_windows)
    for name in ("lower", "upper", "floor"):
        assert np.array_equal(getattr(loaded, name), getattr(saved, name)), name


def test_a_directory_of_the_time_before_intervals_loads(bundle: Bundle, model: Path) -> None:
    def forget(config: dict[str, Any]) -> None:
        for key in ("levels", "head"):
            del config["run"]["model"][key]

    change_config(model, forget)
    loaded = load_bundle(model)
    assert loaded.intervals is None
    context = torch.randn(2, 37, 3, dtype=torch.float64)
    assert torch.equal(loaded.network(context), bundle.network(context))


def change_intervals(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    plain = json.loads((path / "intervals.json").read_bytes())
    change(plain)
    (path / "intervals.json").write_text(json.dumps(plain))
    manifest = json.loads((path / "manifest.json").read_bytes())
    content = (path / "intervals.json").read_bytes()
    entry = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    sign(path, files={**manifest["files"], "intervals.json": entry})


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda plain: plain["lower"].pop(), "are not those of 2 levels, 11 steps and 3 channels"),
        (lambda plain: plain["upper"][0][3].pop(), "are not those of 2 levels, 11 steps and 3 channels"),
        (lambda plain: plain["floor"].append(1.0), "are not those of 2 levels, 11 steps and 3 channels"),
        (lambda plain: plain.update(floor=[0.5, 0.0, 0.5]), "'floor.1': input should be greater than 0"),
        (lambda plain: plain.update(levels=[95.0, 80.0]), "levels must be between 0 and 100, ascending"),
        (lambda plain: plain.update(levels=[80.0, 100.0]), "levels must be between 0 and 100"),
        (lambda plain: plain.update(code="import os"), "'code': unknown key"),
        (lambda plain: plain["lower"][0][0].__setitem__(0, float("nan")), "should be a finite number"),
    ],
)
def test_intervals_that_do_not_fit_are_refused(
    interval_bundle: Bundle, tmp_path: Path, change: Callable[[dict[str, Any]], object], match: str
) -> None:
    save_bundle(tmp_path / "model", interval_bundle)
    change_intervals(tmp_path / "model", change)
    assert assert_refused(tmp_path / "model", match).file == str(tmp_path / "model" / "intervals.json")


def test_the_digest_changes_with_the_intervals(bundle: Bundle, interval_bundle: Bundle) -> None:
    assert bundle_digest(interval_bundle) != bundle_digest(bundle)


def test_seasonal_profiles_come_back_as_they_were_saved(
    bundle: Bundle, seasonal_bundle: Bundle, tmp_path: Path, make_series: Callable[..., Series]
) -> None:
    save_bundle(tmp_path / "model", seasonal_bundle)
    assert json.loads((tmp_path / "model" / "manifest.json").read_bytes())["format_version"] == 5
    again, times = load_bundle(tmp_path / "model"), make_series(1000).times
    assert (again.scalers[""].usual(times) == seasonal_bundle.scalers[""].usual(times)).all()
    assert bundle_digest(again) == bundle_digest(seasonal_bundle) != bundle_digest(bundle)


@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_a_seasonal_profile_needs_the_format_that_tells_of_it(
    seasonal_bundle: Bundle, tmp_path: Path, version: int
) -> None:
    save_bundle(tmp_path / "model", seasonal_bundle)
    sign(tmp_path / "model", format_version=version)
    assert_refused(tmp_path / "model", r"manifest\.json")


def test_the_format_of_seasonal_profiles_without_one_is_refused(model: Path) -> None:
    sign(model, format_version=5)
    assert_refused(model, "format version 5 does not go with the other files")


def test_a_seasonal_model_holds_the_network_that_its_configuration_names(
    seasonal_bundle: Bundle, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    save_bundle(model, seasonal_bundle)
    (model / "model.safetensors").rename(model / "model.onnx")
    files = json.loads((model / "manifest.json").read_bytes())["files"]
    files["model.onnx"] = files.pop("model.safetensors")
    sign(model, files=files)
    assert_refused(model, "format version 5 does not go with the other files")
