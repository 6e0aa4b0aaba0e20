"""Downloads: resumed where they broke off, verified, and put in place when they are complete."""

import os
import shutil
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException, InvalidURL
from importlib.util import find_spec
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from finescale import atomic
from finescale.atomic import locked, replace, writing
from finescale.errors import FinescaleError, is_disk_full

Report = Callable[[int, int | None], None]  # (bytes so far, bytes in all if known)

_BLOCK = 1 << 20
_TIMEOUT = 30.0  # seconds of silence


def fetch(
    address: str,
    target: Path,
    *,
    size: int | None = None,
    sha256: str | None = None,
    progress: Report | None = None,
    attempts: int = 5,
    pause: float = 2.0,
) -> None:
    """Downloads a file, going on where an earlier download broke off, and puts it in place when complete and verified.

    Args:
        address: http or https.
        target: the file, in a folder that is made if need be; what has arrived so far is kept beside it as
            `NAME.part`.
        size: that it must have, where known.
        sha256: the hex digest that it must have, or the beginning of it, where known.
        progress: is told the bytes that are there.
        attempts: connections that may break off without any progress in between.
        pause: seconds before the second attempt; doubled each time.

    Raises:
        FinescaleError: no connection, the server refuses, what came is not what was published, or it cannot be
            written. What has arrived is kept, and the next call goes on from there, unless it was wrong.
    """
    part = target.with_name(target.name + ".part")
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        before = _state(target)
        with alone(part):
            if _state(target) != before:
                return  # another process has downloaded it meanwhile
            fruitless, most = 0, _size(part)
            while (problem := _attempt(address, part, size, progress)) is not None:
                have = _size(part)
                # a server without ranges may break off now here, now there
                fruitless = 0 if have > most else fruitless + 1
                most = max(most, have)
                if fruitless >= attempts:
                    kept = f"; {have:,} bytes are kept, the same command goes on from there" if have else ""
                    raise FinescaleError(f"{address}: could not be downloaded ({problem}){kept}")
                time.sleep(pause * 2 ** (fruitless - 1) if fruitless else 0)
            if sha256 is not None:
                _verify(address, part, sha256)
            replace(part, target)


def _attempt(address: str, part: Path, size: int | None, progress: Report | None) -> str | None:
    """One connection; None if the file is whole after it, else what went wrong, where another may get on.

    Raises:
        FinescaleError: no other would.
    """
    before = _size(part)
    try:
        return None if _transfer(address, part, size, progress) else "the connection broke off"
    except HTTPError as error:
        problem = f"the server says {error.code} {error.reason}"
        if error.code == 416 and before:  # there is nothing behind what has come, which may be of another file
            os.truncate(part, 0)
        elif error.code < 500 and error.code != 429:
            raise FinescaleError(f"{address}: {problem}") from error
        return problem
    except (InvalidURL, ValueError) as error:
        raise FinescaleError(f"{address}: not an address ({error})") from error
    except (URLError, HTTPException, OSError) as error:
        if is_disk_full(error):
            raise FinescaleError(f"{part}: the disk is full") from error
        reason = getattr(error, "reason", error)
        if isinstance(reason, socket.gaierror) and not before:
            raise FinescaleError(f"{address}: the server was not found (is this machine offline?)") from error
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise FinescaleError(
                f"{address}: the server's certificate is not trusted here ({reason.verify_message}; the environment"
                " variable SSL_CERT_FILE may name a file of others)"
            ) from error
        return str(reason) or type(error).__name__


def _verify(address: str, part: Path, wanted: str) -> None:
    """Refuses a file that is not the one that was published, and empties it."""
    digest = atomic.sha256(part)
    if not digest.startswith(wanted):
        os.truncate(part, 0)
        raise FinescaleError(f"{address}: what arrived is not what was published (SHA-256 {digest[:16]}...)")


def _state(target: Path) -> tuple[int, int] | None:
    """What tells whether a file was replaced."""
    return (target.stat().st_ino, target.stat().st_mtime_ns) if target.exists() else None


@contextmanager
def alone(part: Path) -> Iterator[None]:
    """Waits until no other process works on this file, and keeps others from it; an empty one is not kept.

    Not so on Windows, which replaces no file that is open: two that bring one file there at once may both fail.
    """
    if not find_spec("fcntl"):
        part.touch()
        try:
            yield
        finally:
            _remove_empty(part)
        return
    while True:
        with open(part, "ab") as file:
            locked(file.fileno(), wait=True)
            if not part.exists() or part.stat().st_ino != os.fstat(file.fileno()).st_ino:
                continue  # another process had it, and has put it in place or taken it away
            try:
                yield
            finally:
                _remove_empty(part)
            return


def _remove_empty(part: Path) -> None:
    if part.exists() and not _size(part):
        part.unlink()


def _size(part: Path) -> int:
    """Bytes that have arrived so far."""
    return part.stat().st_size if part.exists() else 0


def _transfer(address: str, part: Path, size: int | None, progress: Report | None) -> bool:
    """One connection: appends to `part` what is missing; whether it is whole now."""
    have = _size(part)
    if have and have == size:
        return True
    headers = {"User-Agent": "finescale"} | ({"Range": f"bytes={have}-"} if have else {})
    with urlopen(Request(address, headers=headers), timeout=_TIMEOUT) as reply:
        resumed = reply.status == 206 and reply.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        length = reply.headers.get("Content-Length")
        total = int(length) + (have if resumed else 0) if length and length.isdigit() else None
        if size is not None and total is not None and total != size:
            raise FinescaleError(f"{address}: the server offers {total:,} bytes, and {size:,} were published")
        total = total if total is not None else size
        have = have if resumed else 0
        if total is not None and shutil.disk_usage(part.parent).free < total - have:
            raise FinescaleError(f"{part.parent}: no room for {total - have:,} more bytes")
        with open(part, "ab" if resumed else "wb") as file:
            while block := reply.read(_BLOCK):
                file.write(block)
                have += len(block)
                if size is not None and have > size:
                    file.truncate(0)
                    raise FinescaleError(
                        f"{address}: the server sends more than the {size:,} bytes that were published"
                    )
                if progress:
                    progress(have, total)
    return total is None or have == total
