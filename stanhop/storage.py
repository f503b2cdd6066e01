"""Durable, atomic writing: the only module that writes files.

A reader sees the old content or the new, never a part of it, also after a crash.  The temporary
file lies beside its target, because a rename is atomic on one file system only; it is synchronised
before the rename and the directory after it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
import socket
import tempfile
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from stanhop.errors import Code, MachineError, OutputError, quoted

TEMPORARY_PREFIX = ".tmp-"
ASIDE = "-was-"
LONGEST_READABLE_NAME = 80


def write_bytes(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Put ``content`` at ``path``, whole or not at all; a symlink there is replaced, not followed.

    Args:
        path: The file.
        content: All of it.
        durable: Whether it must outlive a power cut, and not only a killed process; that takes two synchronisations
            with the disk.

    Raises:
        MachineError: the disk is full, the folder is not writable, or the write failed otherwise.
    """
    with _reported(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary_beside(path)
        try:
            _write_new(temporary, content, durable=durable)
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        if durable:
            _synchronise_directory(path.parent)


def write_text(path: Path, content: str) -> None:
    """Put ``content`` at ``path`` as UTF-8, whole or not at all."""
    write_bytes(path, content.encode("utf-8", errors="surrogatepass"))


def append_line(path: Path, line: str) -> None:
    """Add ``line`` to the text file at ``path``, durably.

    A process that is killed leaves a part of its line at most, and the next one begins its own on a line of its own.

    Raises:
        MachineError: as ``write_bytes``.
    """
    with _reported(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
        with os.fdopen(os.open(path, flags, 0o600), "r+b") as file:
            is_cut = file.seek(0, os.SEEK_END) > 0 and file.seek(-1, os.SEEK_END) >= 0 and file.read(1) != b"\n"
            file.write(f"{chr(10) if is_cut else ''}{line}\n".encode())
            file.flush()
            os.fsync(file.fileno())


def write_directory(path: Path, files: Mapping[str, bytes], *, overwrite: bool = False) -> None:
    """Put a directory of ``files`` (plain names) at ``path``, all of them or none.

    Args:
        path: The directory; it must not exist unless ``overwrite``.
        files: Content by plain file name; they are written in the order given, so put a manifest last.
        overwrite: Move an existing directory aside, the new one in, then delete the old.

    Raises:
        OutputError: ``path`` exists and ``overwrite`` is off.
        MachineError: as ``write_bytes``.
    """
    with _reported(path):
        remove_stale_temporaries(path.parent)  # of one that was killed between moving the old aside and the new in
    if not overwrite:
        refuse_existing(path)
    with _reported(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary_beside(path)
        aside = _temporary_beside(path, mark=f"{ASIDE}{path.name}")
        try:
            temporary.mkdir()
            for name, content in files.items():
                _write_new(temporary / name, content)
            _synchronise_directory(temporary)
            if os.path.lexists(path):
                path.rename(aside)
            temporary.rename(path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            if os.path.lexists(aside) and not os.path.lexists(path):
                aside.rename(path)
            raise
        _synchronise_directory(path.parent)
        _remove(aside)


def copy_directory(source: Path, path: Path) -> None:
    """Put a copy of the folder ``source``, with all its folders, at ``path``, whole or not at all.

    Raises:
        OutputError: there is something at ``path``.
        MachineError: as ``write_bytes``.
    """
    refuse_existing(path)
    with _reported(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary_beside(path)
        try:
            shutil.copytree(source, temporary)
            temporary.rename(path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        _synchronise_directory(path.parent)


def refuse_existing(path: Path) -> None:
    """Raise ``OutputError`` if there is anything at ``path``, be it a broken link."""
    if os.path.lexists(path):
        raise OutputError(Code.OUTPUT, "exists already", fix="choose another name or add --overwrite", file=path)


def make_directory(path: Path) -> None:
    """Make ``path`` and its parents, and prove that it can be written to.

    Raises:
        MachineError: it is no directory, or nothing can be written there.
    """
    with _reported(path):
        path.mkdir(parents=True, exist_ok=True)
        probe = _temporary_beside(path / "probe")
        try:
            _write_new(probe, b"probe")
        finally:
            probe.unlink(missing_ok=True)


@contextmanager
def temporary_folder(within: Path | None = None) -> Iterator[Path]:
    """A folder of this process alone, gone with all it holds when the block ends.

    Args:
        within: The folder to make it in, where ``remove_stale_temporaries`` finds what a killed process left; that of
            the machine for temporary files if not given.
    """
    with _reported(within or Path(tempfile.gettempdir())):
        if within is None:
            path = Path(tempfile.mkdtemp(prefix="stanhop-"))
        else:
            path = _temporary_beside(within / "folder")
            path.mkdir(parents=True)
    try:
        yield path
    finally:
        _remove(path)


def remove_file(path: Path) -> None:
    """Delete ``path`` if it is there."""
    with _reported(path):
        path.unlink(missing_ok=True)


def remove_stale_temporaries(directory: Path) -> None:
    """Delete what dead processes of this host left half-written directly in ``directory``.

    A directory that one of them moved aside, but did not live to replace, moves back.
    """
    for entry in directory.glob(f"{TEMPORARY_PREFIX}{_host()}-*"):
        process = entry.name.removeprefix(f"{TEMPORARY_PREFIX}{_host()}-").split("-")[0]
        if process.isdecimal() and not is_alive(int(process)):
            _, was_aside, name = entry.name.partition(ASIDE)
            if was_aside and not os.path.lexists(directory / name):
                entry.rename(directory / name)
            else:
                _remove(entry)


@contextmanager
def locked(path: Path, *, timeout_s: float = 0.0) -> Iterator[None]:
    """Hold the lock file ``path``; other processes that ask for it wait ``timeout_s`` seconds, then are refused.

    Raises:
        MachineError: another process holds it.
    """
    with _reported(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, timeout=timeout_s)
        try:
            lock.acquire()
        except Timeout:
            problem = "another process is at work here"
            raise MachineError(Code.ENVIRONMENT, problem, fix="wait for it to end", file=path) from None
    try:
        yield
    finally:
        lock.release()


def sha256_of(content: bytes) -> str:
    """Hexadecimal SHA-256 of ``content``."""
    return hashlib.sha256(content).hexdigest()


def sha256_of_file(path: Path) -> str:
    """Hexadecimal SHA-256 of the file at ``path``, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def safe_name(text: str) -> str:
    """A file name for any ``text``: its readable characters, then 12 digits of its SHA-256.

    Distinct texts give distinct names, also where the file system ignores case; the name cannot
    leave its folder, hide, or be taken for an option.
    """
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", errors="ignore").decode()
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", ascii_text)[:LONGEST_READABLE_NAME].strip("._-")
    digest = sha256_of(text.encode("utf-8", errors="surrogatepass"))[:12]
    return f"{readable}-{digest}" if readable else digest


def _write_new(path: Path, content: bytes, *, durable: bool = True) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    with os.fdopen(os.open(path, flags, 0o644), "wb") as file:
        file.write(content)
        if durable:
            file.flush()
            os.fsync(file.fileno())


def _synchronise_directory(path: Path) -> None:
    # Some network and overlay file systems refuse to synchronise a directory; the file itself is safe by then.
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _temporary_beside(path: Path, *, mark: str = "") -> Path:
    return path.parent / f"{TEMPORARY_PREFIX}{_host()}-{os.getpid()}-{secrets.token_hex(4)}{mark}"


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9]+", "_", socket.gethostname())


def is_alive(process: int) -> bool:
    """Whether this machine runs a process of that number."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


HINTS = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EACCES: "choose a folder you may write to",
    errno.EPERM: "choose a folder you may write to",
    errno.EROFS: "choose a folder you may write to",
    errno.ENOTDIR: "a part of this path is a file",
    errno.EEXIST: "a part of this path is a file",
    errno.EMFILE: "raise the limit of open files",
}


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    """Turn an ``OSError`` into the error that names ``path`` and the way out."""
    try:
        yield
    except OSError as error:
        problem = f"cannot write: {error.strerror or quoted(error)}"
        fix = HINTS.get(error.errno or 0)
        raise MachineError(Code.ENVIRONMENT, problem, fix=fix, file=path) from error
