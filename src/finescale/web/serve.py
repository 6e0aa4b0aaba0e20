"""Starts the server: address, token, temporary files, an orderly end."""

import ipaddress
import os
import re
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
import webbrowser
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any

from finescale.errors import FinescaleError, UsageError, install
from finescale.inference.machine import signals
from finescale.web.jobs import Jobs, Limits

PREFIX = "finescale-serve-"  # of the servers' folders of temporary files
PORT = 8425  # always the same, if it is free: browsers keep bookmarks and what a page remembers by it


def serve(
    host: str = "127.0.0.1",
    port: int | None = None,
    *,
    token: str | None = None,
    browser: bool = True,
    limits: Limits | None = None,
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Serves the page until it is stopped by a signal (Ctrl+C, SIGTERM, a closed terminal).

    Args:
        host: address to listen at; beyond loopback a token is required, and made where none is given.
        port: None: 8425, or a free one where it is taken; 0: a free one.
        token: that every request must carry; None: the environment's FINESCALE_TOKEN, if there is one.
        browser: opens the page, where this machine has a screen.
        limits: what is accepted, see `Limits`; not more is kept than half of the room on the disk.
        settings: of the networks, see `finescale.inference.upscale.Upscaler`.

    Raises:
        UsageError: the token is empty or too short, the address is not one of this machine, or nothing works with the
            settings.
        FinescaleError: the extra `web` is not installed.
    """
    try:
        import python_multipart  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise FinescaleError(f"the page needs the extra 'web' ({error.name} is missing): {install('web')}") from error
    from finescale.inference.upscale import check_settings

    check_settings(**(settings or {}))
    source = "FINESCALE_TOKEN" if token is None else "--token"
    told = token is not None  # one of the environment stays out of logs
    token = os.environ.get("FINESCALE_TOKEN") if token is None else token
    if token is not None and not re.fullmatch(r"[A-Za-z0-9._~-]{16,200}", token):
        empty = "" if token else "is empty, and "
        raise UsageError(f"{source}: {empty}takes 16 to 200 letters, digits and the signs . _ ~ -")
    loopback = is_loopback(host)
    if token is None and not loopback:
        token, told = secrets.token_urlsafe(24), True
    with ExitStack() as stack:
        ending = signals("SIGTERM", "SIGHUP", "SIGBREAK")
        for number, handler in ending.items():
            stack.callback(signal.signal, number, handler)
        listener = stack.enter_context(_listen(host, port))
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True))
        _remove_left(Path(folder))

        from finescale.web.studio import Studio

        limits = limits or Limits()
        limits = replace(limits, kept_bytes=min(limits.kept_bytes, shutil.disk_usage(folder).free // 2))
        jobs = Jobs(Studio(limits, settings or {}), limits, Path(folder))
        stack.callback(jobs.close)
        _run(jobs, listener, host, token, ending, browser=browser and loopback and _has_screen(), told=told)


def _run(
    jobs: Jobs,
    listener: socket.socket,
    host: str,
    token: str | None,
    ending: Iterable[int],
    *,
    browser: bool,
    told: bool,
) -> None:
    """Says where the page is (with the token, if that may be told), and serves it until a signal comes."""
    import uvicorn

    from finescale.web.app import application

    port = listener.getsockname()[1]
    # by which a browser on this machine asks for a loopback address
    names = frozenset({"localhost", "127.0.0.1", "[::1]", _shown(host).lower()}) if is_loopback(host) else None
    app = application(jobs, token=token, hosts=names, port=port)

    class Server(uvicorn.Server):  # type: ignore[misc]
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            jobs.closing = True  # ends the streams of events, which would keep the server waiting
            super().handle_exit(sig, frame)

    server = Server(
        uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            limit_concurrency=128,
            timeout_keep_alive=10,
            timeout_graceful_shutdown=5,
            h11_max_incomplete_event_size=1 << 16,  # the address of an archive names its jobs, some two thousand
        )
    )
    # uvicorn stops in good order and then raises the signal again: that must not skip what is left to do here
    for number in ending:
        signal.signal(number, lambda *_: server.handle_exit(signal.SIGTERM, None))
    address = f"http://{_shown(host)}:{port}/"
    link = f"{address}?token={token}" if token else address
    print(f"Finescale is at {link if told else address}\nStop it with Ctrl+C.", flush=True)
    # while the page is being opened; the first request that needs it waits for it
    threading.Thread(target=import_module, args=["finescale.weights.store"], daemon=True).start()
    if browser:
        threading.Timer(0.5, webbrowser.open, [link]).start()
    with suppress(KeyboardInterrupt):
        server.run(sockets=[listener])


def _remove_left(folder: Path) -> None:
    """Removes what killed servers of this user left beside the new one's folder; those alive touch theirs."""
    new = folder.stat()
    for other in folder.parent.glob(f"{PREFIX}*"):
        with suppress(OSError):
            found = other.lstat()
            if found.st_uid == new.st_uid and found.st_mtime < new.st_mtime - 86400:
                shutil.rmtree(other, ignore_errors=True)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address; names other than localhost are taken as public."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _listen(host: str, port: int | None) -> socket.socket:
    if port is None:
        with suppress(UsageError):
            return _listen(host, PORT)
        port = 0
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        both = family == socket.AF_INET6 and socket.has_dualstack_ipv6()  # "::" is IPv4 too
        return socket.create_server((host, port), family=family, backlog=128, dualstack_ipv6=both)
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"cannot listen at {_shown(host)}:{port}: {reason}") from error


def _shown(host: str) -> str:
    """A host as it stands in an address."""
    if host in ("0.0.0.0", "::", ""):
        with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("192.0.2.1", 9))  # sends nothing; phones know this machine by its address, not by its name
            return str(probe.getsockname()[0])
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host


def _has_screen() -> bool:
    return sys.platform in ("win32", "darwin") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
