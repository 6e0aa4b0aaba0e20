"""Folders of pictures: what is found in them, and names that keep apart what is made of it."""

import os
import stat
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from finescale.errors import FinescaleError, UsageError, system_reason
from finescale.images.files import HEIC_NAMES, READABLE, warn

# fmt: off
NOT_READ = (HEIC_NAMES.keys() - READABLE.keys()) | {
    ".jxl", ".jp2", ".j2k", ".tga", ".psd", ".exr", ".hdr", ".pcx", ".ico", ".jxr", ".svg", ".pdf", ".cbz", ".cbr",
    ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw",  # camera RAW
}
# fmt: on
"""Extensions of pictures that cannot be read: whoever names a folder that holds some is told that they are left out."""


def below(folder: Path) -> list[Path]:
    """Files named as pictures in a folder and all below it, sorted.

    Hidden files and folders, pipes and devices are left out. Links to folders elsewhere are too, with a warning in the
    log "finescale": they could lead in circles, or to what nobody meant.

    What cannot be opened is among them, so that it fails with its own reason when it is read and is not passed over in
    silence: links to nothing, and subfolders that may not be listed.

    Raises:
        FinescaleError: the folder itself may not be listed.
    """
    closed: list[Path] = []
    linked: list[Path] = []

    def refused(error: OSError) -> None:
        if Path(error.filename) == folder:
            raise FinescaleError(f"{folder}: cannot be listed ({system_reason(error)})") from error
        closed.append(Path(error.filename))

    wanted = [path for path in _walk(folder, refused, linked) if path.suffix.lower() in READABLE]
    if linked:
        more = len(linked) - 1
        which = f"{min(linked)} and {more} more" if more else str(min(linked))
        what = "links to other places; name them" if more else "a link to another place; name it"
        warn(f"{which} left out: {what} to include what lies there")
    # Path's own ask the system in a way that raises inside a folder that may be listed and not entered
    kept = [path for path in wanted if os.path.isfile(path) or not os.path.exists(path)]  # noqa: PTH110, PTH113
    return sorted(kept + closed)


def passed_over(folder: Path) -> list[Path]:
    """Pictures in a folder and all below it that `below` leaves out because of their kind, such as HEIC."""
    return sorted(path for path in _walk(folder) if path.suffix.lower() in NOT_READ)


def find_pictures(folders: Iterable[Path]) -> list[tuple[str, Path]]:
    """Names and paths of all picture files in folders and their subfolders, sorted; a file stands for itself.

    Raises:
        UsageError: there is no such folder, or nothing in it.
        FinescaleError: it may not be listed.
    """
    found: dict[str, Path] = {}
    seen: set[str] = set()  # folders may lie in one another
    for folder in folders:
        if folder.is_file():
            inside = [folder]
        elif folder.is_dir():
            inside = below(folder)
        else:
            raise UsageError(f"{folder}: there is no such folder")
        for path in inside:
            real = os.path.realpath(path)  # `resolve` fails at a link to itself
            if real in seen:
                continue
            seen.add(real)
            name = path.name if path == folder else path.relative_to(folder).as_posix()
            found[name if name not in found else path.as_posix()] = path
    if not found:
        raise UsageError(f"{', '.join(map(str, folders))}: holds no pictures")
    return list(found.items())


def _walk(
    folder: Path, refused: Callable[[OSError], object] | None = None, linked: list[Path] | None = None
) -> Iterator[Path]:
    """Files in a folder and all below it, but for hidden ones and those in hidden folders.

    Args:
        folder: where to look.
        refused: told of folders that may not be listed.
        linked: takes the links to folders that are not entered, but for those that lead to where the walk comes by.
    """
    here = os.path.realpath(folder)
    for inner, folders, names in os.walk(folder, onerror=refused):
        folders[:] = [name for name in folders if not _is_hidden(Path(inner, name))]
        if linked is not None:
            links = (Path(inner, name) for name in folders if Path(inner, name).is_symlink())
            linked += [link for link in links if not Path(os.path.realpath(link)).is_relative_to(here)]
        yield from (path for name in names if not _is_hidden(path := Path(inner, name)))


def _is_hidden(path: Path) -> bool:
    """By a dot before its name, or as Windows and macOS hide their own: recycle bins, AppData, ~/Library."""
    if path.name.startswith("."):
        return True
    if sys.platform != "linux":
        with suppress(OSError):
            found = path.lstat()
            windows, mac = getattr(found, "st_file_attributes", 0), getattr(found, "st_flags", 0)
            return bool(windows & stat.FILE_ATTRIBUTE_HIDDEN or mac & stat.UF_HIDDEN)
    return False


def apart(names: Mapping[Path, Sequence[Path]]) -> dict[Path, Path]:
    """For every picture one of the names that its result may have: the first that leaves no two with one result.

    Names that differ in capitals or in how accents are composed are one for macOS and Windows, and so they are here, on
    every system, unless those of the pictures themselves differ in nothing else.

    Raises:
        UsageError: two have one even by their last names.
    """
    chosen = dict.fromkeys(names, 0)
    while True:
        found = {picture: names[picture][i] for picture, i in chosen.items()}
        count = Counter(found.values())
        alike = Counter(name for name, _ in {(_folded(name), _folded(picture)) for picture, name in found.items()})
        meeting = [picture for picture, name in found.items() if count[name] > 1 or alike[_folded(name)] > 1]
        others = [picture for picture in meeting if chosen[picture] + 1 < len(names[picture])]
        if not others:
            for name in (found[picture] for picture in meeting if count[found[picture]] > 1):
                one, two = [picture for picture in meeting if found[picture] == name][:2]
                raise UsageError(f"{two} and {one} would both become {name}")
            return found
        for picture in others:
            chosen[picture] += 1


def _folded(path: Path) -> str:
    return unicodedata.normalize("NFC", str(path)).casefold()
