"""Public data sets from their homes: resumed, checked, unpacked, and put in place when complete."""

import gzip
import hashlib
import logging
import lzma
import shutil
import tarfile
import tomllib
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from finescale.atomic import replace, writing
from finescale.cache import xdg
from finescale.errors import FinescaleError
from finescale.fetch import Report, alone, fetch
from finescale.images.files import read
from finescale.images.folders import find_pictures


@dataclass(frozen=True)
class Source:
    """A data set and where it is published; all of them are in `sources.toml`.

    Attributes:
        name: of the set, and of its folder.
        about: one line, with the licence.
        address: of an archive (.zip, .tar, .tar.gz).
        inside: the folder of the archive that holds the pictures.
        pictures: how many there should be.
        size: of the archive in bytes, where known.
        sha256: of the archive, where known.
        content: SHA-256 over the sorted SHA-256s of all pictures' RGB pixels, where known: names and file formats
            differ between collections, pixels must not.
    """

    name: str
    about: str
    address: str
    inside: str
    pictures: int
    size: int | None = None
    sha256: str | None = None
    content: str | None = None


def sources() -> Mapping[str, Source]:
    """Every known set by name."""
    text = Path(__file__).with_name("sources.toml").read_text(encoding="utf-8")
    return {name: Source(name=name, **values) for name, values in tomllib.loads(text).items()}


def datasets_folder() -> Path:
    """`$XDG_DATA_HOME/finescale/datasets` (by default under `~/.local/share`), where sets are looked for by name."""
    return xdg("XDG_DATA_HOME", ".local/share") / "finescale" / "datasets"


def get(source: Source, folder: Path, *, progress: Report | None = None) -> Path:
    """Downloads and unpacks a set into `folder`/NAME; one that is there already is left alone.

    Sets that share an archive share its download.

    Args:
        source: the set.
        folder: of all sets.
        progress: is told the bytes that are there.

    Returns:
        The folder of the pictures.

    Raises:
        FinescaleError: no connection, the server refuses, or what came is not what was published. What has arrived is
            kept, and the next call goes on from there, unless it was wrong.
    """
    target = folder / source.name
    if target.is_dir():
        return target
    archive = folder / PurePosixPath(source.address).name
    with writing(target):
        folder.mkdir(parents=True, exist_ok=True)
        with alone(folder / f".{source.name}.lock"):
            if target.is_dir():  # another process has brought it meanwhile
                return target
            fetched = not archive.exists()
            if fetched:
                fetch(source.address, archive, size=source.size, sha256=source.sha256, progress=progress)
            try:
                _unpack(archive, source, target)
            except FinescaleError as error:
                if fetched:
                    archive.unlink()
                raise FinescaleError(f"{source.address if fetched else archive}: {error}") from error
            others = [other for other in sources().values() if other.name != source.name]
            if fetched and all(other.address != source.address for other in others):
                archive.unlink()
            elif archive.exists():
                logging.getLogger("finescale").warning("%s: is kept", archive)
    return target


def remarks(source: Source, place: Path) -> list[str]:
    """What is odd about a set that was unpacked: too few pictures, or other pixels than papers use."""
    found = find_pictures([place])
    said = []
    if len(found) != source.pictures:
        said.append(f"{place}: {len(found)} pictures, though {source.name} has {source.pictures}")
    if source.content and content_hash([path for _, path in found]) != source.content:
        said.append(f"{place}: the pixels are not those of the collection that papers use, so figures may differ")
    return said


def content_hash(pictures: list[Path]) -> str:
    """See `Source.content`."""
    hashes = sorted(hashlib.sha256(read(path).rgb.tobytes()).hexdigest() for path in pictures)
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


# What the two modules raise for damaged, encrypted and unknown contents.
_NO_ARCHIVE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    RuntimeError,
)


def _unpack(archive: Path, source: Source, target: Path) -> None:
    """The pictures of one folder of an archive, put in place when all are there."""
    part = target.with_name(f".{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    inside = PurePosixPath(source.inside)
    count = 0
    try:
        if archive.suffix == ".zip":
            with zipfile.ZipFile(archive) as bundle:
                for entry in bundle.infolist():
                    path = PurePosixPath(entry.filename)
                    if not entry.is_dir() and _wanted(path, inside):
                        with bundle.open(entry) as reader, open(part / path.name, "wb") as writer:
                            shutil.copyfileobj(reader, writer)
                        count += 1
        else:
            with tarfile.open(archive) as bundle:
                for member in bundle:
                    path = PurePosixPath(member.name)
                    content = bundle.extractfile(member) if member.isfile() and _wanted(path, inside) else None
                    if content is not None:
                        with content, open(part / path.name, "wb") as writer:
                            shutil.copyfileobj(content, writer)
                        count += 1
        if not count:
            raise FinescaleError(f"holds no pictures in {source.inside}/")
        replace(part, target)
    except _NO_ARCHIVE as error:
        raise FinescaleError(f"is no readable archive ({error})") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _wanted(path: PurePosixPath, inside: PurePosixPath) -> bool:
    """Whether a member lies in that folder, under a name that leads nowhere else on Windows either."""
    return path.parent == inside and not set(path.name) & set("\\:")
