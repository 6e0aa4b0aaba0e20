"""Checkpoints that are whole or not there: written beside, flushed, renamed, and hashed.

A run's folder holds `last.ckpt`, `previous.ckpt` (the one before) and `best.ckpt` (the last of a validation that was
the best so far). Each is one line (`finescale-checkpoint-1`, the SHA-256 of what follows, its length) and then what
`torch.save` gives. They are read without unpickling anything but tensors and plain values.
"""

import hashlib
import io
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import torch

from finescale.atomic import check_folder, locked, replace, writing
from finescale.errors import FinescaleError, FinescaleWarning, is_out_of_memory, system_reason

_MAGIC = "finescale-checkpoint-1"
LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"


def save(folder: Path, state: dict[str, Any], *, best: bool = False) -> Path:
    """Makes `state` the last checkpoint; the last so far becomes the previous one.

    At every moment, also if the process is killed or the machine loses power, the folder holds a whole checkpoint.

    Args:
        folder: of the run.
        state: tensors and plain values.
        best: it is also the best one.

    Raises:
        FinescaleError: it cannot be written; those that were there are untouched.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getbuffer()
    part, last = folder / f".{LAST}.part", folder / LAST
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(part, "wb") as file:
            file.write(f"{_MAGIC} {hashlib.sha256(content).hexdigest()} {len(content)}\n".encode())
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if _is_whole(last):  # or what is damaged would take the place of the one that is not
            _also(last, folder / PREVIOUS)
        replace(part, last)
        if best:
            _also(last, folder / BEST)
        _flush_folder(folder)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise FinescaleError(f"{last}: the checkpoint could not be written ({system_reason(error)})") from error
    return last


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Makes a run's folder, and keeps other processes from training there meanwhile, where folders can be locked.

    A folder that it made is taken away again if nothing came into it.

    Raises:
        FinescaleError: it cannot be made or written, or another process is training there.
    """
    with writing(folder):
        made = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
    check_folder(folder)
    with ExitStack() as stack:
        if os.name == "posix":
            with writing(folder):
                handle = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, handle)
            if locked(handle) is False:
                raise FinescaleError(f"{folder}: another process is training there")
        try:
            yield
        finally:
            if made:
                with suppress(OSError):  # something is in it
                    folder.rmdir()


def read(path: Path) -> dict[str, Any]:
    """A checkpoint, its tensors on the CPU.

    Raises:
        FinescaleError: it is not there, damaged or cut short, or holds what is neither.
    """
    content = _content(path)
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # as many kinds as there are ways of damage
        if is_out_of_memory(error):
            raise
        raise FinescaleError(f"{path}: not a checkpoint of tensors and plain values") from error
    return state


def _content(path: Path) -> bytes:
    """What follows the first line of a checkpoint.

    Raises:
        FinescaleError: it is not there, damaged or cut short.
    """
    try:
        with open(path, "rb") as file:
            words = _first_line(file)
            content = file.read()
    except OSError as error:
        raise FinescaleError(f"{path}: cannot be read ({error.strerror})") from error
    if len(words) != 3 or words[0] != _MAGIC:
        raise FinescaleError(f"{path}: not a checkpoint")
    if hashlib.sha256(content).hexdigest() != words[1]:
        reason = f"{len(content)} of {words[2]} bytes" if str(len(content)) != words[2] else "its SHA-256 differs"
        raise FinescaleError(f"{path}: damaged checkpoint ({reason})")
    return content


def _first_line(file: BinaryIO) -> list[str]:
    """Its words, see above; whatever they are where the file is something else."""
    return file.readline(200).decode("ascii", "replace").split()


def _is_whole(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            words = _first_line(file)
            return words[:1] == [_MAGIC] and words[1:2] == [hashlib.file_digest(file, "sha256").hexdigest()]
    except OSError:
        return False


def read_last(folder: Path) -> dict[str, Any] | None:
    """The last whole checkpoint of a run, with a warning if a later one is damaged; None where there is none.

    Raises:
        FinescaleError: there are checkpoints, and all of them are damaged.
    """
    problems = []
    for path in (folder / LAST, folder / PREVIOUS):
        if not path.exists():
            continue
        try:
            state = read(path)
        except FinescaleError as error:
            problems.append(str(error))
            continue
        for problem in problems:
            warnings.warn(f"{problem}; going on from {path.name}", FinescaleWarning, stacklevel=2)
        return state
    if problems:
        raise FinescaleError(f"{'; '.join(problems)}; there is no whole one to go on from")
    return None


def present(folder: Path) -> bool:
    """Whether a folder holds a run."""
    return any((folder / name).exists() for name in (LAST, PREVIOUS))


def _also(source: Path, target: Path) -> None:
    """Gives a file a second name, replacing what has it; a copy where the file system has no links."""
    part = target.with_name(f".{target.name}.part")
    part.unlink(missing_ok=True)
    try:
        os.link(source, part)
    except OSError:
        shutil.copyfile(source, part)
    replace(part, target)


def _flush_folder(folder: Path) -> None:
    """Makes renamed names last through a loss of power, where the system can; some file systems of networks cannot."""
    if os.name == "posix":
        with suppress(OSError):
            handle = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
