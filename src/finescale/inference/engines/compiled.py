"""The cache of compiled networks on disk."""

import hashlib
import json
import os
import platform
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from finescale.atomic import new_file
from finescale.cache import cache_folder
from finescale.errors import FinescaleError

if TYPE_CHECKING:
    from finescale.networks.base import Network

VERSION = 15  # of what is stored and of how networks are translated; another one leaves old entries unread

LIMIT = 1 << 30  # bytes of all that is stored
_MINUTE, _DAY = 60, 24 * 60 * 60  # seconds: what was just used is left alone

_MAKING = threading.Lock()
T = TypeVar("T")


def _renew_lock() -> None:
    """In a forked process, in which no thread will give the lock back that another one of its parent held."""
    global _MAKING
    _MAKING = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def accept(
    name: str, engine: str, network: "Network", data: bytes, *, decibels: float, limit: float, memory: float
) -> dict[str, Any]:
    """Stores a network that an engine compiled, and returns the notes that every engine keeps beside it.

    Args:
        name: of the entry, see `key`.
        engine: as the user knows it.
        network: prepared by `finescale.inference.prepare.for_inference`.
        data: what was compiled.
        decibels: to PyTorch's picture, see `finescale.inference.engines.agreement`.
        limit: of those, below which the network is refused, also the next time.
        memory: that the engine needs, as much as PyTorch's features need.

    Raises:
        FinescaleError: it is refused.
    """
    from finescale.inference.prepare import bytes_per_pixel

    if decibels < limit:
        raise refuse(name, f"{engine} gives another picture than PyTorch for this network ({decibels:.1f} dB)")
    notes = {
        "scale": network.scale,
        "bytes_per_pixel": memory * bytes_per_pixel(network),
        "margin": network.context,
        "multiple": network.multiple,
        "agreement": decibels,
    }
    write(name, notes, data)
    return notes


def once(find: Callable[[], T | None], make: Callable[[], T]) -> T:
    """What is stored, or else is made, by one thread: meanwhile the whole program's warnings are silenced."""
    found = find()
    if found is None:
        with _MAKING:
            found = find() or make()
    return found


def abilities() -> str:
    """The processor's model and abilities, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    wanted = ("model name", "flags", "Features", "CPU part", "stepping")
    return "\n".join(line for line in lines if line.startswith(wanted))


def key(**what: object) -> str:
    """A name for everything that a compiled network depends on."""
    text = json.dumps([VERSION, abilities(), {name: str(value) for name, value in sorted(what.items())}])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def read(name: str) -> tuple[dict[str, Any], bytes] | None:
    """The notes and the data stored under a name; None where there are none or they are damaged.

    Raises:
        FinescaleError: it was refused before, see `refuse`.
    """
    path = cache_folder("compiled") / name
    try:
        content = path.read_bytes()
    except OSError:
        return None
    with suppress(OSError):  # see `_tidy`; a cache that is not ours
        os.utime(path)
    digest, body = content[:32], memoryview(content)[32:]
    if hashlib.sha256(body).digest() != digest:
        return None
    size = int.from_bytes(body[:4], "little")
    notes = json.loads(bytes(body[4 : 4 + size]))
    if "refused" in notes:
        raise FinescaleError(notes["refused"])
    return notes, bytes(body[4 + size :])


def write(name: str, notes: Mapping[str, Any], data: bytes) -> None:
    """Stores notes and data under a name; does nothing where the cache cannot be written.

    The file appears complete or not at all, also when several processes write it at once.
    """
    folder = cache_folder("compiled")
    text = json.dumps(notes).encode()
    body = len(text).to_bytes(4, "little") + text + data
    with suppress(OSError, FinescaleError):
        folder.mkdir(parents=True, exist_ok=True)
        with new_file(folder / name, overwrite=True) as file:
            file.write(hashlib.sha256(body).digest() + body)
        _tidy(folder)


def _tidy(folder: Path) -> None:
    """Takes away what was longest not used where all of it is above the limit, and what writers left unfinished.

    Every trained file and every version of an engine leaves something behind that is never asked for again.
    """
    entries = []
    for path in folder.iterdir():
        with suppress(OSError):  # another process took it away
            state = path.stat()
            entries.append((state.st_mtime, state.st_size, path))
    total, now = sum(size for _, size, _ in entries), time.time()
    for used, size, path in sorted(entries):
        forgotten = path.suffix == ".part" and now - used > _DAY
        if forgotten or (total > LIMIT and now - used > _MINUTE):
            with suppress(OSError):
                path.unlink()
            total -= size


def refuse(name: str, reason: str) -> FinescaleError:
    """Remembers that something does not work, so that it is not tried every time; returns the error to raise."""
    write(name, {"refused": reason}, b"")
    return FinescaleError(reason)


def remove(name: str) -> None:
    """Forgets an entry that turned out to be unusable."""
    with suppress(OSError):
        (cache_folder("compiled") / name).unlink()
