"""The HTTP API of `finescale serve` and the page that uses it; documented in openapi.json.

Nothing that was sent is served again: a result is always decoded and encoded anew.
"""

import asyncio
import json
import logging
import math
import mimetypes
import re
import secrets
import shutil
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import asdict
from http import HTTPStatus
from pathlib import Path, PurePath
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from finescale import __version__
from finescale.errors import FinescaleError, UsageError, is_disk_full, nearest
from finescale.images import files
from finescale.images.decoders import Info
from finescale.images.sizes import parse_box, parse_scale, parse_side
from finescale.inference.size import Target
from finescale.networks import AUTO, DEFAULT, SHORT
from finescale.web import studio
from finescale.web.archive import archive
from finescale.web.assets import OPENAPI, STATIC
from finescale.web.guard import Guard, problem
from finescale.web.jobs import FINAL, Full, Job, Jobs, Order, State
from finescale.web.names import content_disposition, safe_name

log = logging.getLogger("finescale")
FIELDS = ("picture", "network", "scale", "width", "height", "fit", "format", "quality")
SUFFIXES = {"png": "png", "jpeg": "jpg", "webp": "webp", "avif": "avif", "tiff": "tif"}  # format -> of the result
USUAL = {name: name for name in SUFFIXES} | {"heic": "jpeg"}  # format sent -> of the result; PNG of any other
PREVIEW_SIDE = 4096
# of the page's files; Windows takes them from its registry, where other programs may have put text/plain for .js
MEDIA_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
DISCARDED = 1 << 30  # bytes that are read, and not kept, of what is refused
FORM = 1 << 16  # bytes of a request beside its file: the form around it and the other fields


class TooLarge(MultiPartException):
    """The body of a request is above the limit."""


def application(jobs: Jobs, *, token: str | None, hosts: frozenset[str] | None, port: int) -> ASGIApp:
    """The ASGI application around a queue; `token`, `hosts` and `port` as in `Guard`. Closes `jobs` when it ends."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(jobs.close)

    for suffix, kind in MEDIA_TYPES.items():
        mimetypes.add_type(kind, suffix)
    app = Starlette(
        routes=[
            Route("/", page),
            Route("/api/openapi.json", openapi),
            Route("/api/health", health),
            Route("/api/networks", networks),
            Route("/api/jobs", submit, methods=["POST"]),
            Route("/api/jobs/{id}", status, methods=["GET"]),
            Route("/api/jobs/{id}", delete, methods=["DELETE"]),
            Route("/api/jobs/{id}/events", events),
            Route("/api/jobs/{id}/result", result),
            Route("/api/jobs/{id}/preview/{which}", preview),
            Route("/api/results.zip", results),
            Mount("/static", StaticFiles(directory=STATIC)),
        ],
        exception_handlers={
            HTTPException: http_problem,
            ClientDisconnect: gone,
            OSError: no_room,
            Exception: unexpected,
        },
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # to an address that the client may not know this server by
    app.state.jobs = jobs
    app.state.previews = asyncio.Semaphore()  # one at a time: each decodes a whole picture
    return Guard(app, token=token, hosts=hosts, port=port)


async def http_problem(_: Request, error: Exception) -> Response:
    """Errors raised while answering, and those of the router, as JSON."""
    assert isinstance(error, HTTPException)
    usual = {404: "There is nothing at this address.", 405: "This address does not take that method."}
    sentence = error.detail
    if sentence == HTTPStatus(error.status_code).phrase:  # the router's own
        sentence = usual.get(error.status_code, f"{sentence}.")
    return problem(error.status_code, sentence, dict(error.headers or {}))


async def gone(_: Request, __: Exception) -> Response:
    """The client left in the middle of its upload; nobody reads this."""
    return problem(400, "The upload ended too early.")


async def no_room(_: Request, error: Exception) -> Response:
    """The disk is full; every other error of the system is unexpected."""
    if not is_disk_full(error):
        raise error
    return problem(507, "The server has no room for this on its disk.")


async def unexpected(_: Request, __: Exception) -> Response:
    """Everything else; the traceback is the server's, not the client's."""
    return problem(500, "Something unexpected went wrong on the server.")


async def page(_: Request) -> Response:
    """The page itself."""
    return FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache"})


async def openapi(_: Request) -> Response:
    """The description of this API."""
    return FileResponse(OPENAPI, media_type="application/json")


async def health(request: Request) -> Response:
    """Whether the server works, and how busy it is."""
    jobs = _jobs(request)
    return JSONResponse(
        {"status": "ok", "version": __version__, "waiting": jobs.waiting(), "capacity": jobs.limits.waiting}
    )


async def networks(request: Request) -> Response:
    """What can be asked for: trained networks, formats of results and of what can be read, limits."""
    limits = _jobs(request).limits
    found = await run_in_threadpool(studio.networks)
    return JSONResponse(
        {
            "networks": [asdict(offer) for offer in found.values()],
            "formats": list(SUFFIXES),
            "readable": files.READABLE,
            "limits": {
                "upload_bytes": limits.upload_bytes,
                "pixels": limits.pixels,
                "result_pixels": limits.result_pixels,
                "kept_bytes": limits.kept_bytes,
                "keep": limits.keep,
            },
        }
    )


async def submit(request: Request) -> Response:
    """Takes a picture into the queue."""
    jobs = _jobs(request)
    try:
        jobs.room()  # before the upload is read and looked at
    except Full as full:
        await _pass_over(request)
        return _full(full)
    form = await _form(request, jobs.limits.upload_bytes)
    try:
        upload, values = _values(form)
        if (upload.size or 0) > jobs.limits.upload_bytes:
            raise _too_large(jobs.limits.upload_bytes)
        job = await run_in_threadpool(_submit, jobs, upload, values)
        if await request.is_disconnected():  # whoever left does not know its id
            await run_in_threadpool(jobs.remove, job.id)
    except Full as full:
        return _full(full)
    finally:
        await form.close()
    return JSONResponse(_describe(jobs, job), 202, {"Location": f"/api/jobs/{job.id}"})


async def status(request: Request) -> Response:
    """Where a job stands; who asks wants it kept."""
    job = _job(request)
    job.seen = time.monotonic()
    return JSONResponse(_describe(_jobs(request), job))


async def delete(request: Request) -> Response:
    """Cancels a job, if it is not finished, and removes its files."""
    if not await run_in_threadpool(_jobs(request).remove, request.path_params["id"]):
        raise _no_job()
    return Response(status_code=204)


async def events(request: Request) -> Response:
    """The states of a job as server-sent events, until it is finished."""
    jobs, job = _jobs(request), _job(request)

    async def stream() -> AsyncIterator[str]:
        last, quiet = "", 0
        while not jobs.closing and request.method != "HEAD":  # whose connection would wait for the end
            final = job.state in FINAL  # asked first: it may end while it is described
            now = json.dumps(_describe(jobs, job))
            quiet += 1
            if now != last and (quiet % 4 == 0 or final or not last):
                yield f"data: {now}\n\n"
                last, quiet = now, 0
            elif quiet >= 150:
                yield ": still here\n\n"  # keeps proxies from closing, and notices who has gone
                quiet = 0
            if final:
                return
            await asyncio.sleep(0.1)

    return StreamingResponse(stream(), media_type="text/event-stream")


class Delivery(FileResponse):
    """A file of a job, which counts as delivered when all of it was sent, as far as a server can know."""

    job: Job | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends it; parts of it are not noted."""
        whole = False

        async def watched(message: Message) -> None:
            nonlocal whole
            if message["type"] == "http.response.start":
                whole = message["status"] == 200 and scope["method"] == "GET"
            elif whole and not message.get("more_body"):
                await send({**message, "more_body": True})
                message = {"type": "http.response.body", "body": b""}
                await send({**message, "more_body": True})  # returns when the client has taken what came before
                if self.job and not await Request(scope, receive).is_disconnected():
                    self.job.delivered = True
            await send(message)

        await super().__call__(scope, receive, watched)


async def result(request: Request) -> Response:
    """The enlarged picture; with `shown`, to be looked at."""
    job = _done(request)
    headers = {"Content-Disposition": content_disposition(job.order.result_name)}
    looked_at = "shown" in request.query_params
    return _file(job.result, f"image/{job.order.format}", headers, delivers=None if looked_at else job)


async def results(request: Request) -> Response:
    """The enlarged pictures of several jobs, as one ZIP."""
    identities = list(dict.fromkeys(request.query_params.getlist("id")))
    if not identities:
        raise HTTPException(400, "Say whose results are wanted: 'id', once for each job.")
    found = await run_in_threadpool(lambda: [_done(request, identity) for identity in identities])
    for job in found:  # who asks wants them kept
        job.seen = time.monotonic()
    name = f"finescale-{len(found)}-picture{'s' if len(found) > 1 else ''}.zip"
    headers = {"Content-Disposition": content_disposition(name)}

    async def stream() -> AsyncIterator[bytes]:
        with closing(archive([(job.order.result_name, job.result) for job in found])) as pieces:
            async for piece in iterate_in_threadpool(pieces):
                yield piece
        yield b""  # returns when the client has taken what came before
        if not await request.is_disconnected():
            for job in found:
                job.delivered = True

    if request.method == "HEAD":
        return Response(headers=headers, media_type="application/zip")
    return StreamingResponse(stream(), headers=headers, media_type="application/zip")


async def preview(request: Request) -> Response:
    """Source or result as a PNG that every browser shows, at most 4096 pixels on its longer side."""
    job = _done(request)
    which = request.path_params["which"]
    if which not in ("source", "result"):
        raise HTTPException(404)
    target = job.folder / f"preview-{which}.png"
    largest = max(_jobs(request).limits.pixels, _jobs(request).limits.result_pixels)
    file = job.result if which == "result" else job.source
    try:
        async with request.app.state.previews:
            if await request.is_disconnected():  # another picture is looked at by now
                return Response(status_code=204)
            await run_in_threadpool(studio.preview, file, target, PREVIEW_SIDE, largest)
    except FinescaleError as error:
        if _jobs(request).get(job.id) is None:
            raise _no_job() from error  # removed in this moment
        log.warning("%s", error)
        raise HTTPException(500, "The preview could not be made; the server's log says why.") from error
    if not await run_in_threadpool(_jobs(request).weigh, job):
        raise _no_job()
    return _file(target, "image/png")


def _jobs(request: Request) -> Jobs:
    jobs: Jobs = request.app.state.jobs
    return jobs


def _full(full: Full) -> Response:
    return problem(
        429, f"The queue is full; try again in {full.retry_after} s.", {"Retry-After": str(full.retry_after)}
    )


def _no_job() -> HTTPException:
    return HTTPException(404, "There is no such job; it may have expired.")


def _job(request: Request, identity: str | None = None) -> Job:
    """The job of that id, or of the one in the address."""
    job = _jobs(request).get(request.path_params["id"] if identity is None else identity)
    if job is None:
        raise _no_job()
    return job


def _done(request: Request, identity: str | None = None) -> Job:
    job = _job(request, identity)
    if job.state is not State.DONE:
        raise HTTPException(409, job.error or f"The job is not done yet: it is {job.state}.")
    return job


def _file(
    path: Path, kind: str, headers: Mapping[str, str] | None = None, *, delivers: Job | None = None
) -> FileResponse:
    """A file of a job that may be removed in this moment; `delivers`: whose result arrives so."""
    try:
        reply = Delivery if delivers else FileResponse
        file = reply(path, media_type=kind, headers=headers, stat_result=path.stat())
    except FileNotFoundError as error:
        raise _no_job() from error
    if isinstance(file, Delivery):
        file.job = delivers
    return file


def _describe(jobs: Jobs, job: Job) -> dict[str, Any]:
    """The public view of a job: the schema Job of openapi.json."""
    order, left, expires = job.order, job.seconds_left, jobs.expires(job)
    size: int | None = None
    if job.state is State.DONE:
        with suppress(OSError):  # removed in this moment
            size = job.result.stat().st_size
    return {
        "id": job.id,
        "name": order.name,
        "state": job.state.value,
        "progress": round(job.progress, 3),
        "position": jobs.position(job),
        "seconds": round(job.seconds, 1),
        "seconds_left": None if left is None else round(left, 1),
        "network": order.network,
        "source": {"width": order.source[0], "height": order.source[1]},
        "result": {
            "width": order.size[0],
            "height": order.size[1],
            "format": order.format,
            "name": order.result_name,
            "bytes": size,
        },
        "error": job.error,
        "warnings": list(job.warnings),
        "expires": None if expires is None else round(expires),
        "delivered": job.delivered,
    }


async def _form(request: Request, limit: int) -> FormData:
    """The fields of a multipart body with a file of at most `limit` bytes."""
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        await _pass_over(request)
        raise HTTPException(415, "Send the picture as multipart/form-data, in a field named 'picture'.")
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > limit + FORM:
        await _pass_over(request)
        raise _too_large(limit, {"Connection": "close"})
    body = request.stream()

    async def limited() -> AsyncGenerator[bytes]:
        received = 0
        async for chunk in body:
            received += len(chunk)
            if received > limit + FORM:
                raise TooLarge("too large")
            yield chunk

    try:
        return await MultiPartParser(
            request.headers, limited(), max_files=1, max_fields=len(FIELDS), max_part_size=4096
        ).parse()
    except TooLarge as error:
        await _discard(body)
        raise _too_large(limit, {"Connection": "close"}) from error
    except (MultiPartException, UnicodeError) as error:  # the latter of a charset that decodes nothing
        await _discard(body)
        reason = str(error).rstrip(".")
        if reason.startswith("Part exceeded"):  # most likely the picture, sent as a text
            reason += "; send 'picture' as a file, with a filename"
        raise HTTPException(400, f"The form cannot be read: {reason}.") from error


def _too_large(limit: int, headers: Mapping[str, str] | None = None) -> HTTPException:
    return HTTPException(413, f"The file is larger than the {_megabytes(limit)} this server takes.", headers)


async def _pass_over(request: Request) -> None:
    """Discards a body of which nothing was read, unless its client waits for the answer before it sends one."""
    if request.headers.get("expect", "").lower() != "100-continue":
        await _discard(request.stream())


async def _discard(body: AsyncIterator[bytes]) -> None:
    """Reads on without keeping anything: closed while its client sends, a connection is reset, the answer with it."""
    discarded = 0
    async for chunk in body:
        discarded += len(chunk)
        if discarded > DISCARDED:
            return


def _megabytes(size: int) -> str:
    return f"{round(size / (1 << 20), 1):g} MiB" if size >= 1 << 20 else f"{size >> 10} KiB"


def _values(form: FormData) -> tuple[UploadFile, dict[str, str]]:
    """The picture and the other fields, each given at most once."""
    values: dict[str, str] = {}
    upload: UploadFile | None = None
    for key, value in form.multi_items():
        if key not in FIELDS:
            raise HTTPException(400, f"There is no field '{key[:40]}'{nearest(key, FIELDS)}.".replace("?.", "?"))
        if len(form.getlist(key)) > 1:
            raise HTTPException(400, f"The field '{key}' is given more than once.")
        if isinstance(value, UploadFile):
            if key != "picture":
                raise HTTPException(400, f"The field '{key}' is not a file.")
            upload = value
        elif key == "picture":
            raise HTTPException(400, "The field 'picture' must be a file, with a filename.")
        elif value.strip():
            values[key] = value.strip()
    if upload is None:
        raise HTTPException(400, "There is no picture: send one in a field named 'picture'.")
    return upload, values


def _submit(jobs: Jobs, upload: UploadFile, values: Mapping[str, str]) -> Job:
    """Stores the upload, looks at its header, decides what to do and queues it."""
    name = safe_name(upload.filename)
    incoming = jobs.folder / f"incoming-{secrets.token_hex(8)}"
    try:
        with open(incoming, "xb") as file:
            shutil.copyfileobj(upload.file, file)
        found = _probe(incoming)
        if isinstance(found, str):
            raise HTTPException(415, f"{found.replace(str(incoming), name)}.")
        if found.width * found.height > jobs.limits.pixels:
            raise HTTPException(
                413,
                f"{name}: {found.width} × {found.height} pixels are more than the {jobs.limits.pixels / 1e6:g} "
                "megapixels this server takes (its option --max-megapixels).",
            )
        return jobs.submit(
            _order(name, (found.width, found.height), found.format, values, jobs.limits.result_pixels), incoming
        )
    finally:
        incoming.unlink(missing_ok=True)


def _probe(file: Path) -> Info | str:
    """What the header says, or why there is none: an error would keep the file open, which Windows does not remove."""
    try:
        return files.probe(file)
    except FinescaleError as error:
        return str(error)


def _order(
    name: str, source: tuple[int, int], kind: str | None, values: Mapping[str, str], result_pixels: int
) -> Order:
    """Turns the fields of a request into an order."""
    found = studio.networks()
    if not found:
        raise HTTPException(
            503, "There are no trained weights on this machine; 'finescale doctor' shows where they go."
        )
    network = values.get("network", AUTO)
    network = SHORT.get(network, network)
    if network == AUTO and DEFAULT not in found:  # what suits no other is left to it
        network = next(iter(found))
    usual = DEFAULT if network == AUTO else network
    if usual not in found:
        have = ", ".join(found)
        raise HTTPException(400, f"There are no trained weights for a network '{network[:40]}'; there are: {have}.")
    asked = values.get("format", USUAL.get(kind or "", "png")).lower()
    format = files.FORMATS.get(f".{asked}", asked)
    if format not in SUFFIXES:
        raise HTTPException(400, f"The field 'format' must be one of {', '.join(SUFFIXES)}.")
    quality = _quality(values, format)
    try:
        target = _target(values, max(found[usual].scales))
        width, height = target.size(*source)
    except UsageError as error:
        sentence = str(error)
        raise HTTPException(400, f"{sentence[0].upper()}{sentence[1:]}.") from error
    if width * height > result_pixels:
        most = min(4, math.isqrt(result_pixels // (source[0] * source[1])))
        raise HTTPException(
            413,
            f"{name}: {width} × {height} pixels are more than the {result_pixels / 1e6:g} megapixels this server "
            f"makes; choose {f'{most}× or ' if most > 1 else ''}a smaller size.",
        )
    try:
        files.check_size(name, format, (width, height))
    except FinescaleError as error:
        raise HTTPException(400, f"{error}.") from error
    result_name = f"{PurePath(name).stem}{target.suffix}.{SUFFIXES[format]}"
    return Order(name, network, source, (width, height), format, result_name, quality)


def _quality(values: Mapping[str, str], format: str) -> int | None:
    """The quality that is asked for; a format that has none is refused where it was named, else it keeps everything."""
    if "quality" not in values:
        return None
    if not re.fullmatch(r"0*([1-9][0-9]?|100)", values["quality"], re.ASCII):
        raise HTTPException(400, "The field 'quality' must be a whole number from 1 to 100.")
    if format not in files.LOSSLESS:
        return int(values["quality"])
    if "format" in values:
        raise HTTPException(
            400, f"There is no 'quality' to choose: {format} keeps everything (jpeg, webp and avif have one)."
        )
    return None


def _target(values: Mapping[str, str], default_scale: int) -> Target:
    """The size that is asked for; without any, the largest scale the network was trained for."""
    fit = parse_box(values["fit"]) if "fit" in values else None
    scale = float(parse_scale(values["scale"])) if "scale" in values else None
    if not {"scale", "width", "height", "fit"} & set(values):
        scale = default_scale
    width, height = (parse_side(key, values[key]) if key in values else None for key in ("width", "height"))
    return Target(scale, width, height, fit)
