"""The errors a person is meant to read: each message is one sentence that names the thing and the reason."""

import errno
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any


class FinescaleError(Exception):
    """Some work failed (exit code 1): a file that cannot be read, weights that cannot be found."""

    exit_code = 1


class UsageError(FinescaleError, ValueError):
    """The request itself makes no sense (exit code 2): an unknown name, an impossible scale."""

    exit_code = 2


class TakenError(FinescaleError):
    """A file that was to be written exists already, or another process is writing it."""


class TooLargeError(FinescaleError):
    """A picture has more pixels than were allowed; its header told, and nothing was decoded."""


class ShortOfMemoryError(FinescaleError):
    """Memory did not suffice; the same work may succeed another time."""


class FinescaleWarning(UserWarning):
    """Something a person should know although the work goes on."""


def install(extra: str) -> str:
    """The command that brings an extra, in quotes that every shell takes (cmd.exe hands single ones on to pip)."""
    return f'pip install "finescale[{extra}]"'


def missing(package: str, needs: str, extra: str, error: Exception) -> "FinescaleError":
    """What an import that failed means: a package that is not installed, or one that is and does not work.

    Args:
        package: as it is imported.
        needs: what needs it, as the beginning of a sentence.
        extra: that brings it.
        error: of the import.

    Returns:
        UsageError: it is not installed.
        FinescaleError: it is installed and cannot be imported.
    """
    from importlib.util import find_spec

    if find_spec(package) is None:
        return UsageError(f"{needs}: {install(extra)}")
    return FinescaleError(f"{needs}, which is installed and cannot be imported ({error})")


def nearest(name: object, known: Iterable[object]) -> str:
    """A hint such as ``; did you mean 'rcan'?`` for a misspelt `name`, or an empty string."""
    import difflib

    by_lower = {str(k).lower(): str(k) for k in known}
    match = difflib.get_close_matches(str(name).lower(), by_lower, n=1)
    return f"; did you mean '{by_lower[match[0]]}'?" if match else ""


def check_known(what: str, name: object, known: Collection[object]) -> None:
    """Refuses a name that is not among those that are known.

    Raises:
        UsageError: it is not, naming the nearest one.
    """
    if name not in known:
        raise UsageError(f"there is no {what} '{name}'{nearest(name, known)}")


def misfit(error: RuntimeError) -> str:
    """The first thing that `load_state_dict` finds wrong, as part of a sentence."""
    _, _, found = str(error).partition("\n")  # the first line names the class
    return (found or str(error)).strip().partition("\n")[0][:160]


def system_reason(error: OSError) -> str:
    """What the operating system said, as part of a sentence."""
    return (error.strerror or str(error)).lower()


# the last two are cuBLAS's and cuDNN's: CUBLAS_STATUS_ALLOC_FAILED, ..._DEVICE_ALLOCATION_FAILED
_MEMORY_WORDS = (
    *("out of memory", "can't alloc", "not enough memory", "bad_alloc", "failed to allocate", "insufficient memory"),
    *("storage size calculation overflowed", "bad allocation", "cannot allocate memory"),
    *("alloc_failed", "allocation_failed"),
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out (each library has its own words for it)."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(word in text for word in _MEMORY_WORDS)


def is_disk_full(error: BaseException) -> bool:
    """Whether an error means that the disk, or what a person may use of it, is full."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def picture_error(picture: object, error: BaseException) -> FinescaleError:
    """What went wrong with one of many pictures, as one sentence that names it.

    Raises:
        BaseException: `error` itself, if it is nothing that a person can be told.
    """
    if isinstance(error, FinescaleError):
        return error
    if isinstance(error, OSError):
        return FinescaleError(f"{picture}: {system_reason(error)}")
    if is_out_of_memory(error):
        return ShortOfMemoryError(f"{picture}: there is not enough memory for this picture")
    raise error


def explain(finding: Mapping[str, Any], where: Sequence[str | int]) -> str:
    """A finding of pydantic as one sentence that names the key, and of names the nearest."""
    key, kind, given = ".".join(map(str, where)), finding["type"], finding["input"]
    reason = str(finding["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    if kind == "value_error":
        return f"{key}: {reason}" if key and not reason.startswith(f"{key}.") else reason  # names a key within
    if kind == "missing":
        return f"{key}: is missing"
    if kind in ("too_short", "too_long"):  # "Tuple should have at most 2 items after validation, not 3"
        return f"{key}: {reason.partition(' ')[2].replace(' after validation', '')}"
    hint = nearest(given, re.findall("'([^']*)'", reason)) if kind == "literal_error" else ""
    return f"{key}: {reason}, not {given!r}{hint}"
