"""The HTTP API as scripts meet it: a real server in a process of its own, real clients."""

import asyncio
import errno
import io
import json
import mimetypes
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zipfile import ZipFile

import httpx
import numpy as np
import pytest
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import validate
from PIL import Image
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp
from tests.web.conftest import SETTINGS, Server, running, until

from finescale.cli.main import main
from finescale.errors import FinescaleError, UsageError
from finescale.images import files
from finescale.images.colours import chunk
from finescale.inference.photograph import PHOTOGRAPH
from finescale.inference.upscale import Networks
from finescale.networks import AUTO, DEFAULT, FOR_JPEG
from finescale.web import app
from finescale.web.assets import OPENAPI
from finescale.web.jobs import Job, Jobs, Limits, Order, State
from finescale.web.serve import serve
from finescale.web.studio import Offer


def png(width: int = 12, height: int = 10, mode: str = "RGB") -> bytes:
    """A noisy picture; with transparency, if any, that is not constant."""
    channels = len(mode)
    pixels = np.random.default_rng(3).integers(0, 256, (height, width, channels), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(buffer, "PNG")
    return buffer.getvalue()


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (400, 300)).save(buffer, "JPEG")
    return buffer.getvalue()


def submit(
    client: httpx.Client, data: bytes | None = None, name: str = "cat.png", fields: dict[str, str] | None = None
) -> httpx.Response:
    return client.post("/api/jobs", files={"picture": (name, png() if data is None else data)}, data=fields or {})


def slow(client: httpx.Client) -> dict[str, Any]:
    """A job that is running and will be for some seconds, in 9 tiles."""
    job = submit(client, png(144, 144), fields={"network": "rcan", "scale": "4"})
    assert job.status_code == 202, job.text
    assert job.json()["network"] == "rcan"
    path = f"/api/jobs/{job.json()['id']}"
    until(lambda: client.get(path).json()["state"] == "running")
    return dict(job.json())


def events(client: httpx.Client, identity: str) -> Iterator[dict[str, Any]]:
    with client.stream("GET", f"/api/jobs/{identity}/events") as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        for line in reply.iter_lines():
            if line.startswith("data: "):
                yield json.loads(line[6:])


def finished(client: httpx.Client, reply: httpx.Response) -> dict[str, Any]:
    """The last state of a submitted job."""
    assert reply.status_code == 202, reply.text
    return list(events(client, reply.json()["id"]))[-1]


def test_submit_follow_fetch_and_delete(
    client: httpx.Client, server: Server, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {entry.name for entry in server.folders()[0].iterdir()}
    reply = submit(client, fields={"scale": "4"})
    job = finished(client, reply)
    path = reply.headers["location"]
    assert (job["state"], job["progress"], job["error"]) == ("done", 1, None)
    assert (job["source"], job["name"]) == ({"width": 12, "height": 10}, "cat.png")
    result = client.get(f"{path}/result")
    assert result.headers["content-type"] == "image/png"
    assert 'filename="cat_x4.png"' in result.headers["content-disposition"]
    assert job["result"]["bytes"] == len(result.content)
    monkeypatch.setenv("FINESCALE_WEIGHTS", str(weights))
    expected = Networks("sa-rcan-light", **SETTINGS).picture(files.read(png()), (48, 40))
    difference = files.read(result.content).pixels.astype(int) - expected.pixels
    assert abs(difference).max() <= 1
    assert {entry.name for entry in server.folders()[0].iterdir()} - before == {job["id"]}
    assert client.delete(path).status_code == 204
    assert client.get(path).status_code == client.get(f"{path}/result").status_code == 404
    assert {entry.name for entry in server.folders()[0].iterdir()} == before


@pytest.mark.parametrize(
    ("fields", "size", "name"),
    [
        ({"scale": "1.5"}, (18, 15), "cat_x1.5.png"),
        ({"width": "30"}, (30, 25), "cat_30w.png"),
        ({"fit": "100x20", "format": "jpg"}, (24, 20), "cat_fit100x20.jpg"),
        ({"scale": "3/2"}, (18, 15), "cat_x1.5.png"),
        ({"format": "avif", "network": "sa-rcan-light"}, (48, 40), "cat_x4.avif"),
    ],
)
def test_sizes_and_formats(client: httpx.Client, fields: dict[str, str], size: tuple[int, int], name: str) -> None:
    job = finished(client, submit(client, fields=fields))
    data = client.get(f"/api/jobs/{job['id']}/result").content
    assert (job["result"]["width"], job["result"]["height"]) == files.probe(data)[:2] == size
    assert job["result"]["name"] == name
    assert files.probe(data).format == job["result"]["format"]
    client.delete(f"/api/jobs/{job['id']}")


def test_quality_is_that_of_the_command_where_the_type_has_one(client: httpx.Client) -> None:
    kinds = [({"format": "jpeg"}, "JPEG"), ({"format": "webp"}, "WEBP"), ({"format": "avif"}, "AVIF"), ({}, "PNG")]
    for fields, kind in kinds:
        sizes = []
        for quality in ("1", "90", "100"):
            job = finished(client, submit(client, png(40, 30), fields={"scale": "2", "quality": quality, **fields}))
            sizes.append(job["result"]["bytes"])
            client.delete(f"/api/jobs/{job['id']}")
        assert sizes == sorted(sizes), kind
        assert (len(set(sizes)) == 1) == (kind == "PNG"), kind


def several(client: httpx.Client, *names: str) -> dict[str, bytes]:
    """Enlarged pictures: the id and the result of each."""
    jobs = [submit(client, png(12 + i, 10), name, {"scale": "2"}) for i, name in enumerate(names)]
    found = [finished(client, job)["id"] for job in jobs]
    return {identity: client.get(f"/api/jobs/{identity}/result?shown").content for identity in found}


def delivered(client: httpx.Client, identities: Iterable[str]) -> list[bool]:
    return [client.get(f"/api/jobs/{identity}").json()["delivered"] for identity in identities]


def test_several_results_come_as_one_archive(client: httpx.Client, tmp_path: Path) -> None:
    kept = several(client, "a.png", "A.PNG", "a.gif", "Grüße \u2026.png")
    first, *_ = kept
    assert delivered(client, kept) == [False] * 4  # they were only looked at
    path = "/api/results.zip?" + "&".join(f"id={identity}" for identity in [*kept, first])
    told = client.head(path).headers
    assert delivered(client, kept) == [False] * 4
    reply = client.get(path)
    assert reply.headers["content-type"] == told["content-type"] == "application/zip"
    assert 'filename="finescale-4-pictures.zip"' in reply.headers["content-disposition"]
    archive = ZipFile(io.BytesIO(reply.content))
    assert archive.namelist() == ["a_x2.png", "A_x2 (2).png", "a_x2 (3).png", "Grüße \u2026_x2.png"]
    assert archive.testzip() is None
    assert [archive.read(name) for name in archive.namelist()] == list(kept.values())
    assert all(entry.compress_size > entry.file_size for entry in archive.infolist())  # nothing is compressed
    until(lambda: delivered(client, kept) == [True] * 4)

    for query, status in (("", 400), ("?id=", 404), (f"?id={first}&id=none", 404), ("?ids=x", 400)):
        refused = client.get(f"/api/results.zip{query}")
        assert (refused.status_code, refused.json()["error"][-1]) == (status, "."), query
    busy = slow(client)
    assert client.get(f"/api/results.zip?id={first}&id={busy['id']}").status_code == 409
    many = "".join(f"&id={'x' * 24}" for _ in range(2000))
    assert client.get(f"/api/results.zip?id={first}{many}").status_code == 404  # and not that this is too long
    for identity in (*kept, busy["id"]):
        client.delete(f"/api/jobs/{identity}")


def test_a_result_is_delivered_when_it_was_sent_as_a_whole(client: httpx.Client) -> None:
    (identity,) = several(client, "a.png")
    path = f"/api/jobs/{identity}/result"
    client.head(path)
    assert client.get(path, headers={"range": "bytes=0-9"}).status_code == 206
    assert delivered(client, [identity]) == [False]
    client.get(path)
    until(lambda: delivered(client, [identity]) == [True])
    client.delete(f"/api/jobs/{identity}")


@pytest.mark.parametrize("what", ["result", "results.zip"])
def test_a_download_that_breaks_off_delivers_nothing(server: Server, client: httpx.Client, what: str) -> None:
    (identity,) = several(client, "a.png")
    result = server.folders()[0] / identity / "result"
    with open(result, "r+b") as file:
        file.truncate(30 << 20)  # more than lies between
    path = f"/api/results.zip?id={identity}" if what == "results.zip" else f"/api/jobs/{identity}/result"
    with client.stream("GET", path) as reply:
        next(reply.iter_raw(1 << 16))
    time.sleep(0.5)
    assert delivered(client, [identity]) == [False]
    assert len(client.get(path).content) >= 30 << 20
    until(lambda: delivered(client, [identity]) == [True])
    client.delete(f"/api/jobs/{identity}")


def test_a_picture_is_enlarged_by_the_network_that_suits_it_unless_one_is_named(client: httpx.Client) -> None:
    poor, best = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (12, 10), "teal").save(poor, "JPEG", quality=40)
    Image.open(PHOTOGRAPH).convert("RGB").save(best, "JPEG", quality=100)
    before = slow(client)
    wanted: list[tuple[io.BytesIO, dict[str, str], str]] = [
        (poor, {}, FOR_JPEG),
        (poor, {"network": AUTO}, FOR_JPEG),
        (poor, {"network": DEFAULT}, DEFAULT),
        (poor, {"network": "rcan"}, "rcan"),
        (best, {"scale": "2"}, DEFAULT),
    ]
    replies = [submit(client, file.getvalue(), "cat.jpg", fields) for file, fields, _ in wanted]
    assert [reply.json()["network"] for reply in replies] == [fields.get("network", AUTO) for _, fields, _ in wanted]
    client.delete(f"/api/jobs/{before['id']}")
    jobs = [finished(client, reply) for reply in replies]
    assert [job["network"] for job in jobs] == [network for *_, network in wanted]
    sentence = "cat.jpg: a JPEG of quality 40; network: sa-rcan-light-jpeg, which takes the traces of JPEG away"
    assert [job["warnings"] for job in jobs] == [[sentence], [sentence], [], [], []]
    assert jobs[0]["result"]["width"] == 48  # the largest scale of the default network
    for job in jobs:
        client.delete(f"/api/jobs/{job['id']}")


def test_without_the_default_network_another_takes_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("finescale.web.studio.networks", lambda: {"rcan": Offer("rcan", "rcan", "", [3])})
    for fields in ({}, {"network": AUTO}):
        order = app._order("cat.png", (2, 2), "png", fields, 1000)
        assert (order.network, order.size) == ("rcan", (6, 6))


def test_progress_is_told_in_rising_steps(client: httpx.Client) -> None:
    told = list(events(client, slow(client)["id"]))
    steps = [job["progress"] for job in told]
    assert steps == sorted(steps)
    assert any(0 < step < 1 for step in steps), steps
    assert told[-1]["state"] == "done"
    left = [job["seconds_left"] for job in told if 0 < job["progress"] < 1 and job["seconds"] > 0.6]
    assert all(0 <= seconds < 60 for seconds in left), left
    client.delete(f"/api/jobs/{told[-1]['id']}")


def test_cancelling_a_running_job_stops_it_and_leaves_nothing(client: httpx.Client, server: Server) -> None:
    job = slow(client)
    assert client.get(f"/api/jobs/{job['id']}/result").status_code == 409
    last: list[dict[str, Any]] = []
    with server.client() as other:
        follower = threading.Thread(target=lambda: last.extend(events(other, job["id"])))
        follower.start()
        until(lambda: last)
        assert client.delete(f"/api/jobs/{job['id']}").status_code == 204
        follower.join(20)
    assert last[-1]["state"] == "cancelled"
    assert client.get(f"/api/jobs/{job['id']}").status_code == 404
    assert finished(client, submit(client))["state"] == "done"  # the worker lives on
    folder = server.folders()[0]
    assert job["id"] not in [entry.name for entry in folder.iterdir()]


def test_a_client_that_leaves_before_the_answer_leaves_no_job(client: httpx.Client, server: Server) -> None:
    folder = server.folders()[0]
    before = {entry.name for entry in folder.iterdir()}
    request = client.build_request("POST", "/api/jobs", files={"picture": ("cat.png", png())})
    connection = HTTPConnection(request.url.host, request.url.port)
    connection.request("POST", "/api/jobs", request.read(), {"Content-Type": request.headers["content-type"]})
    connection.close()
    after = finished(client, submit(client))
    until(lambda: {entry.name for entry in folder.iterdir()} - before == {after["id"]})


def test_previews_are_pngs_of_eight_bits(client: httpx.Client) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 9), 40000, np.uint16)).save(buffer, "TIFF")
    job = finished(client, submit(client, buffer.getvalue(), "grey.tif"))
    assert job["result"]["format"] == "tiff"
    for which, width in (("source", 9), ("result", 36)):
        reply = client.get(f"/api/jobs/{job['id']}/preview/{which}")
        found = files.probe(reply.content)
        assert (reply.headers["content-type"], found.width, found.bits) == ("image/png", width, 8)
    assert abs(int(files.read(client.get(f"/api/jobs/{job['id']}/preview/source").content).pixels[0, 0, 0]) - 156) <= 1
    assert client.get(f"/api/jobs/{job['id']}/preview/else").status_code == 404


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"scale": "0"}, "scale must be above 0"),
        ({"scale": "nan"}, "scale must be a number"),
        ({"scale": "1/0"}, "scale must be a number"),
        ({"scale": "1e9_9_9_9_9_9_9"}, "scale must be a number"),
        ({"scale": "large"}, "scale must be a number"),
        ({"scale": "2", "width": "9"}, "not scale and width"),
        ({"fit": "1920"}, "A size is WIDTHxHEIGHT"),
        ({"fit": "0x9"}, "A size is WIDTHxHEIGHT"),
        ({"width": "3px"}, "width must be a whole number"),
        ({"width": "-3"}, "at least 1 pixel"),
        ({"width": "900"}, "16 times"),
        ({"format": "gif"}, "one of png, jpeg"),
        ({"format": "../x"}, "one of png, jpeg"),
        ({"network": "rcann"}, "no trained weights for a network 'rcann'"),
        ({"network": "../../etc/passwd"}, "no trained weights"),
        ({"sacle": "2"}, "did you mean 'scale'?"),
        *(({"format": "jpeg", "quality": wrong}, "a whole number from 1 to 100") for wrong in ("0", "101", "9.5", "²")),
        ({"format": "png", "quality": "90"}, "png keeps everything"),
    ],
)
def test_impossible_requests_are_told_in_one_sentence(client: httpx.Client, fields: dict[str, str], part: str) -> None:
    reply = submit(client, fields=fields)
    assert reply.status_code == 400
    assert part in reply.json()["error"].replace("Scale", "scale").replace("Fit", "fit").replace("Width", "width")
    assert reply.json()["error"][-1] in ".?"


def test_no_field_is_given_twice(client: httpx.Client) -> None:
    for values in (["2", "3"], ["2", "2"], ["", "2"]):
        reply = client.post("/api/jobs", files={"picture": ("cat.png", png())}, data={"scale": values})
        assert (reply.status_code, reply.json()) == (400, {"error": "The field 'scale' is given more than once."})


def test_requests_without_a_picture(client: httpx.Client) -> None:
    assert client.post("/api/jobs", data={"scale": "2"}).status_code == 415
    assert client.post("/api/jobs", files={"other": ("a.png", png())}).status_code == 400
    assert client.post("/api/jobs", files={"scale": ("a.png", png())}).status_code == 400
    assert client.post("/api/jobs", files=[("picture", ("a", png()))] * 2).status_code == 400
    broken = {"content-type": "multipart/form-data"}
    assert client.post("/api/jobs", content=b"no boundary", headers=broken).status_code == 400
    for size in (4096, 4097):  # as a text, as where curl gets "<" for "@"
        reply = client.post("/api/jobs", files={"picture": (None, bytes(size))})
        assert reply.status_code == 400
        assert reply.json()["error"].endswith("a file, with a filename.")
    broken = {"content-type": "multipart/form-data; boundary=b; charset=undefined"}
    reply = client.post("/api/jobs", content=b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n', headers=broken)
    assert reply.status_code == 400
    assert reply.json()["error"].startswith("The form cannot be read: ")
    for method, path, status in (
        ("PUT", "/api/jobs", 405),
        ("GET", "/api/nothing", 404),
        ("GET", "/api/jobs/x", 404),
        ("GET", "/api/health/", 404),
    ):
        reply = client.request(method, path)
        assert reply.status_code == status
        assert reply.json()["error"].endswith(".")


def test_media_types_are_written_in_any_case(client: httpx.Client) -> None:
    request = client.build_request("POST", "/api/jobs", files={"picture": ("a.png", png())})
    kind, _, boundary = request.headers["content-type"].partition(";")
    request.headers["content-type"] = f"{kind.upper()};{boundary}"
    job = finished(client, client.send(request))
    assert job["state"] == "done"
    client.delete(f"/api/jobs/{job['id']}")


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header promises many pixels."""
    data = png()
    return data[:8] + chunk(b"IHDR", struct.pack(">II", width, height) + data[24:29]) + data[33:]


def test_too_large_is_refused_before_decoding(client: httpx.Client, server: Server) -> None:
    reply = submit(client, bomb(50_000, 50_000))
    assert reply.status_code == 413
    takes = "50000 × 50000 pixels are more than the 1 megapixels this server takes (its option --max-megapixels)."
    assert reply.json()["error"] == f"cat.png: {takes}"
    reply = submit(client, bomb(900, 900), fields={"scale": "4"})  # allowed itself, but not its result
    assert reply.status_code == 413
    makes = "3600 × 3600 pixels are more than the 4 megapixels this server makes; choose 2× or a smaller size."
    assert reply.json()["error"] == f"cat.png: {makes}"
    reply = submit(client, bomb(1000, 1000), fields={"width": "2001"})
    assert reply.json()["error"].endswith("this server makes; choose 2× or a smaller size.")
    assert Limits().pixels >= 8192 * 6144  # what phones take at most
    assert Limits().result_pixels >= 4080 * 4 * 3072 * 4  # what phones make of 12.5 megapixels, at the usual scale


@pytest.mark.parametrize("announced", [True, False])
def test_too_many_bytes_are_refused(server: Server, announced: bool) -> None:
    head = b'--b\r\nContent-Disposition: form-data; name="picture"; filename="a"\r\n\r\n'

    def body() -> Iterator[bytes]:
        yield head
        for _ in range(200):  # more than fits into what lies between
            yield bytes(100_000)
        yield b"\r\n--b--\r\n"

    # a client that listens when it has sent everything, and gives up where it cannot
    connection = HTTPConnection(server.address.removeprefix("http://"), timeout=30)
    content = b"".join(body()) if announced else body()
    connection.request("POST", "/api/jobs", content, {"Content-Type": "multipart/form-data; boundary=b"})
    reply = connection.getresponse()
    assert reply.status == 413
    assert "larger than the 1 MiB" in json.load(reply)["error"]
    connection.close()
    assert not [entry for entry in server.folders()[0].iterdir() if entry.name.startswith("incoming")]


@pytest.mark.parametrize(("kind", "status"), [("multipart/form-data; boundary=b", 413), ("image/png", 415)])
def test_a_client_that_asks_first_is_told_before_it_sends(server: Server, kind: str, status: int) -> None:
    host, _, port = server.address.removeprefix("http://").partition(":")
    lines = (f"Host: {host}:{port}", f"Content-Type: {kind}", "Content-Length: 20000000", "Expect: 100-continue")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall("\r\n".join(["POST /api/jobs HTTP/1.1", *lines, "", ""]).encode())
        assert connection.recv(100).startswith(f"HTTP/1.1 {status} ".encode())


def test_the_limit_is_that_of_the_file(jobs: Jobs) -> None:
    jobs.limits = Limits(upload_bytes=512 << 10)
    page = app.application(jobs, token=None, hosts=None, port=80)

    async def ask(size: int) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(page), base_url="http://here") as client:
            return await client.post("/api/jobs", files={"picture": ("cat.png", bytes(size))})

    replies = [asyncio.run(ask(size << 10)) for size in (512, 513, 600)]  # the last is refused unread
    assert [reply.status_code for reply in replies] == [415, 413, 413]
    sentence = "The file is larger than the 512 KiB this server takes."
    assert [reply.json()["error"] for reply in replies[1:]] == [sentence, sentence]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x7fELF" + bytes(100),
        b"#!/bin/sh\ntouch /tmp/owned\n",
        b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><script>alert(1)</script></svg>',
        b"%!PS\n%%BoundingBox: 0 0 9 9\nshowpage\n",
        b"<html><script>alert(1)</script></html>",
        png()[:20],
    ],
    ids=["empty", "program", "script", "svg", "postscript", "html", "cut off"],
)
def test_what_is_no_picture_is_refused(client: httpx.Client, data: bytes) -> None:
    reply = submit(client, data, "x.png")
    assert reply.status_code == 415
    assert reply.json()["error"].startswith("x.png: ")
    assert "incoming" not in reply.json()["error"]


@pytest.mark.usefixtures("windows_files")
@pytest.mark.parametrize("data", [b"#!/bin/sh\n", jpeg()[:200], b"<svg/>"], ids=["script", "cut off", "svg"])
def test_what_is_no_picture_can_be_removed_at_once(tmp_path: Path, data: bytes) -> None:
    jobs: Any = SimpleNamespace(folder=tmp_path)
    with pytest.raises(HTTPException, match=r"415: x\.png: ") as refused:
        app._submit(jobs, UploadFile(io.BytesIO(data), filename="x.png"), {})
    assert (refused.value.status_code, list(tmp_path.iterdir())) == (415, [])


async def _ask(page: ASGIApp, *paths: str, base: str = "http://test", **headers: str) -> list[httpx.Response]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(page), base_url=base, headers=headers) as client:
        return [await client.get(path) for path in paths]


TOKEN = "a-token-of-20-letters"


def with_token() -> ASGIApp:
    return app.application(SimpleNamespace(), token=TOKEN, hosts=None, port=8425)  # type: ignore[arg-type]


def test_the_token_is_found_among_the_cookies_of_others() -> None:
    """Of other programs of this host: browsers share cookies between its ports."""
    for others in ("", 'a={"b":1}; c; ', "a=[b,c]; =; "):
        for token, status in ((TOKEN, 200), (TOKEN[:-1], 401), ("", 401)):
            cookie = f"{others}finescale-8425={token}"
            (reply,) = asyncio.run(_ask(with_token(), "/api/openapi.json", cookie=cookie))
            assert reply.status_code == status, cookie


def test_the_cookie_of_an_encrypted_page_is_never_sent_unencrypted() -> None:
    for scheme in ("http", "https"):
        (reply,) = asyncio.run(_ask(with_token(), f"/?token={TOKEN}", base=f"{scheme}://test"))
        assert ("; secure" in reply.headers["set-cookie"].lower()) == (scheme == "https")


def test_a_token_may_be_pasted_with_spaces() -> None:
    (reply,) = asyncio.run(_ask(with_token(), f"/?token=%20{TOKEN}%0A"))
    assert reply.status_code == 303
    assert reply.headers["set-cookie"].startswith(f"finescale-8425={TOKEN};")


async def _types(names: list[str]) -> list[str]:
    page = app.application(SimpleNamespace(), token=None, hosts=None, port=1)  # type: ignore[arg-type]
    return [reply.headers["content-type"].partition(";")[0] for reply in await _ask(page, *names)]


def test_the_page_is_served_by_its_own_media_types(monkeypatch: pytest.MonkeyPatch) -> None:
    """Browsers run no script of text/plain, which is what .js is in many a registry of Windows."""
    monkeypatch.setattr(mimetypes, "_db", mimetypes.MimeTypes())
    for suffix in app.MEDIA_TYPES:
        mimetypes.add_type("text/plain", suffix)
    assert mimetypes.guess_type("app.js")[0] == "text/plain"
    names = ["/", "/static/app.js", "/static/style.css", "/static/icon.svg"]
    assert asyncio.run(_types(names)) == list(app.MEDIA_TYPES.values())


def test_the_last_event_is_the_last_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the job ends just after it was described."""
    job = SimpleNamespace(state=State.RUNNING)

    def describe(jobs: object, job: SimpleNamespace) -> dict[str, str]:
        found = {"state": job.state.value}
        job.state = State.FAILED
        return found

    for name, value in (("_jobs", SimpleNamespace(closing=False)), ("_job", job)):
        monkeypatch.setattr(app, name, lambda request, value=value: value)
    monkeypatch.setattr(app, "_describe", describe)

    async def told() -> list[str]:
        reply: Any = await app.events(Request({"type": "http", "method": "GET"}))
        return [line async for line in reply.body_iterator]

    assert [json.loads(line[6:])["state"] for line in asyncio.run(told())] == ["running", "failed"]


def test_a_damaged_picture_fails_without_naming_the_servers_paths(client: httpx.Client, server: Server) -> None:
    job = finished(client, submit(client, png(40, 40)[:-1500], "torn.png"))
    assert job["state"] == "failed"
    assert job["error"].startswith("torn.png: ")
    assert str(server.temporary) not in json.dumps(job)
    assert client.get(f"/api/jobs/{job['id']}/result").json()["error"] == job["error"]


def test_warnings_come_with_the_job_and_the_log_names_no_paths(client: httpx.Client, server: Server) -> None:
    before = len(server.log.read_text())
    buffer = io.BytesIO()
    frames = [Image.new("RGB", (12, 10), colour) for colour in ("red", "blue")]
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    moving = finished(client, submit(client, buffer.getvalue(), "cat.gif", {"scale": "2"}))
    clear = finished(client, submit(client, png(mode="RGBA"), "cat.png", {"scale": "2", "format": "jpeg"}))
    plain = finished(client, submit(client, fields={"scale": "2"}))
    assert client.get(f"/api/jobs/{moving['id']}/preview/source").status_code == 200
    assert moving["warnings"] == ["cat.gif: has several frames or pages; only the first is read"]
    assert clear["warnings"] == ["cat_x2.jpg: JPEG holds no transparency; the picture is laid on white"]
    assert plain["warnings"] == []
    assert str(server.temporary) not in server.log.read_text()[before:]
    for job in (moving, clear, plain):
        client.delete(f"/api/jobs/{job['id']}")


@pytest.mark.parametrize(
    "name",
    [
        "../../../etc/cron.d/x.png",
        "C:\\Windows\\x.png",
        "a\r\nSet-Cookie: b=c.png",
        '"; rm -rf ~; ".png',
        "\u202egnp.exe",
    ],
)
def test_hostile_names_become_harmless(client: httpx.Client, server: Server, name: str) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="picture"; filename="%s"\r\n\r\n%s\r\n--b--\r\n'
    quoted = name.replace("\\", "\\\\").replace('"', '\\"').replace("\r\n", "%0D%0A").encode()
    headers = {"content-type": "multipart/form-data; boundary=b"}
    job = finished(client, client.post("/api/jobs", content=body % (quoted, png()), headers=headers))
    reply = client.get(f"/api/jobs/{job['id']}/result")
    assert re.fullmatch(
        r"attachment; filename=\"[^\"\\/]+\"; filename\*=UTF-8''[\w.%~-]+", reply.headers["content-disposition"]
    )
    assert "set-cookie" not in reply.headers
    assert not {"/", "\\", '"', "\r", "\n", "\u202e"} & set(job["name"])
    assert job["name"][0] != "."
    inside = {path.name for path in (server.folders()[0] / job["id"]).iterdir()}
    assert inside == {"source", "result"}
    client.delete(f"/api/jobs/{job['id']}")


def test_other_pages_in_the_same_browser_are_kept_out(client: httpx.Client, server: Server) -> None:
    own = server.address.removeprefix("http://")
    port = own.rpartition(":")[2]
    for host in ("evil.example", f"evil.example:{port}", f"127.0.0.1.evil.example:{port}", "127.0.0.1:1.evil", ""):
        assert client.get("/api/health", headers={"host": host}).status_code == 403, host
    for host in (f"localhost:{port}", "LOCALHOST:1", "127.0.0.1", f"[::1]:{port}"):  # also through tunnels
        assert client.get("/api/health", headers={"host": host}).status_code == 200, host
    for headers in (
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": f"http://localhost:{port}"},  # not the host this request names
        {"origin": f"http://{own}", "sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},  # another port of this machine
    ):
        assert client.delete("/api/jobs/none", headers=headers).status_code == 403, headers
        assert client.post("/api/jobs", files={"picture": png()}, headers=headers).status_code == 403, headers
    assert client.delete("/api/jobs/none", headers={"origin": f"http://{own}"}).status_code == 404


def test_every_reply_carries_the_protective_headers(client: httpx.Client) -> None:
    for path in ("/", "/static/app.js", "/api/health", "/api/nothing"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert "access-control-allow-origin" not in headers
    page = client.get("/").text
    assert not re.search(r"\son\w+=|style=|javascript:|(src|href)=\"(https?:)?//", page)
    assert client.get("/static/../app.py").status_code == client.get("/static/%2e%2e/app.py").status_code == 404


def test_the_description_is_valid_and_true(client: httpx.Client) -> None:
    document = client.get("/api/openapi.json").json()
    assert document == json.loads(OPENAPI.read_text())
    validate(document)

    def matches(value: object, schema: str) -> None:
        rules = {"$ref": f"#/components/schemas/{schema}", "components": document["components"]}
        assert [error.message for error in OAS31Validator(rules).iter_errors(value)] == []

    reply = submit(client)
    matches(reply.json(), "Job")
    matches(finished(client, reply), "Job")
    for part in ("result", "preview/result"):
        described = document["paths"][f"/api/jobs/{{id}}/{part.replace('/result', '/{which}')}"]["get"]["responses"]
        for asked, status in (("bytes=0-9", "206"), ("pages=1", "400"), ("bytes=999999-", "416")):
            answer = client.get(f"{reply.headers['location']}/{part}", headers={"range": asked})
            assert str(answer.status_code) == status
            name = described[status]["$ref"].rpartition("/")[2]
            kinds = document["components"]["responses"][name].get("content", {"image/png": {}})
            assert answer.headers["content-type"].partition(";")[0] in kinds
    matches(client.get("/api/health").json(), "Health")
    matches(client.get("/api/networks").json(), "Offer")
    matches(client.get("/api/jobs/none").json(), "Problem")
    offered = client.get("/api/networks").json()
    assert document["components"]["schemas"]["Order"]["properties"]["network"]["default"] == AUTO
    assert offered["networks"][0] == {
        "name": "sa-rcan-light",
        "title": "Photographs",
        "summary": offered["networks"][0]["summary"],
        "scales": [2, 3, 4],
    }
    assert document["components"]["schemas"]["Order"]["properties"]["format"]["enum"] == offered["formats"]
    assert document["components"]["schemas"]["Order"]["properties"].keys() == set(app.FIELDS)
    for path, methods in document["paths"].items():
        for method in methods.keys() & {"get", "post", "delete"}:
            answer = client.request(method, path.replace("{id}", "none").replace("{which}", "source"))
            assert {str(answer.status_code), "401", "403"} <= methods[method]["responses"].keys(), (path, method)


def test_the_description_makes_clients_that_can_send_a_picture() -> None:
    schemas = json.loads(OPENAPI.read_text())["components"]["schemas"]
    picture = schemas["Order"]["properties"]["picture"]
    assert picture["format"] == "binary"  # without it generators make it a text
    assert {"width", "height", "bytes"} <= schemas["Result"]["properties"].keys()


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    """A queue in which nothing is done, and kept for a minute."""
    (tmp_path / "jobs").mkdir()
    found = Jobs(lambda *_: None, Limits(keep=60), tmp_path / "jobs")
    yield found
    found.close()


def done(jobs: Jobs) -> Job:
    upload = jobs.folder / "upload"
    upload.touch()
    job = jobs.submit(Order("cat.png", "sa-rcan-light", (2, 2), (8, 8), "png", "cat_x4.png"), upload)
    until(lambda: job.state is State.DONE)
    return job


@pytest.mark.parametrize(("number", "status"), [(errno.ENOSPC, 507), (errno.EIO, 500)])
def test_a_full_disk_is_told(number: int, status: int, monkeypatch: pytest.MonkeyPatch, jobs: Jobs) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, "no")

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app.application(jobs, token=None, hosts=None, port=80), False)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            return await client.post("/api/jobs", files={"picture": ("cat.png", png())})

    monkeypatch.setattr("shutil.copyfileobj", fail)
    reply = asyncio.run(ask())
    assert reply.status_code == status
    assert ("no room" in reply.json()["error"]) == (status == 507)


def test_a_preview_that_cannot_be_made_is_told(monkeypatch: pytest.MonkeyPatch, jobs: Jobs) -> None:
    def fail(*_: object) -> None:
        raise FinescaleError("preview-result.png: cannot be written (no space left on device)")

    def remove(*_: object) -> None:
        jobs.remove(job.id)
        fail()

    async def ask() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app.application(jobs, token=None, hosts=None, port=80))
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            path = f"/api/jobs/{job.id}/preview/result"
            first = await client.get(path)
            monkeypatch.setattr("finescale.web.studio.preview", remove)
            return [first, await client.get(path)]

    monkeypatch.setattr("finescale.web.studio.preview", fail)
    job = done(jobs)
    failed, removed = asyncio.run(ask())
    assert (failed.status_code, removed.status_code) == (500, 404)
    assert failed.json()["error"] == "The preview could not be made; the server's log says why."


def test_a_result_that_is_removed_in_this_moment_is_missed(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finescale.web.studio.preview", lambda *_: None)
    path = f"/api/jobs/{done(jobs).id}"
    page = app.application(jobs, token=None, hosts=None, port=80)
    described, *missed = asyncio.run(_ask(page, path, f"{path}/result", f"{path}/preview/result"))
    assert described.json()["result"]["bytes"] is None
    assert [reply.status_code for reply in missed] == [404, 404]
    assert "no such job" in missed[0].json()["error"]


def test_asking_keeps_a_result(jobs: Jobs) -> None:
    job = done(jobs)
    page = app.application(jobs, token=None, hosts=None, port=80)

    def ask() -> httpx.Response:
        return asyncio.run(_ask(page, f"/api/jobs/{job.id}"))[0]

    assert job.ended is not None
    job.ended -= 40
    assert round(jobs.expires(job) or 0) == 20
    assert ask().json()["expires"] == 60
    job.ended -= 40
    assert ask().json()["expires"] == 60
    job.seen -= 80
    assert ask().status_code == 404


def test_previews_are_made_one_at_a_time(monkeypatch: pytest.MonkeyPatch, jobs: Jobs) -> None:
    at_work, most = 0, 0

    def make(_: Path, target: Path, *__: object) -> None:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        time.sleep(0.05)
        target.write_bytes(b"")
        at_work -= 1

    async def ask() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app.application(jobs, token=None, hosts=None, port=80))
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            paths = [f"/api/jobs/{job.id}/preview/{which}" for job in kept for which in ("source", "result")]
            return await asyncio.gather(*map(client.get, paths))

    monkeypatch.setattr("finescale.web.studio.preview", make)
    kept = [done(jobs) for _ in range(3)]
    replies = asyncio.run(ask())
    assert ([reply.status_code for reply in replies], most) == ([200] * 6, 1)


@pytest.mark.slow
def test_asking_for_the_headers_of_events_does_not_wait_for_the_end(server: Server) -> None:
    with server.client() as client:
        path = f"/api/jobs/{slow(client)['id']}"
        assert client.head(f"{path}/events").headers["content-type"].startswith("text/event-stream")
        assert client.get(path).json()["state"] == "running"  # over the same connection
        client.delete(path)


@pytest.mark.slow
def test_a_small_server_full_expiring_and_ended_by_a_signal(weights: Path, tmp_path: Path) -> None:
    with running(weights, tmp_path, "--queue", "1", "--keep", "0.02") as server, server.client() as client:
        job = finished(client, submit(client))
        folder = server.folders()[0]
        assert folder.stat().st_mode & 0o077 == 0
        assert 0 <= job["expires"] <= 2
        until(lambda: not list(folder.iterdir()), 10)  # nobody asks for it: it goes by itself
        assert client.get(f"/api/jobs/{job['id']}").status_code == 404

        first = slow(client)
        second = submit(client).json()
        assert (second["state"], second["position"]) == ("waiting", 1)
        refused = submit(client)
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["retry-after"]) <= 600
        assert client.get("/api/health").json()["waiting"] == 1
        client.delete(f"/api/jobs/{second['id']}")
        assert submit(client).status_code == 202

        last: list[dict[str, Any]] = []
        follower = threading.Thread(target=lambda: last.extend(events(client, first["id"])))
        follower.start()
        until(lambda: last)
        assert server.stop() == 0  # while a job runs, one waits and somebody listens
        follower.join(10)
        assert not follower.is_alive()
        assert server.folders() == []


@pytest.mark.slow
def test_beyond_loopback_a_token_is_required(weights: Path, tmp_path: Path) -> None:
    with running(weights, tmp_path, "--host", "0.0.0.0") as server, server.client() as client:
        token = server.token
        assert token is not None
        assert len(token) >= 32
        for path in ("/", "/api/health", "/api/networks", "/api/openapi.json", "/api/jobs/x"):
            assert client.get(path).status_code == 401, path
        assert submit(client).status_code == 401
        assert client.get("/static/style.css").status_code == 200
        asked = client.get("/", headers={"accept": "text/html"})
        assert (asked.status_code, 'name="token"' in asked.text) == (401, True)
        for wrong in ("wrong", token[:-1], token + "x", "é"):
            given = httpx.Headers({b"authorization": f"Bearer {wrong}".encode()})
            assert client.get("/api/health", headers=given).status_code == 401
        assert client.get("/?token=wrong").status_code == 401
        refused = client.get("/?token=wrong", headers={"accept": "text/html"})
        assert [" hidden>" in reply.text for reply in (asked, refused)] == [True, False]  # what is said of a wrong one
        assert client.get(f"/api/health?token={token}").status_code == 401  # only the page's own link
        assert client.get("/api/health", headers={"authorization": f"bearer {token}"}).status_code == 200
        proxied = httpx.get(f"{server.address}/?token={token}", headers={"x-forwarded-proto": "https"})
        assert "; secure" in proxied.headers["set-cookie"].lower()  # a proxy on this machine is believed
        link = client.get(f"/?token={token}")
        assert (link.status_code, link.headers["location"]) == (303, "/")
        cookie = link.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=lax" in cookie
        assert client.get("/").status_code == 200  # the cookie is kept by the client
        reply = submit(client)
        assert finished(client, reply)["state"] == "done"
        stranger = {"origin": "http://evil.example"}
        assert client.delete(reply.headers["location"], headers=stranger).status_code == 403


def test_without_the_extra_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "starlette", None)
    with pytest.raises(FinescaleError, match=r'starlette is missing.*pip install "finescale\[web\]"'):
        serve()


def test_an_empty_token_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finescale.web.serve._listen", lambda host, port: pytest.fail("it starts"))
    monkeypatch.setenv("FINESCALE_TOKEN", "")
    for token, source in (("", "--token"), (None, "FINESCALE_TOKEN")):
        with pytest.raises(UsageError, match=f"^{source}: is empty, and takes 16 to 200 letters"):
            serve(token=token)


def test_an_impossible_start_is_refused() -> None:
    with pytest.raises(UsageError, match="16 to 200"):
        serve(token="short")
    with pytest.raises(UsageError, match="cannot listen"):
        serve(host="203.0.113.7")
    with pytest.raises(UsageError, match="cannot listen"):
        serve(host="my..host")
    with pytest.raises(UsageError, match="cannot listen"):
        serve(port=700_000)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("--device gpu", "there is no device 'gpu' here, only cpu"),
        ("--device cuda --engine openvino", "the openvino engine runs on the CPU, not on 'cuda'"),
        ("--engine onnx --precision bfloat16", "the onnx engine computes in float32, not in bfloat16"),
        ("--engine torch --precision int8", "the torch engine computes in float32 and bfloat16, not in int8"),
        ("--tile 0", "tiles have at least 1 pixel a side, not 0"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_the_start_as_by_upscale(
    options: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finescale.web.serve._listen", lambda host, port: pytest.fail("it starts"))
    (tmp_path / "a.png").write_bytes(png())
    for command in (["serve", "--no-browser"], ["upscale", str(tmp_path / "a.png")]):
        assert main([*command, *options.split()]) == 2
        assert f"finescale: {sentence}" in capsys.readouterr().err


@pytest.mark.parametrize(("package", "engine"), [("openvino", "openvino"), ("onnxruntime", "onnx")])
def test_an_engine_that_is_not_installed_is_told_at_the_start(
    package: str, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr("finescale.web.serve._listen", lambda host, port: pytest.fail("it starts"))
    with pytest.raises(UsageError, match=f"the {engine} engine needs"):
        serve(settings={"engine": engine})


@pytest.mark.parametrize("engine", ["auto", "openvino"])
def test_bfloat16_on_a_processor_without_it_is_refused_at_the_start(
    engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    core = SimpleNamespace(get_property=lambda *_: ["FP32"])
    monkeypatch.setattr("finescale.inference.engines.openvino.load_core", lambda: (core, ""))
    monkeypatch.setattr("finescale.web.serve._listen", lambda host, port: pytest.fail("it starts"))
    with pytest.raises(UsageError, match="this processor has no bfloat16"):
        serve(settings={"engine": engine, "precision": "bfloat16", "device": "cpu"})


def test_a_queue_without_places_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["serve", "--queue", "0"])
    assert refused.value.code == 2
    assert "expected a whole number above 0, not '0'" in capsys.readouterr().err


def test_checking_the_settings_loads_nothing_heavy() -> None:
    code = (
        "import sys; from finescale.inference.upscale import check_settings as check; check(ensemble=True); "
        "check(engine='torch', precision='bfloat16', device='cpu', tile=48); check(engine='onnx', precision='float32');"
        "assert not {'torch', 'openvino', 'onnxruntime'} & set(sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
