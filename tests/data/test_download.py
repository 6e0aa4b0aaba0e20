"""Downloads against a server that breaks off, lies and refuses."""

import hashlib
import http.server
import io
import socket
import ssl
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
from PIL import Image

from finescale.data import download
from finescale.data.download import Source
from finescale.errors import FinescaleError
from finescale.fetch import fetch


class Server(http.server.ThreadingHTTPServer):
    """Serves one file at every address.

    Attributes:
        break_after: bytes after which connections are cut, one for each connection to come.
        ranges: understands requests for a part.
        claims: length it says the file has.
        status: answers with this error.
        redirect: sends everybody there.
        slow: seconds before it answers.
    """

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = content
        self.break_after: list[int] = []
        self.ranges = True
        self.claims: int | None = None
        self.status: list[int] = []
        self.redirect = ""
        self.slow = 0.0
        self.asked: list[str | None] = []


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        wanted = self.headers.get("Range")
        server.asked.append(wanted)
        time.sleep(server.slow)
        if server.status:
            self.send_error(server.status.pop(0))
            return
        if server.redirect:
            self.send_response(302)
            self.send_header("Location", server.redirect)
            self.end_headers()
            return
        start = int(wanted[len("bytes=") : -1]) if wanted and server.ranges else 0
        if start and start >= len(server.content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        length = server.claims if server.claims is not None else len(server.content) - start
        self.send_header("Content-Length", str(length))
        self.end_headers()
        piece = server.content[start:]
        if server.break_after:
            piece = piece[: server.break_after.pop(0)]
        self.wfile.write(piece)

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def serving(content: bytes) -> Iterator[tuple[Server, str]]:
    server = Server(content)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server, f"http://127.0.0.1:{server.server_port}/set.zip"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


CONTENT = np.random.default_rng(0).bytes(3_000_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()


def bring(address: str, target: Path, **known: object) -> None:
    fetch(address, target, pause=0.01, **known)  # type: ignore[arg-type]


def test_goes_on_where_a_connection_broke_off(tmp_path: Path) -> None:
    seen = []
    with serving(CONTENT) as (server, address):
        server.break_after = [1_200_000, 0, 700_000]
        bring(address, tmp_path / "f", size=len(CONTENT), sha256=DIGEST, progress=lambda a, b: seen.append((a, b)))
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert server.asked == [None, "bytes=1200000-", "bytes=1200000-", "bytes=1900000-"]
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_starts_again_where_the_server_knows_no_parts(tmp_path: Path) -> None:
    with serving(CONTENT) as (server, address):
        server.ranges, server.break_after = False, [1_000_000]
        bring(address, tmp_path / "f", sha256=DIGEST)
    assert (tmp_path / "f").read_bytes() == CONTENT


def test_gives_up_without_progress_and_keeps_what_came(tmp_path: Path) -> None:
    with serving(CONTENT) as (server, address):
        server.break_after = [500_000, 0, 0, 0]
        with pytest.raises(FinescaleError, match="500,000 bytes are kept"):
            bring(address, tmp_path / "f", attempts=3)
        assert not (tmp_path / "f").exists()
        bring(address, tmp_path / "f")  # and the next call goes on
        assert server.asked[-1] == "bytes=500000-"
    assert (tmp_path / "f").read_bytes() == CONTENT


def test_two_at_once_bring_it_once(tmp_path: Path) -> None:
    with serving(CONTENT) as (server, address), ThreadPoolExecutor(2) as both:
        server.slow = 0.2
        for one in [both.submit(bring, address, tmp_path / "f", sha256=DIGEST) for _ in range(2)]:
            one.result()
        assert server.asked == [None]
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_other_sizes_and_bytes_than_published_are_refused(tmp_path: Path) -> None:
    with serving(CONTENT) as (server, address):
        with pytest.raises(FinescaleError, match="offers 3,000,000 bytes, and 4,000,000 were published"):
            bring(address, tmp_path / "f", size=4_000_000)
        (tmp_path / "f.part").write_bytes(CONTENT[:1000])  # hours of another day
        server.ranges = False
        with pytest.raises(FinescaleError, match="offers 3,000,000 bytes, and 4,000,000 were published"):
            bring(address, tmp_path / "f", size=4_000_000)
        assert (tmp_path / "f.part").read_bytes() == CONTENT[:1000]
        with pytest.raises(FinescaleError, match="not what was published"):
            bring(address, tmp_path / "f", sha256="0" * 64)
        server.claims = 5_000_000  # it lies, and ends early every time
        server.ranges = False
        with pytest.raises(FinescaleError, match="broke off"):
            bring(address, tmp_path / "g", attempts=2)
    assert [path.name for path in tmp_path.iterdir()] == ["g.part"]


@pytest.mark.usefixtures("windows_files")
def test_without_locks_as_on_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    refused = pytest.raises(FinescaleError, match="offers 3,000,000 bytes, and 4,000,000 were published")
    with serving(CONTENT) as (_, address), refused:
        bring(address, tmp_path / "f", size=4_000_000)
    assert list(tmp_path.iterdir()) == []
    with serving(CONTENT) as (server, address):
        server.break_after = [1_200_000]
        bring(address, tmp_path / "f", sha256=DIGEST)
        assert server.asked == [None, "bytes=1200000-"]
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_errors_of_the_server(tmp_path: Path) -> None:
    with serving(CONTENT) as (server, address):
        server.status = [404]
        with pytest.raises(FinescaleError, match="404 Not Found"):
            bring(address, tmp_path / "f")
        assert len(server.asked) == 1  # it is no use to ask again
        server.status = [503, 429]
        bring(address, tmp_path / "f", sha256=DIGEST)
    with pytest.raises(FinescaleError, match="could not be downloaded"):
        bring(address, tmp_path / "h", attempts=1)  # nobody there any more


def test_a_server_that_breaks_off_now_here_now_there_is_given_up(tmp_path: Path) -> None:
    with serving(CONTENT) as (server, address):
        server.ranges, server.break_after = False, [9_000, 5_000] * 20
        with pytest.raises(FinescaleError, match="broke off"):
            bring(address, tmp_path / "f", attempts=3)
        assert len(server.asked) == 4


def test_what_came_whole_before_a_kill_is_no_obstacle(tmp_path: Path) -> None:
    """Without a known size it is asked for more, and there is no more."""
    (tmp_path / "f.part").write_bytes(CONTENT)
    with serving(CONTENT) as (server, address):
        bring(address, tmp_path / "f", sha256=DIGEST)
        assert server.asked == ["bytes=3000000-", None]
    assert (tmp_path / "f").read_bytes() == CONTENT


def test_odd_addresses(tmp_path: Path) -> None:
    with serving(CONTENT) as (server, address):
        for server.redirect, reason in (("file:///etc/hostname", "302"), (address, "302"), ("http://[", "address")):
            with pytest.raises(FinescaleError, match=reason):
                bring(address, tmp_path / "f")
    for address in ("nonsense", "http://[", "ftp:", "http://a b/c"):
        with pytest.raises(FinescaleError):
            bring(address, tmp_path / "f", attempts=1)
    assert list(tmp_path.iterdir()) == []


def test_offline_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(*words: object, **options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("waited"))
    with pytest.raises(FinescaleError, match="offline"):
        fetch("http://no-such-host.invalid/a.zip", tmp_path / "f", pause=60)


def picture_bytes(colour: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 20), (colour, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def archive(kind: str) -> bytes:
    buffer = io.BytesIO()
    names = {"set/HR/a.png": 1, "set/HR/b.png": 2, "set/LR/a.png": 3, "set/HR/../../evil.png": 4}
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as bundle:
            for name, colour in names.items():
                bundle.writestr(name, picture_bytes(colour))
    else:
        with tarfile.open(fileobj=buffer, mode="w:gz") as bundle:
            for name, colour in names.items():
                member = tarfile.TarInfo("./" + name)
                member.size = len(picture_bytes(colour))
                bundle.addfile(member, io.BytesIO(picture_bytes(colour)))
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_a_set_is_unpacked_into_its_folder(tmp_path: Path, kind: str) -> None:
    with serving(archive(kind)) as (server, address):
        source = Source("Set2", "two pictures", address.replace("zip", kind), "set/HR", 2)
        place = download.get(source, tmp_path / "sets")
        assert download.get(source, tmp_path / "sets") == place  # nothing is downloaded twice
        assert len(server.asked) == 1
    assert sorted(path.name for path in place.iterdir()) == ["a.png", "b.png"]
    assert [path.name for path in (tmp_path / "sets").iterdir()] == ["Set2"]
    assert download.remarks(source, place) == []
    content = download.content_hash(list(place.iterdir()))
    (place / "b.png").rename(place / "other.png")  # names do not matter, pixels do
    assert download.content_hash(list(place.iterdir())) == content
    (place / "other.png").write_bytes(picture_bytes(9))
    said = download.remarks(Source("Set2", "", "", "", 3, content=content), place)
    assert len(said) == 2


@pytest.mark.parametrize(
    ("known", "reason"), [({"sha256": "0" * 64}, "not what was published"), ({"size": 7}, "and 7 were published")]
)
def test_a_set_that_is_not_what_was_published_is_refused(tmp_path: Path, known: dict[str, Any], reason: str) -> None:
    with serving(archive("zip")) as (_, address), pytest.raises(FinescaleError, match=reason):
        download.get(Source("Set2", "", address, "set/HR", 2, **known), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_two_at_once_unpack_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unpack, unpacked = download._unpack, list[Path]()

    def noted(archive: Path, source: Source, target: Path) -> None:
        unpacked.append(target)
        unpack(archive, source, target)

    monkeypatch.setattr(download, "_unpack", noted)
    with serving(archive("zip")) as (server, address), ThreadPoolExecutor(2) as both:
        server.slow = 0.2
        source = Source("Set2", "", address, "set/HR", 2)
        places = {one.result() for one in [both.submit(download.get, source, tmp_path) for _ in range(2)]}
        assert server.asked == [None]
    assert places == {tmp_path / "Set2"}
    assert unpacked == [tmp_path / "Set2"]
    assert [path.name for path in tmp_path.iterdir()] == ["Set2"]


def damaged(kind: str) -> bytes:
    """An archive whose directory is whole and whose contents are not."""
    content = bytearray(archive(kind))
    place = content.find(b"\x89PNG") + 20 if kind == "zip" else len(content) // 2
    content[place : place + 8] = bytes(8)
    return bytes(content)


def encrypted() -> bytes:
    """A zip file that asks for a password."""
    content = bytearray(archive("zip"))
    content[6] |= 1
    content[content.find(b"PK\x01\x02") + 8] |= 1
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"<html>sorry</html>", "zip"),
        (b"<html>sorry</html>", "tar.gz"),
        (b"", "zip"),
        (archive("tar.gz")[:200], "tar.gz"),
        (damaged("zip"), "zip"),
        (damaged("tar.gz"), "tar.gz"),
        (encrypted(), "zip"),
    ],
)
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes, kind: str) -> None:
    with serving(content) as (_, address), pytest.raises(FinescaleError, match="no readable archive"):
        download.get(Source("Set2", "", address.replace("zip", kind), "set/HR", 2), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_archive_of_something_else_is_refused(tmp_path: Path) -> None:
    with serving(archive("zip")) as (_, address), pytest.raises(FinescaleError, match="no pictures in other/HR"):
        download.get(Source("Set2", "", address, "other/HR", 2), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_archive_that_was_there_is_kept(tmp_path: Path) -> None:
    source = Source("Set2", "", "http://127.0.0.1:9/set.zip", "set/HR", 2)
    own = tmp_path / "set.zip"
    own.write_bytes(archive("zip")[:200])  # which its owner goes on downloading
    with pytest.raises(FinescaleError, match=rf"{own}: is no readable archive"):
        download.get(source, tmp_path)
    assert own.stat().st_size == 200
    own.write_bytes(archive("zip"))
    assert download.get(source, tmp_path) == tmp_path / "Set2"
    assert own.exists()


def test_every_source_names_what_it_needs() -> None:
    known = download.sources()
    assert {"DIV2K_train_HR", "DIV2K_valid_HR", "Flickr2K", "Set5", "Set14", "B100", "Urban100"} <= set(known)
    for source in known.values():
        assert source.address.startswith("https://")
        assert source.pictures > 0


def test_published_sets_are_recognised_by_their_pixels(shared_data: Path) -> None:
    for name in ("Set5", "Set14"):
        assert download.remarks(download.sources()[name], shared_data / "bench" / "HR" / name) == []


def test_a_certificate_that_is_not_trusted_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refuse(*_: object, **__: object) -> None:
        asked.append(1)
        error = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed")
        error.verify_message = "self-signed certificate"
        raise URLError(error)

    monkeypatch.setattr("finescale.fetch.urlopen", refuse)
    with pytest.raises(FinescaleError, match=r"certificate is not trusted here \(self-signed certificate; "):
        bring("https://pictures.example/a", tmp_path / "f")
    assert len(asked) == 1
    assert list(tmp_path.iterdir()) == []
