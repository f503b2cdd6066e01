"""The named data sets of ``data/catalog.yaml``: where they are on this machine, and how they get there.

The only module that opens a connection.  It asks https addresses of the catalogue's hosts alone, follows redirects
to those alone, and keeps nothing whose checksum is wrong.
"""

from __future__ import annotations

import difflib
import hashlib
import io
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urljoin

from pydantic import Field, PositiveInt, ValidationError, model_validator

from stanhop import storage
from stanhop.config import DataConfig, Layer, Section, SplitConfig, parse_yaml
from stanhop.errors import Code, ConfigError, DataError, MachineError, quoted
from stanhop.resources import resource

if TYPE_CHECKING:
    from requests import Response
    from requests.exceptions import RequestException

DATA_FOLDER_VARIABLE = "STANHOP_DATA_DIR"

# The whole address must match, because programs disagree on which part of an odd one is the host.
ALLOWED_ADDRESS = re.compile(
    r"https://(raw\.githubusercontent\.com|huggingface\.co|[a-z0-9.-]+\.(huggingface|hf)\.co)/.*"
)

LARGEST_DOWNLOAD_BYTES = 64 * 2**20  # the largest set with a checksum has 10 MiB
NUM_TRIES = 3
PAUSE_S = 1.0
CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 30.0
LOCK_TIMEOUT_S = 600.0  # another process may be downloading over a slow line
CHUNK_BYTES = 2**16


class DataSet(Section):
    """One entry of the catalogue."""

    name: str
    title: str
    url: str
    """Where it is downloaded from."""
    file_name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of its file in a data folder."""
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    git_blob_sha1: str | None = Field(default=None, pattern=r"^[0-9a-f]{40}$")
    """Checksum by which git knows it, where the other is not published."""
    num_rows: PositiveInt
    num_channels: PositiveInt
    frequency: str
    """Step of time as a pandas alias."""
    split: SplitConfig
    """The split that published results use."""
    read: dict[str, str | bool] = Field(default_factory=dict)
    """How to read the file: keys of the configuration section `data`."""
    licence: str
    source: str

    @model_validator(mode="after")
    def _is_sound(self) -> Self:
        if self.sha256 and self.git_blob_sha1:
            raise ValueError("give sha256 or git_blob_sha1, not both")
        DataConfig.model_validate_json(json.dumps(self.read))
        return self

    @property
    def checksum(self) -> str | None:
        """``sha256:…`` or ``git_blob_sha1:…``; None where none is known."""
        if self.sha256:
            return f"sha256:{self.sha256}"
        return f"git_blob_sha1:{self.git_blob_sha1}" if self.git_blob_sha1 else None

    def layer(self) -> Layer:
        """What the configuration of a run on this set starts from: how to read it and how to split it."""
        split = {part: int(size) if size >= 1 else size for part, size in self.split.model_dump().items()}
        return Layer(f"data set {self.name}", {"data": {**self.read, "frequency": self.frequency, "split": split}})


@cache
def data_sets() -> dict[str, DataSet]:
    """Every named set by name, in the order of the catalogue.

    Raises:
        ConfigError: the catalogue does not fit its schema.
    """
    path = resource("data", "catalog.yaml")
    entries = parse_yaml(path.read_text(encoding="utf-8"), file=path)
    return {name: _parsed(name, entry, path) for name, entry in entries.items()}


def find(name: str) -> DataSet:
    """The set called ``name``.

    Raises:
        DataError: there is none.
    """
    known = data_sets()
    if name in known:
        return known[name]
    by_lower_case = {one.lower(): one for one in known}
    nearest = difflib.get_close_matches(name.lower(), by_lower_case, n=1)
    hint = f"; did you mean {by_lower_case[nearest[0]]}?" if nearest else ""
    fix = f"name one of {', '.join(known)}, synthetic, or the path of a CSV or Parquet file"
    raise DataError(Code.DATASET, f"no data set is called {quoted(name)}{hint}", fix=fix)


def locate(data_set: DataSet) -> Path | None:
    """The file of ``data_set`` on this machine: in ``$STANHOP_DATA_DIR``, else in the cache, else None.

    Raises:
        MachineError: the file found has another checksum than the catalogue says, or cannot be read.
    """
    for folder in data_folders():
        path = folder / data_set.file_name
        if path.is_file():
            _verify_file(path, data_set)
            return path
    return None


def fetch(data_set: DataSet, progress: bool = True) -> Path:
    """The file of ``data_set``, downloaded into the cache if it is not on this machine yet.

    Args:
        data_set: Which one.
        progress: Whether to show a progress bar on standard error, if that is a terminal.

    Raises:
        DataError: it is not on this machine, and without a known checksum it is not downloaded.
        MachineError: it could not be downloaded, has the wrong checksum, or cannot be stored.
    """
    found = locate(data_set)
    if found is not None:
        return found
    target = cache_folder() / data_set.file_name
    if data_set.checksum is None:
        problem = (
            f"{data_set.name} is not on this machine, and is not downloaded from {data_set.url} "
            "because its checksum is not known"
        )
        raise DataError(Code.DATASET, problem, fix=_by_hand(target))
    with storage.locked(target.with_name(f".{target.name}.lock"), timeout_s=LOCK_TIMEOUT_S):
        found = locate(data_set)  # another process may have fetched it while this one waited
        if found is not None:
            return found
        storage.remove_stale_temporaries(target.parent)
        content = _download(data_set, target, progress=progress)
        got = _checksum(content, data_set)
        if got != data_set.checksum:
            page = " (it is a web page)" if content.lstrip()[:1] == b"<" else ""
            problem = (
                f"{data_set.url} sent other content{page}: expected {data_set.checksum}, got {got}; nothing was kept"
            )
            raise MachineError(Code.DOWNLOAD, problem, fix=_by_hand(target))
        storage.write_bytes(target, content)
    return target


def data_folders() -> Iterator[Path]:
    """Where data sets are looked for, first to last."""
    own = os.environ.get(DATA_FOLDER_VARIABLE)
    if own:
        yield Path(own).expanduser()
    yield cache_folder()


def cache_folder() -> Path:
    """Where downloads are kept: ``~/.cache/stanhop``, or in ``$XDG_CACHE_HOME``, or as the operating system has it."""
    import pooch

    return Path(pooch.os_cache("stanhop"))


def _parsed(name: str, entry: Any, path: Path) -> DataSet:
    try:
        return DataSet.model_validate_json(json.dumps({"name": name, **entry}))
    except (ValidationError, TypeError) as error:
        raise ConfigError(Code.CONFIG, f"data set {quoted(name)}: {error}", file=path) from None


def _verify_file(path: Path, data_set: DataSet) -> None:
    if data_set.checksum is None:
        return
    try:
        got = _checksum(path.read_bytes(), data_set)
    except OSError as error:
        raise MachineError(Code.ENVIRONMENT, f"cannot read: {error.strerror}", file=path) from None
    if got != data_set.checksum:
        problem = f"is not the catalogue's {data_set.name}: expected {data_set.checksum}, got {got}"
        fix = "move it away to have it downloaded again, or use it as it is by giving its path as the data"
        raise MachineError(Code.DOWNLOAD, problem, fix=fix, file=path)


def _checksum(content: bytes, data_set: DataSet) -> str:
    """Checksum of ``content``, of the kind that is known of ``data_set``."""
    if data_set.git_blob_sha1:
        blob = b"blob %d\0" % len(content) + content
        return f"git_blob_sha1:{hashlib.sha1(blob, usedforsecurity=False).hexdigest()}"
    return f"sha256:{storage.sha256_of(content)}"


def _by_hand(target: Path) -> str:
    return f"put a copy at {target}, or set {DATA_FOLDER_VARIABLE} to a folder that holds {target.name}"


def _download(data_set: DataSet, target: Path, *, progress: bool) -> bytes:
    """Content of the set's address, after up to three tries; ``target`` is where a copy could be put instead.

    Raises:
        MachineError: no try succeeded; the message names the address and where to put a copy.
    """
    from requests.exceptions import RequestException

    _refuse_unless_allowed(data_set.url)
    for remaining in reversed(range(NUM_TRIES)):
        try:
            return _transfer(data_set.url, progress=progress)
        except RequestException as error:
            if remaining and _may_pass(error):
                time.sleep(PAUSE_S)
                continue
            problem = f"cannot download {data_set.url}: {_reason(error)}"
            raise MachineError(Code.DOWNLOAD, problem, fix=_by_hand(target)) from error
    raise AssertionError("unreachable: the last try returns or raises")


def _transfer(url: str, *, progress: bool) -> bytes:
    """Content of ``url``, held in memory, so that nothing unverified ever lies on the disk."""
    from pooch import HTTPDownloader
    from tqdm import tqdm

    responses: list[Response] = []

    def check(response: Response, **_: Any) -> None:
        """Called with every answer before a redirect in it is followed."""
        responses.append(response)
        if response.is_redirect:
            _refuse_unless_allowed(urljoin(response.url, response.headers["location"]))

    content = _CappedBuffer()
    try:
        is_hidden = None if progress else True  # None: shown on a terminal only
        with tqdm(total=1, unit="B", unit_scale=True, disable=is_hidden, file=sys.stderr, leave=False) as bar:
            download = HTTPDownloader(
                progressbar=bar,
                chunk_size=CHUNK_BYTES,
                timeout=(CONNECT_TIMEOUT_S, READ_TIMEOUT_S),
                hooks={"response": check},
            )
            download(url, content, None)
    finally:
        for response in responses:
            response.close()
    return content.getvalue()


class _CappedBuffer(io.BytesIO):
    """Memory that refuses more than the largest download."""

    def write(self, chunk: Any) -> int:
        if self.tell() + len(chunk) > LARGEST_DOWNLOAD_BYTES:
            problem = f"a download sent more than {LARGEST_DOWNLOAD_BYTES // 2**20} MiB and was stopped"
            raise MachineError(Code.DOWNLOAD, problem)
        return super().write(chunk)


def _refuse_unless_allowed(url: str) -> None:
    if not ALLOWED_ADDRESS.fullmatch(url):
        problem = f"the download leads to {url}, which is not an https address of a host of the catalogue"
        raise MachineError(Code.DOWNLOAD, problem, fix="check the network: something redirects the connection")


def _may_pass(error: RequestException) -> bool:
    """Whether another try may succeed: not without a connection, nor after a plain refusal."""
    from requests.exceptions import ConnectTimeout, ProxyError, SSLError, TooManyRedirects

    if isinstance(error, (ConnectTimeout, ProxyError, SSLError, TooManyRedirects)):
        return False
    if error.response is not None:
        return error.response.status_code >= 500
    return not _is_offline(error)


def _is_offline(error: RequestException) -> bool:
    from urllib3.exceptions import NewConnectionError  # also what a failed look-up of the host name becomes

    return isinstance(getattr(error.args[0] if error.args else None, "reason", None), NewConnectionError)


def _reason(error: RequestException) -> str:
    from requests.exceptions import SSLError, Timeout

    if error.response is not None:
        return f"the server answered {error.response.status_code} {error.response.reason}"
    if _is_offline(error):
        return "no connection to the host"
    if isinstance(error, Timeout):
        return "the server did not answer in time"
    if isinstance(error, SSLError):
        return "the connection is not secure"
    return f"the transfer broke off {NUM_TRIES} times"
