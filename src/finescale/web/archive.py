"""Several files as one ZIP that is made while it is sent: none of them is held in memory."""

import io
from collections.abc import Generator, Sequence
from pathlib import Path, PurePath
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

PIECE = 1 << 18  # bytes


class _Sent(io.RawIOBase):
    """What was written since it was last taken."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self._pieces.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        """The bytes."""
        taken = b"".join(self._pieces)
        self._pieces.clear()
        return taken


def archive(files: Sequence[tuple[str, Path]]) -> Generator[bytes]:
    """The ZIP of (name, path) each, in pieces; where names are the same, the later ones get a number.

    Pictures hardly become smaller, so nothing is compressed. They are called so all the same: programs that read a ZIP
    from its beginning know the end of a file in no other case.

    Raises:
        OSError: a file is no longer there; what was given so far is no ZIP.
    """
    sent, taken = _Sent(), set[str]()
    with ZipFile(sent, "w") as made:
        for name, path in files:
            entry = ZipInfo.from_file(path, _free(name, taken))
            entry.compress_type, entry.external_attr = ZIP_DEFLATED, 0o100644 << 16
            entry._compresslevel = 0  # type: ignore[attr-defined]  # `compress_level` from Python 3.13 on
            with open(path, "rb") as file, made.open(entry, "w", force_zip64=entry.file_size >= 1 << 31) as inside:
                while piece := file.read(PIECE):
                    inside.write(piece)
                    yield sent.take()
    yield sent.take()


def _free(name: str, taken: set[str]) -> str:
    """The name, or with a number where it is taken; also by one that differs in upper and lower case only."""
    path, number, free = PurePath(name), 1, name
    while free.casefold() in taken:
        number += 1
        free = f"{path.stem} ({number}){path.suffix}"
    taken.add(free.casefold())
    return free
