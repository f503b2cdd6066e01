"""Writing: whole or not at all, whatever fails on the way."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stanhop import storage
from stanhop.errors import MachineError, OutputError

OLD = {"a.bin": b"old a", "manifest.json": b"old manifest"}
NEW = {"a.bin": b"new a", "b.bin": b"new b", "manifest.json": b"new manifest"}
PRIMITIVES = ["os.open", "os.fdopen", "os.fsync", "Path.replace", "Path.rename", "Path.mkdir"]


def content_of(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def fail_at(monkeypatch: pytest.MonkeyPatch, number: int, code: int) -> Callable[[], bool]:
    """Make call ``number`` (from 1) of the primitives that change the disk fail; tell whether it came to that."""
    calls = 0

    def counted(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == number:
                raise OSError(code, os.strerror(code))
            return original(*args, **kwargs)

        return call

    for primitive in PRIMITIVES:
        owner, name = primitive.split(".")
        monkeypatch.setattr(
            {"os": os, "Path": Path}[owner], name, counted(getattr({"os": os, "Path": Path}[owner], name))
        )
    return lambda: calls >= number


@given(st.binary(max_size=300))
def test_bytes_come_back_as_they_were_written(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("written") / "deep" / "file.bin"
    storage.write_bytes(path, content)
    assert path.read_bytes() == content
    assert names_in(path.parent) == ["file.bin"]


def test_text_is_utf8_also_with_what_utf8_cannot_hold(tmp_path: Path) -> None:
    storage.write_text(tmp_path / "a", "Temperatur °C \udcff")
    assert (tmp_path / "a").read_bytes() == "Temperatur °C ".encode() + b"\xed\xb3\xbf"


def test_order_is_write_then_sync_then_replace_then_sync_of_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def noted_fsync(descriptor: int) -> None:
        kind = "folder" if Path(f"/proc/self/fd/{descriptor}").is_dir() else "file"
        events.append(f"sync {kind}")
        fsync(descriptor)

    def noted_replace(self: Path, target: Path) -> Path:
        events.append(f"replace {self.read_bytes()!r}")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    storage.write_bytes(tmp_path / "a", b"content")
    assert events == ["sync file", "replace b'content'", "sync folder"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EIO, errno.EMFILE])
def test_a_file_is_old_or_new_whichever_call_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    for number in range(1, 20):
        path = tmp_path / str(number) / "file"
        path.parent.mkdir()
        path.write_bytes(b"old")
        with monkeypatch.context() as patch:
            has_failed = fail_at(patch, number, code)
            try:
                storage.write_bytes(path, b"new")
                is_written = True
            except MachineError:
                is_written = False
        assert path.read_bytes() == (b"new" if is_written else b"old")
        assert names_in(path.parent) == ["file"]
        if not has_failed():
            assert number > 5
            return
    pytest.fail("more calls than expected")


@pytest.mark.parametrize("is_there", [False, True])
def test_a_directory_is_old_or_new_whichever_call_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_there: bool
) -> None:
    for number in range(1, 40):
        path = tmp_path / str(number) / "model"
        path.parent.mkdir()
        if is_there:
            storage.write_directory(path, OLD)
        with monkeypatch.context() as patch:
            has_failed = fail_at(patch, number, errno.ENOSPC)
            try:
                storage.write_directory(path, NEW, overwrite=is_there)
                expected = NEW
            except MachineError:
                expected = OLD if is_there else {}
        assert (content_of(path) if path.exists() else {}) == expected
        left = [name for name in names_in(path.parent) if not name.endswith(f"{storage.ASIDE}model")]
        assert left == (["model"] if expected else [])  # but for an old directory that could not be deleted
        if not has_failed():
            assert number > 10
            return
    pytest.fail("more calls than expected")


def test_a_folder_that_cannot_be_synchronised_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync = os.fsync

    def fsync_of_files_only(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").is_dir():
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync_of_files_only)
    storage.write_bytes(tmp_path / "a", b"content")
    assert (tmp_path / "a").read_bytes() == b"content"


def test_a_symlink_is_replaced_and_its_target_left_alone(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"precious")
    link.symlink_to(target)
    storage.write_bytes(link, b"new")
    assert target.read_bytes() == b"precious"
    assert not link.is_symlink()
    assert link.read_bytes() == b"new"


def test_a_directory_in_the_place_of_a_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(MachineError, match="a: cannot write: Is a directory"):
        storage.write_bytes(tmp_path / "a", b"new")


def test_a_file_in_the_place_of_a_folder_is_refused_with_a_fix(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(MachineError, match="a part of this path is a file"):
        storage.write_bytes(tmp_path / "a" / "b", b"new")
    with pytest.raises(MachineError, match="a part of this path is a file"):
        storage.make_directory(tmp_path / "a")


def test_an_existing_directory_is_refused_unless_overwriting(tmp_path: Path) -> None:
    storage.write_directory(tmp_path / "model", OLD)
    with pytest.raises(OutputError, match=r"model: exists already; choose another name or add --overwrite"):
        storage.write_directory(tmp_path / "model", NEW)
    assert content_of(tmp_path / "model") == OLD
    storage.write_directory(tmp_path / "model", NEW, overwrite=True)
    assert content_of(tmp_path / "model") == NEW


def test_a_broken_link_counts_as_existing(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputError, match="exists already"):
        storage.refuse_existing(tmp_path / "link")
    storage.refuse_existing(tmp_path / "free")


def test_a_folder_is_made_and_proved_writable_without_leaving_a_probe(tmp_path: Path) -> None:
    storage.make_directory(tmp_path / "a" / "b")
    assert names_in(tmp_path / "a" / "b") == []


def test_a_folder_that_takes_no_file_is_found_out_and_no_probe_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(MachineError, match="No space left on device; free some space"):
        storage.make_directory(tmp_path / "a")
    assert names_in(tmp_path / "a") == []


def test_removing_a_file_twice_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    storage.remove_file(tmp_path / "a")
    storage.remove_file(tmp_path / "a")
    assert names_in(tmp_path) == []


def in_a_process_that_dies(code: str) -> None:
    died = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert died.returncode == -9, died.stderr


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    in_a_process_that_dies(f"""
import os
from pathlib import Path
from stanhop import storage
os.fsync = lambda _: os.kill(os.getpid(), 9)
storage.write_bytes(Path({str(tmp_path)!r}) / "file", b"content")
""")
    (left,) = names_in(tmp_path)
    assert left.startswith(storage.TEMPORARY_PREFIX)
    mine = tmp_path / left.replace(left.split("-")[2], str(os.getpid()))
    mine.write_bytes(b"")
    storage.remove_stale_temporaries(tmp_path)
    assert names_in(tmp_path) == [mine.name]


def test_a_kill_between_the_two_renames_of_an_overwrite_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "model"
    storage.write_directory(path, OLD)
    in_a_process_that_dies(f"""
import os
from pathlib import Path
from stanhop import storage
rename, calls = Path.rename, []
def rename_once(self, target):
    calls.append(self)
    return rename(self, target) if len(calls) == 1 else os.kill(os.getpid(), 9)
Path.rename = rename_once
storage.write_directory(Path({str(path)!r}), {NEW!r}, overwrite=True)
""")
    assert not path.exists()
    storage.remove_stale_temporaries(tmp_path)
    assert content_of(path) == OLD
    assert names_in(tmp_path) == ["model"]


def test_a_lock_is_refused_to_another_process_and_free_afterwards(tmp_path: Path) -> None:
    lock = tmp_path / "deep" / "lock"
    code = f"""
from pathlib import Path
from stanhop.errors import MachineError
from stanhop.storage import locked
try:
    with locked(Path({str(lock)!r})):
        print("held")
except MachineError as error:
    print(error.problem)
"""

    def answer() -> str:
        return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()

    with storage.locked(lock):
        assert answer() == "another process is at work here"
    assert answer() == "held"


def test_a_lock_is_released_when_the_work_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), storage.locked(tmp_path / "lock"):
        raise ZeroDivisionError
    with storage.locked(tmp_path / "lock"):
        pass


def test_the_two_ways_to_a_checksum_agree(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert storage.sha256_of(b"abc") == storage.sha256_of_file(tmp_path / "a") == known


@given(st.text(max_size=300))
@example("../../etc/passwd")
@example("/abs")
@example("..")
@example("-rf")
@example("CON")
@example("\ud800")
@example("")
@example("\n")
def test_any_text_becomes_a_plain_file_name(text: str) -> None:
    name = storage.safe_name(text)
    assert name.isascii()
    assert len(name) <= 100
    assert name == Path(name).name
    assert name[0] not in ".-"
    assert all(character.isalnum() or character in "._-" for character in name)


@given(st.text(max_size=20), st.text(max_size=20))
@example("a", "A")
@example("é", "é")
@example("a/b", "a-b")
def test_distinct_texts_have_names_that_differ_in_more_than_case(one: str, other: str) -> None:
    same = storage.safe_name(one).lower() == storage.safe_name(other).lower()
    assert same == (one == other)


def test_a_folder_is_copied_whole_and_never_over_another(tmp_path: Path) -> None:
    (tmp_path / "made" / "deep").mkdir(parents=True)
    (tmp_path / "made" / "deep" / "a").write_bytes(b"abc")
    storage.copy_directory(tmp_path / "made", tmp_path / "new" / "copy")
    assert (tmp_path / "new" / "copy" / "deep" / "a").read_bytes() == b"abc"
    with pytest.raises(OutputError, match="exists already"):
        storage.copy_directory(tmp_path / "made", tmp_path / "new" / "copy")
    assert names_in(tmp_path / "new") == ["copy"]


def test_a_copy_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(MachineError):
        storage.copy_directory(tmp_path / "missing", tmp_path / "copy")
    assert names_in(tmp_path) == []
