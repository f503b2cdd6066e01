"""Claims about named data sets: finding them, downloading them, and refusing what is not them."""

from __future__ import annotations

import hashlib
import http.server
import io
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stanhop.config import resolve
from stanhop.errors import Code, DataError, MachineError
from stanhop.series import catalog
from stanhop.series.catalog import DataSet

CONTENT = b"date,OT\n" + b"".join(b"2020-01-01 %02d:00:00,%d.5\n" % (hour, hour) for hour in range(24))
SHA256 = hashlib.sha256(CONTENT).hexdigest()
GIT_BLOB = hashlib.sha1(b"blob %d\0" % len(CONTENT) + CONTENT).hexdigest()

Handler = http.server.BaseHTTPRequestHandler


class Server:
    """A web server on 127.0.0.1 that answers as told, and counts the requests."""

    def __init__(self) -> None:
        self.answers: list[Callable[[Handler], None]] = [sends(CONTENT)]
        """Of the requests in turn; the last one is repeated."""
        self.paths: list[str] = []
        owner = self

        class Answering(Handler):
            def do_GET(self) -> None:  # noqa: N802 - the name is the library's
                owner.paths.append(self.path)
                turn = min(len(owner.paths), len(owner.answers)) - 1
                owner.answers[turn](self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def sends(content: bytes, *, claimed: int | None = None, status: int = 200) -> Callable[[Handler], None]:
    """Answer with ``content``, claiming to send ``claimed`` bytes."""

    def answer(handler: Handler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(content) if claimed is None else claimed))
        handler.end_headers()
        handler.wfile.write(content)

    return answer


def redirects(location: str) -> Callable[[Handler], None]:
    def answer(handler: Handler) -> None:
        handler.send_response(302)
        handler.send_header("Location", location)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def resets(handler: Handler) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The empty folder in which downloads are kept."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(catalog.DATA_FOLDER_VARIABLE, raising=False)
    monkeypatch.setattr(catalog, "PAUSE_S", 0.0)
    return tmp_path / "stanhop"


@pytest.fixture
def data_set(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> DataSet:
    """A set at the server, which stands in for a host of the catalogue."""
    monkeypatch.setattr(catalog, "ALLOWED_ADDRESS", re.compile(re.escape(server.url) + "/.*"))
    return entry(f"{server.url}/hours.csv", sha256=SHA256)


def entry(url: str, **checksum: str) -> DataSet:
    return DataSet.model_validate(
        {
            "name": "Hours",
            "title": "Hours of one day",
            "url": url,
            "file_name": "hours.csv",
            "num_rows": 24,
            "num_channels": 1,
            "frequency": "h",
            "split": {"train": 0.7, "validation": 0.1, "test": 0.2},
            "licence": "none",
            "source": "made up",
            **checksum,
        }
    )


def left_in(folder: Path) -> list[str]:
    """What lies in ``folder`` but for lock files."""
    return sorted(path.name for path in folder.glob("*") if not path.name.endswith(".lock"))


@pytest.mark.parametrize(
    ("name", "rows", "channels", "frequency", "split"),
    [
        ("ETTh1", 17_420, 7, "h", (8640, 2880, 2880)),
        ("ETTh2", 17_420, 7, "h", (8640, 2880, 2880)),
        ("ETTm1", 69_680, 7, "15min", (34_560, 11_520, 11_520)),
        ("ETTm2", 69_680, 7, "15min", (34_560, 11_520, 11_520)),
        ("WTH", 35_064, 12, "h", (20_160, 7200, 7200)),
        ("ECL", 26_304, 321, "h", (10_800, 2160, 2880)),
        ("Traffic", 17_544, 862, "h", (0.7, 0.1, 0.2)),
        ("Exchange", 7588, 8, "D", (0.7, 0.1, 0.2)),
        ("ILI", 966, 7, "W-TUE", (0.7, 0.1, 0.2)),
    ],
)
def test_the_papers_sets_have_their_shapes_and_splits(
    name: str, rows: int, channels: int, frequency: str, split: tuple[float, ...]
) -> None:
    found = catalog.find(name)
    assert (found.num_rows, found.num_channels, found.frequency) == (rows, channels, frequency)
    assert (found.split.train, found.split.validation, found.split.test) == split


def test_every_entry_can_be_asked_for_safely_and_says_its_licence() -> None:
    for name, data_set in catalog.data_sets().items():
        assert data_set.name == name
        assert catalog.ALLOWED_ADDRESS.fullmatch(data_set.url)
        assert data_set.licence
        assert data_set.source
    unknown = {name for name, data_set in catalog.data_sets().items() if data_set.checksum is None}
    assert unknown == {"ECL", "Traffic"}


def test_a_set_brings_its_reading_options_and_split_into_the_configuration() -> None:
    config = resolve([catalog.find("WTH").layer()])
    assert config.data.date_format == "%m/%d/%Y %H:%M"
    assert config.data.frequency == "h"
    assert config.data.split.train == 20_160
    assert resolve([catalog.find("ILI").layer()]).data.split.train == 0.7


def test_an_unknown_name_gets_the_nearest_and_all_others() -> None:
    with pytest.raises(DataError, match="no data set is called 'etth1'; did you mean ETTh1") as caught:
        catalog.find("etth1")
    assert caught.value.code == Code.DATASET
    assert "WTH" in str(caught.value.fix)
    assert "synthetic" in str(caught.value.fix)


@pytest.mark.parametrize(
    "changes",
    [
        {"sha256": SHA256, "git_blob_sha1": GIT_BLOB},
        {"sha256": "f18d"},
        {"read": {"date_fromat": "%d"}},
        {"file_name": "../hours.csv"},
        {"extra": "x"},
    ],
)
def test_a_catalogue_entry_that_does_not_hold_together_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        entry("https://huggingface.co/hours.csv", **changes)  # type: ignore[arg-type]  # wrong on purpose


def test_a_download_is_kept_and_not_repeated(server: Server, data_set: DataSet, cache: Path) -> None:
    assert catalog.locate(data_set) is None
    path = catalog.fetch(data_set, progress=False)
    assert path == cache / "hours.csv"
    assert path.read_bytes() == CONTENT
    assert catalog.fetch(data_set) == catalog.locate(data_set) == path
    assert server.paths == ["/hours.csv"]
    assert left_in(cache) == ["hours.csv"]


def test_a_git_blob_id_is_as_good_as_a_sha256(data_set: DataSet) -> None:
    good = entry(data_set.url, git_blob_sha1=GIT_BLOB)
    assert catalog.fetch(good, progress=False).read_bytes() == CONTENT
    with pytest.raises(MachineError, match=f"git_blob_sha1:{'0' * 40}, got git_blob_sha1:{GIT_BLOB}"):
        catalog.locate(entry(data_set.url, git_blob_sha1="0" * 40))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_shown_on_a_terminal_only(data_set: DataSet, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []
    for stream, progress in ((Terminal(), True), (Terminal(), False), (io.StringIO(), True)):
        monkeypatch.setattr(sys, "stderr", stream)
        catalog.fetch(data_set, progress=progress).unlink()
        shown.append(stream.getvalue())
    assert "B/s" in shown[0]
    assert shown[1:] == ["", ""]


def test_a_file_in_the_data_folder_comes_first(
    server: Server, data_set: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    monkeypatch.setenv(catalog.DATA_FOLDER_VARIABLE, str(own))
    cached = catalog.fetch(data_set, progress=False)
    (own / "hours.csv").write_bytes(CONTENT)
    monkeypatch.setitem(sys.modules, "pooch", None)  # what downloads is not asked where no download would go
    assert catalog.locate(data_set) == own / "hours.csv" != cached
    assert len(server.paths) == 1


def test_a_file_with_another_checksum_is_refused_and_left_alone(data_set: DataSet, cache: Path) -> None:
    cache.mkdir()
    (cache / "hours.csv").write_bytes(b"changed")
    with pytest.raises(MachineError, match=f"expected sha256:{SHA256}, got sha256:") as caught:
        catalog.fetch(data_set)
    assert caught.value.code == Code.DOWNLOAD
    assert caught.value.exit_code == 4
    assert caught.value.file == str(cache / "hours.csv")
    assert (cache / "hours.csv").read_bytes() == b"changed"


def test_a_set_without_checksum_is_not_downloaded_but_used_where_it_lies(
    server: Server, data_set: DataSet, cache: Path
) -> None:
    unknown = entry(data_set.url)
    with pytest.raises(DataError, match="because its checksum is not known") as caught:
        catalog.fetch(unknown)
    assert caught.value.code == Code.DATASET
    assert f"not downloaded from {data_set.url}" in caught.value.problem
    assert str(cache / "hours.csv") in str(caught.value.fix)
    assert server.paths == []
    cache.mkdir(exist_ok=True)
    (cache / "hours.csv").write_bytes(b"whatever")
    assert catalog.fetch(unknown) == cache / "hours.csv"


def test_other_content_is_refused_at_once_and_not_kept(server: Server, data_set: DataSet, cache: Path) -> None:
    server.answers = [sends(b"date,OT\n")]
    got = hashlib.sha256(b"date,OT\n").hexdigest()
    with pytest.raises(MachineError, match=f"expected sha256:{SHA256}, got sha256:{got}; nothing was kept") as caught:
        catalog.fetch(data_set, progress=False)
    assert (caught.value.code, caught.value.exit_code) == (Code.DOWNLOAD, 4)
    assert len(server.paths) == 1
    assert left_in(cache) == []


def test_a_web_page_instead_of_the_file_is_called_one(server: Server, data_set: DataSet, cache: Path) -> None:
    server.answers = [sends(b"\n<!doctype html><title>Log in</title>")]
    with pytest.raises(MachineError, match="it is a web page"):
        catalog.fetch(data_set, progress=False)
    assert left_in(cache) == []


@pytest.mark.parametrize("broken", [sends(CONTENT[:100], claimed=len(CONTENT)), resets, sends(b"", status=503)])
def test_a_transfer_that_breaks_off_is_tried_three_times(
    server: Server, data_set: DataSet, cache: Path, broken: Callable[[Handler], None]
) -> None:
    server.answers = [broken]
    with pytest.raises(MachineError, match=r"broke off 3 times|answered 503") as caught:
        catalog.fetch(data_set, progress=False)
    assert len(server.paths) == 3
    assert data_set.url in caught.value.problem
    assert str(cache / "hours.csv") in str(caught.value.fix)
    assert left_in(cache) == []


def test_a_transfer_that_breaks_off_twice_succeeds(server: Server, data_set: DataSet) -> None:
    server.answers = [resets, sends(CONTENT[:100], claimed=len(CONTENT)), sends(CONTENT)]
    assert catalog.fetch(data_set, progress=False).read_bytes() == CONTENT


def test_a_false_length_cannot_make_a_cut_file_pass(server: Server, data_set: DataSet, cache: Path) -> None:
    server.answers = [sends(CONTENT, claimed=100)]
    with pytest.raises(MachineError, match="expected sha256"):
        catalog.fetch(data_set, progress=False)
    assert left_in(cache) == []


def test_a_plain_refusal_is_not_tried_again(server: Server, data_set: DataSet) -> None:
    server.answers = [sends(b"", status=404)]
    with pytest.raises(MachineError, match="the server answered 404 Not Found"):
        catalog.fetch(data_set, progress=False)
    assert len(server.paths) == 1


def test_a_silent_server_is_given_up(server: Server, data_set: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "READ_TIMEOUT_S", 0.05)
    server.answers = [lambda _: time.sleep(0.5)]
    with pytest.raises(MachineError, match="did not answer in time"):
        catalog.fetch(data_set, progress=False)


def test_an_endless_download_is_stopped(
    server: Server, data_set: DataSet, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog, "LARGEST_DOWNLOAD_BYTES", 2**20)
    server.answers = [sends(bytes(2**20 + 1))]
    with pytest.raises(MachineError, match="sent more than 1 MiB"):
        catalog.fetch(data_set, progress=False)
    assert left_in(cache) == []


def test_a_redirect_within_the_allowed_addresses_is_followed(server: Server, data_set: DataSet) -> None:
    server.answers = [redirects("/elsewhere.csv"), sends(CONTENT)]
    assert catalog.fetch(data_set, progress=False).read_bytes() == CONTENT
    assert server.paths == ["/hours.csv", "/elsewhere.csv"]


def test_a_redirect_elsewhere_is_refused_before_it_is_followed(server: Server, data_set: DataSet) -> None:
    other = Server()
    for location in (f"{other.url}/hours.csv", "file:///etc/passwd", f"//127.0.0.1:{other.url[17:]}/hours.csv"):
        server.answers = [redirects(location)]
        with pytest.raises(MachineError, match="not an https address of a host of the catalogue") as caught:
            catalog.fetch(data_set, progress=False)
        assert caught.value.code == Code.DOWNLOAD
    assert other.paths == []
    other.close()


@pytest.mark.parametrize(
    "address",
    [
        "http://raw.githubusercontent.com/a.csv",
        "file:///etc/passwd",
        "ftp://huggingface.co/a.csv",
        "https://127.0.0.1/a.csv",
        "https://[::1]/a.csv",
        "https://huggingface.co.evil.org/a.csv",
        "https://evil.org/huggingface.co/a.csv",
        "https://huggingface.co@evil.org/a.csv",
        "https://huggingface.co:8443/a.csv",
        "https://evil.org\\.hf.co/a.csv",
        "https://evil.org#.hf.co/a.csv",
        "https://evil.org?.hf.co/a.csv",
        "https://hf.co/a\n.csv",
        "https://huggingface.co",
    ],
)
def test_only_https_addresses_of_the_catalogues_hosts_are_asked(cache: Path, address: str) -> None:
    with pytest.raises(MachineError, match="not an https address of a host of the catalogue"):
        catalog.fetch(entry(address, sha256=SHA256), progress=False)


def test_addresses_that_the_hosts_redirect_to_are_allowed() -> None:
    for address in ("https://cdn-lfs.hf.co/repos/a?X-Amz=1%20b", "https://cas-bridge.xethub.hf.co/xet-bridge-us/a"):
        assert catalog.ALLOWED_ADDRESS.fullmatch(address)


def test_without_a_network_the_answer_comes_at_once_with_address_and_path(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/hours.csv"
        monkeypatch.setattr(catalog, "ALLOWED_ADDRESS", re.compile(".*"))
        monkeypatch.setattr(catalog, "PAUSE_S", 60.0)
        started = time.monotonic()
        with pytest.raises(MachineError, match="no connection to the host") as caught:
            catalog.fetch(entry(url, sha256=SHA256), progress=False)
    assert time.monotonic() - started < 5
    assert (caught.value.code, caught.value.exit_code) == (Code.DOWNLOAD, 4)
    assert url in caught.value.problem
    assert str(cache / "hours.csv") in str(caught.value.fix)
    assert left_in(cache) == []


FETCH = """
import re, sys
from stanhop.series import catalog
catalog.ALLOWED_ADDRESS = re.compile(".*")
data_set = catalog.DataSet.model_validate_json(sys.argv[1])
print(catalog.fetch(data_set, progress=False).read_bytes() == bytes.fromhex(sys.argv[2]))
"""


def fetching_process(data_set: DataSet) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", FETCH, data_set.model_dump_json(), CONTENT.hex()]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=dict(os.environ))


def test_processes_that_need_the_same_set_download_it_once(server: Server, data_set: DataSet, cache: Path) -> None:
    def slowly(handler: Handler) -> None:
        time.sleep(0.5)
        sends(CONTENT)(handler)

    server.answers = [slowly]
    processes = [fetching_process(data_set) for _ in range(3)]
    assert [process.communicate(timeout=60)[0].strip() for process in processes] == ["True"] * 3
    assert server.paths == ["/hours.csv"]
    assert left_in(cache) == ["hours.csv"]


def test_a_process_killed_in_the_middle_leaves_nothing_in_the_way(
    server: Server, data_set: DataSet, cache: Path
) -> None:
    is_half_sent = threading.Event()

    def stalls(handler: Handler) -> None:
        sends(CONTENT[:100], claimed=len(CONTENT))(handler)
        handler.wfile.flush()
        is_half_sent.set()
        time.sleep(30)

    server.answers = [stalls, sends(CONTENT)]
    process = fetching_process(data_set)
    assert is_half_sent.wait(timeout=60)
    process.kill()
    process.communicate()
    assert left_in(cache) == []
    assert catalog.fetch(data_set, progress=False).read_bytes() == CONTENT


def test_importing_the_catalogue_imports_no_network_library() -> None:
    program = (
        "import sys, stanhop.series.catalog as catalog; catalog.find('WTH');"
        "print(sorted({'pooch', 'requests', 'urllib3', 'pandas', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
