"""Files that appear whole under their name, or not at all."""

import hashlib
import os
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from finescale.errors import FinescaleError, TakenError, system_reason

_PATIENCE = 2.5 if sys.platform == "win32" else 0.0  # seconds


@contextmanager
def new_file(path: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[BinaryIO]:
    """A file for writing that appears under its name when the block ends well, and leaves nothing when it does not.

    Raises:
        TakenError: the file exists and may not be overwritten.
        FinescaleError: it cannot be written.
    """
    target = Path(path)
    check_free(target, overwrite)
    part = place(target, overwrite).with_name(f".{target.name[:32]}.{secrets.token_hex(4)}.part")
    with writing(target):
        try:
            with open(part, "xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            publish(part, target, overwrite)
        finally:
            with suppress(OSError):  # a scanner has it open, on Windows
                part.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns what the system says against writing a file into one sentence.

    Raises:
        FinescaleError: it cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise FinescaleError(f"{path}: cannot be written ({system_reason(error)})") from error


def sha256(path: Path) -> str:
    """Hex digest of a file.

    Raises:
        FinescaleError: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise FinescaleError(f"{path}: cannot be read ({system_reason(error)})") from error


def check_free(target: Path, overwrite: bool) -> None:
    """Refuses a target.

    Raises:
        TakenError: it exists and may not be overwritten.
        FinescaleError: it is a folder, a pipe or a device.
    """
    with writing(target):
        if target.is_dir():
            raise FinescaleError(f"{target}: is a folder")
        if target.exists() and not target.is_file():
            raise FinescaleError(f"{target}: is a pipe or a device, not a file")
        if not overwrite and os.path.lexists(target):
            raise TakenError(f"{target}: already exists; with overwrite it is replaced")


def check_target(target: Path, overwrite: bool) -> None:
    """Refuses, before the work, a file that could not be written after it.

    Raises:
        FinescaleError: as `check_free`, or its folder is not there or cannot be written.
    """
    check_free(target, overwrite)
    if not target.parent.is_dir():
        raise FinescaleError(f"{target}: cannot be written (there is no folder {target.parent})")
    check_folder(place(target, overwrite).parent)


def check_folder(folder: Path) -> None:
    """Refuses, before the work, a folder that does not let files be written.

    Raises:
        FinescaleError: it does not.
    """
    own = os.access in os.supports_effective_ids  # else those of who started the process
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=own):
        raise FinescaleError(f"{folder}: no file can be written there (permission denied, or the disk is read-only)")


def place(target: Path, overwrite: bool) -> Path:
    """Where a file is written: what a link leads to, perhaps on another file system, if that is replaced."""
    return Path(os.path.realpath(target)) if overwrite else target


def locked(descriptor: int, *, wait: bool = False) -> bool | None:
    """Locks an open file (on POSIX systems also a folder) until it is closed.

    Args:
        descriptor: of the file.
        wait: until it is free; not on Windows.

    Returns:
        False where another process holds it; None where nobody can tell, on a file system without locks, as some of
        clusters, in the cloud and of other machines are.
    """
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # its first byte
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except (BlockingIOError, PermissionError):  # in Windows's words the latter
        return False
    except OSError:  # each has a number of its own for that
        return None
    return True


def publish(part: Path, target: Path, overwrite: bool) -> None:
    """Gives a finished file its name; without `overwrite` a file that appeared meanwhile is left alone."""
    if overwrite:
        replace(part, place(target, overwrite))
        return
    try:
        os.link(part, target)
    except FileExistsError:
        check_free(target, overwrite)
        publish(part, target, overwrite)  # it is gone again
    except OSError:  # a file system without links: a short moment in which two writers could meet
        check_free(target, overwrite)
        part.rename(target)


def replace(part: Path, target: Path) -> None:
    """As `os.replace`; on Windows again for a while, as a scanner of viruses may have one of them open for a moment."""
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            os.replace(part, target)
            return
        except PermissionError:
            if time.monotonic() >= end:
                raise
        time.sleep(0.05)
