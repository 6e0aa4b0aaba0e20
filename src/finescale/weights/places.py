"""The folders and names of weight files; needs neither torch nor the catalogue."""

import json
import os
import warnings
from functools import cache
from pathlib import Path

from finescale.atomic import new_file, sha256
from finescale.cache import cache_folder
from finescale.errors import FinescaleError, FinescaleWarning, system_reason

INDEX = "index.json"


def candidates() -> list[Path]:
    """Folders in which weights may lie, in the order in which they are searched, whether they exist or not."""
    here = Path(__file__).resolve().parent
    named = os.environ.get("FINESCALE_WEIGHTS")
    root = here.parents[2]
    checkout = [root / "weights"] if (root / "pyproject.toml").is_file() else []  # else it is somebody else's folder
    return [*([Path(named)] if named else []), here / "files", *checkout, cache_folder("weights")]


def folders() -> list[Path]:
    """Folders that are searched for weights, first match wins; those that exist."""
    named = os.environ.get("FINESCALE_WEIGHTS")
    there = [folder for folder in candidates() if os.path.isdir(folder)]  # noqa: PTH112 (as a home may not be entered)
    if named and Path(named) not in there:
        _warn_once(named)
    return there


@cache
def _warn_once(named: str) -> None:
    reason = "$FINESCALE_WEIGHTS names this folder, which cannot be searched"
    warnings.warn(f"{named}: {reason}", FinescaleWarning, stacklevel=3)


def file_name(name: str, scale: int) -> str:
    """The name of the weight file of a network of the catalogue."""
    return f"{name}-x{scale}.safetensors"


def verify(path: Path) -> bool:
    """Refuses a file whose SHA-256 is not the one its folder's index gives; False: the index does not list the file.

    Raises:
        FinescaleError: the file is not the one that was published.
    """
    index = path.parent / INDEX
    if not index.is_file():
        return False
    try:
        entry = json.loads(index.read_bytes()).get(path.name)
        listed = str(entry["sha256"]).lower() if entry else None
    except OSError as error:
        raise FinescaleError(f"{index}: cannot be read ({system_reason(error)})") from error
    except (ValueError, AttributeError, LookupError, TypeError) as error:  # no JSON, or JSON of something else
        raise FinescaleError(f"{index}: damaged index of weights ({error})") from error
    if listed is not None and listed != sha256(path):
        raise FinescaleError(
            f"{path}: its SHA-256 is not the one listed in {INDEX}; the file is damaged or was changed"
        )
    return listed is not None


def list_file(path: Path, digest: str) -> None:
    """Adds a file with its SHA-256 to the index of its folder, so that it is held to it from now on.

    Raises:
        FinescaleError: the index is damaged or cannot be written.
    """
    index = path.parent / INDEX
    try:
        listed = dict(json.loads(index.read_bytes()))
    except FileNotFoundError:
        listed = {}
    except (OSError, ValueError, TypeError) as error:
        raise FinescaleError(f"{index}: damaged index of weights ({error})") from error
    with new_file(index, overwrite=True) as file:
        file.write(json.dumps({**listed, path.name: {"sha256": digest}}, indent=1).encode())


def present(name: str, scale: int) -> Path | None:
    """The file of the weights of that exact name, not verified, or None where there is none on this machine."""
    if os.sep in name:  # a path
        return None
    paths = (folder / file_name(name, scale) for folder in folders())
    return next((path for path in paths if os.path.isfile(path)), None)  # noqa: PTH113 (as a name may be too long)


def locate(name: str, scale: int) -> Path | None:
    """As `present`, but verified.

    Raises:
        FinescaleError: the file is not the one that was published.
    """
    path = present(name, scale)
    if path:
        verify(path)
    return path
