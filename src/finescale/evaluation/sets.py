"""Benchmark sets by name, and their pictures as the protocol wants them."""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from finescale.data.download import datasets_folder, sources
from finescale.errors import FinescaleError, UsageError, nearest
from finescale.evaluation.metrics import Pixels
from finescale.images.files import READABLE, read, warn

# Where collections keep the originals inside a set's folder.
_INNER = ("HR", "original", "GTmod12", "GT", "image_SRF_4")
# Those that hold originals (img_001_SRF_4_HR.png) beside what was shrunk, and enlarged again by others.
_MIXED = re.compile("image_SRF_[0-9]")
# Parts of a set that are measured where not all of it can be: pictures 003, 008, ... 098.
_PARTS = {"urban20": ("urban100", slice(2, None, 5))}
# Other names of the same set.
_ALIASES = {"bsd100": "b100", "div2k-valid": "div2k-valid-hr", "div2k-val": "div2k-valid-hr"}
# What a name asks for where no folder is called so; one that is may hold anything, such as the pictures to train on.
_MEANT = {"div2k": "div2k-valid-hr"}

# How many pictures the sets have that others' figures are of, those in `published.toml`.
PUBLISHED = {"Set5": 5, "Set14": 14, "B100": 100, "Urban100": 100}


@dataclass(frozen=True)
class PictureSet:
    """A named list of high-resolution pictures, in natural order of their names."""

    name: str
    pictures: tuple[Path, ...]


def pictures(folder: Path) -> list[Path]:
    """The picture files directly in a folder, in natural order (2 before 10); hidden files are left out.

    Raises:
        FinescaleError: the folder cannot be listed.
    """
    try:
        files = [path for path in folder.iterdir() if path.suffix.lower() in READABLE and path.name[0] != "."]
    except OSError as error:
        raise FinescaleError(f"{folder}: cannot be listed ({error.strerror})") from error
    return sorted(files, key=lambda path: [int(p) if p.isdecimal() else p for p in re.split(r"(\d+)", path.name)])


def folders(data: Path | None = None) -> list[Path]:
    """Folders that may hold sets, first match wins: `data`, $FINESCALE_DATA, ./datasets, the user's data folder.

    Raises:
        UsageError: `data` is no folder.
    """
    if data and not data.is_dir():
        raise UsageError(f"{data}: there is no such folder")
    named = os.environ.get("FINESCALE_DATA")
    roots = [data] if data else []
    roots += [Path(named)] if named else []
    roots += [Path("datasets"), datasets_folder()]
    inner = ("", "bench/HR", "bench", "HR", "val", "benchmark", "DIV2K")
    return [folder for root in roots for folder in (root / part for part in inner) if os.path.isdir(folder)]  # noqa: PTH112 (as a home may not be entered)


def find(name: str, data: Path | None = None) -> PictureSet:
    """A set by name, or any folder of pictures by its path; a folder of that path comes first, if it holds pictures.

    Args:
        name: such as "Set5" (capitals, "-" and "_" do not matter), or a path.
        data: a folder that holds sets, searched first.

    Raises:
        UsageError: there is no such set, naming those there are.
        FinescaleError: it holds no pictures.
    """
    here = Path(name)
    if here.is_dir() and (found := _originals(here)):
        full = here.resolve()
        return PictureSet(_known(full.parent.name if full.name in _INNER else full.name), tuple(found))
    wanted = [_plain(name), *([_MEANT[_plain(name)]] if _plain(name) in _MEANT else [])]
    folder = next((folder for one in wanted for folder in _candidates(data, one)), None)
    if folder is None and _plain(name) in _PARTS:
        whole, part = _PARTS[_plain(name)]
        return PictureSet(name.title(), find(whole, data).pictures[part])
    if folder is None and here.is_dir():
        folder = here
    if folder is None:
        known = sorted({folder.name for folder in _candidates(data)})
        published = next((source for source in sources() if _plain(source) in wanted), None)
        brings = f"; `finescale data get {published}` brings it" if published else nearest(name, known)
        there = f"; sets found: {', '.join(known)}" if known else ""
        raise UsageError(
            f"there is no set or folder '{name}'{brings} (--data or FINESCALE_DATA names a folder of sets{there})"
        )
    found = _originals(folder)
    if not found:
        raise FinescaleError(f"{folder}: holds no pictures")
    return PictureSet(_known(folder.name), tuple(found))


def told_apart(one: PictureSet) -> PictureSet:
    """The set; with more or fewer pictures than the published one of its name under another ("Set5-3of5").

    The log "finescale" has a warning then: no published figures stand beside it.
    """
    here, wanted = len(one.pictures), PUBLISHED.get(one.name)
    if wanted in (None, here):
        return one
    name = f"{one.name}-{here}of{wanted}"
    warn(
        f"{one.name}: published figures are of {wanted} pictures and here are {here}, so it is called {name} and"
        " stands beside none of them"
    )
    return replace(one, name=name)


def _known(name: str) -> str:
    """A folder's name, or the usual one of the set that it names: published figures stand under that."""
    return next((usual for usual in sources() if _plain(usual) == _plain(name)), name)


def _plain(name: str) -> str:
    plain = name.lower().replace("_", "-")
    return _ALIASES.get(plain, plain)


def _candidates(data: Path | None, name: str = "") -> Iterator[Path]:
    """Folders that are sets, those of one name (as `_plain` gives it) or all."""
    for folder in folders(data):
        children: list[Path] = []
        with suppress(OSError):  # a folder that may not be read holds no sets, and is none
            children = sorted(folder.iterdir())
        for child in children:
            with suppress(OSError, FinescaleError):
                if (name and _plain(child.name) != name) or not child.is_dir():
                    continue
                if pictures(child) or any((child / inner).is_dir() for inner in _INNER):
                    yield child


def _originals(folder: Path) -> list[Path]:
    """The pictures of the folder of a set, or of the one inside it that collections keep them in; maybe none."""
    for place in (*(folder / inner for inner in _INNER), folder):
        if place.is_dir() and (found := pictures(place)):
            if _MIXED.fullmatch(place.resolve().name):
                found = [path for path in found if path.stem.upper().endswith("_HR")] or found
            return found
    return []


def read_rgb(path: Path) -> Pixels:
    """Reads a picture as `Picture.rgb`, (H, W, 3) uint8.

    The log "finescale" has a warning where that drops transparency.

    Raises:
        FinescaleError: it cannot be read.
    """
    picture = read(path)
    if picture.alpha is not None and picture.alpha.min() < np.iinfo(picture.alpha.dtype).max:
        warn(f"{path}: its transparency is left out; what it hides is compared too")
    return picture.rgb
