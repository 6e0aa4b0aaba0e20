"""Pictures larger than memory, from top to bottom: read in strips, and written in strips as PNG or TIFF."""

import json
import os
import secrets
import sys
from contextlib import ExitStack, suppress
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
import pyvips

from finescale import __version__
from finescale.atomic import check_free, locked, place, publish, writing
from finescale.errors import FinescaleError, ShortOfMemoryError, TakenError, UsageError
from finescale.images import exif as exif_blocks
from finescale.images import forks
from finescale.images.encoders import ENCODERS, Block, Encoder, Layout
from finescale.images.files import MAX_PIXELS, Opened, format_of, tell_colours, warn
from finescale.images.picture import Samples, fitting

_WINDOWS = sys.platform == "win32"


class StripReader:
    """A picture that is read once, from top to bottom, as `files.read` would give it.

    PNG (not interlaced), JPEG (not progressive) and TIFF need memory for the strips only. What must be turned upright
    is unpacked to a temporary file on disk first; other formats are held in memory, of BMP, PPM and HEIC up to
    `files.MAX_PIXELS`.

    Args:
        path: the file.

    Attributes:
        layout: size, channels, bits, and metadata of the picture, upright.
        format: "png", "jpeg", "tiff", ...

    Raises:
        FinescaleError: it cannot be read, is damaged (also later, from `rows`), or is no picture of a known format.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        opened = Opened(path)
        if opened.orientation > 1:
            opened = Opened(path, access="random")
        opened.check(None if opened.decoder is None else MAX_PIXELS)  # decoders hold all of it
        self._opened = opened
        self.format = opened.format
        self._region: Any = None
        if opened.decoder is not None:
            picture = opened.picture()
            self._top, self._kept = 0, picture.samples
            self.layout = Layout.of(picture)
        else:
            image = opened.image if opened.orientation == 1 else opened.image.autorot()
            self._region = pyvips.Region.new(image)
            width, height, _, channels, bits, _ = opened.info
            self._top, self._kept = 0, np.empty((0, width, channels), np.uint8 if bits == 8 else np.uint16)
            self.layout = Layout(width, height, channels, bits, **opened.metadata())

    def rows(self, start: int, stop: int) -> Samples:
        """Rows [start, stop) as (stop - start, W, C) uint8 or uint16; no later call may start further up.

        Raises:
            ValueError: there are no such rows, or they were let go.
            FinescaleError: the picture is damaged there.
        """
        if not self._top <= start < stop <= self.layout.height:
            raise ValueError(
                f"rows {start} to {stop} of {self.layout.height}, after those above {self._top} were let go"
            )
        self._kept, self._top = self._kept[start - self._top :], start
        first = start + len(self._kept)
        if first < stop:
            self._kept = np.concatenate([self._kept, self._fetch(first, stop)])
        return self._kept[: stop - start]

    def _fetch(self, start: int, stop: int) -> Samples:
        image, shape = self._opened.image, (stop - start, self.layout.width, -1)
        forks.ready()
        with self._opened.decoding():
            data = self._region.fetch(0, start, self.layout.width, stop - start)
        return self._opened.samples(np.frombuffer(data, forks.TYPES[image.format]).reshape(shape))


class StripWriter:
    """A PNG or TIFF file written from top to bottom, which appears when the `with` block ends well.

    >>> with StripWriter("big.tif", layout) as out:  # doctest: +SKIP
    ...     for y in range(out.rows, layout.height, 192):
    ...         out.write(y, strip(y, y + 192))

    Without `resume`, a failed block leaves nothing behind. With it, the finished rows stay next to the target (hidden,
    `.NAME.part` and `.NAME.part.journal`), also when the process is killed; otherwise a warning tells of them. The next
    writer of the same target with the same layout and key starts at `rows`. Nothing stays where there is not one
    finished row, or where the block ends with a FinescaleError that is not of the writing: a damaged input stays
    damaged.

    Args:
        path: the file; its folder must exist.
        layout: what will be written.
        format: "png" or "tiff"; by default the path's extension decides.
        overwrite: replace an existing file.
        resume: what else the pixels depend on (the input's hash, the network, ...).

    Raises:
        UsageError: the format cannot be written by strips.
        TakenError: the file exists, or another process is writing it.
        FinescaleError: it cannot be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        layout: Layout,
        *,
        format: str | None = None,
        overwrite: bool = False,
        resume: str | None = None,
    ) -> None:
        kind = format_of(path, format)
        if kind not in ENCODERS:
            raise UsageError(f"{os.fspath(path)}: {kind.upper()} cannot be written by strips; PNG and TIFF can")
        self.path, self.kind, self.overwrite = Path(path), kind, overwrite
        exif = exif_blocks.upright(layout.exif, (layout.width, layout.height)) if layout.exif else None
        self.layout = layout = replace(layout, icc=fitting(layout.icc, layout.channels), exif=exif)
        whole = place(self.path, overwrite)
        own, code = whole.name, os.fsencode(whole.name)
        if len(code) > 200:  # with what is put around it, a name has to stay within 255 bytes
            own = f"{own[:40]}.{sha256(code).hexdigest()[:8]}"
        name = f".{own}.part" if resume is not None else f".{own}.{secrets.token_hex(4)}.part"
        self._part = whole.with_name(name)
        self._journal_path = whole.with_name(f"{name}.journal")
        described = {key: value.hex() if isinstance(value, bytes) else value for key, value in asdict(layout).items()}
        text = json.dumps([__version__, kind, resume, described], sort_keys=True)
        self._key = None if resume is None else sha256(text.encode()).hexdigest()
        self._full = False  # the system refused to write
        self._files = ExitStack()
        self._file: BinaryIO
        self._journal: BinaryIO
        self._encoder: Encoder

    def __enter__(self) -> Self:
        check_free(self.path, self.overwrite)
        if self.kind != "png":
            tell_colours(self.layout, str(self.path))
        with writing(self.path):
            try:
                self._open()
            except BaseException:
                with suppress(OSError):
                    self._files.close()
                if self._key is None:
                    self._part.unlink(missing_ok=True)
                raise
        self._rows = self.rows
        return self

    def _open(self) -> None:
        self._file = self._opened()
        self._encoder = ENCODERS[self.kind](self._file, self.layout)
        if self._key is None:
            self._encoder.begin()
            return
        try:
            check_free(self.path, self.overwrite)  # it may have been finished meanwhile
        except FinescaleError:
            if not os.fstat(self._file.fileno()).st_size:
                with suppress(OSError):
                    self._part.unlink()
            raise
        self._journal = self._files.enter_context(open(self._journal_path, "a+b"))  # noqa: SIM115
        self._journal.seek(0)
        lines = self._journal.read().split(b"\n")[:-1]  # what follows the last line break is incomplete
        known = lines[:1] == [self._key.encode()]
        if known and self._encoder.resume([Block(**json.loads(line)) for line in lines[1:]]):
            self._journal.truncate(sum(len(line) + 1 for line in lines))
        else:
            self._journal.truncate(0)
            self._file.truncate(0)
            self._encoder.begin()
            self._journal.write(f"{self._key}\n".encode())

    def _opened(self) -> BinaryIO:
        """The unfinished file, nothing in it changed; with `resume` locked for this process.

        Raises:
            TakenError: another process writes it.
        """
        while True:
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
            try:
                descriptor = os.open(self._part, flags, 0o666)
            except PermissionError:
                if _WINDOWS or self._key is None:
                    raise
                return self._unlocked()  # it is somebody else's; or the folder is, and this is refused as well
            file = self._files.enter_context(open(descriptor, "r+b"))  # noqa: SIM115
            if self._key is None:
                return file
            free = locked(file.fileno())
            if free is None:
                self._files.close()
                with suppress(FileNotFoundError):  # the other one has taken it away
                    if not self._part.stat().st_size:
                        self._part.unlink()
                return self._unlocked()
            if not free:
                raise TakenError(f"{self.path}: another process is writing it")
            with suppress(FileNotFoundError):
                if os.path.samestat(found := os.fstat(file.fileno()), self._part.stat()):
                    if found.st_nlink < 2:
                        return file
                    if _WINDOWS:  # which takes away no file that is open
                        self._files.close()
                    self._part.unlink()  # a kill came between its two names: it is a finished result
            self._files.close()  # who had it has given it its name meanwhile, or taken it away

    def _unlocked(self) -> BinaryIO:
        """A file of a name of its own, with which nobody goes on, where another process might be writing the usual."""
        self._key = None
        self._part = self._part.with_name(f"{self._part.stem}.{secrets.token_hex(4)}.part")
        self._journal_path = self._part.with_name(f"{self._part.name}.journal")
        return self._files.enter_context(open(self._part, "x+b"))

    @property
    def rows(self) -> int:
        """Rows, from the top, that need not be written again."""
        return self._encoder.rows

    def write(self, y: int, rows: Samples) -> None:
        """Takes rows (n, W, C) that stand at row `y`; rows that were taken before are skipped.

        Raises:
            ValueError: rows between are missing, or these have another shape or type than the layout's.
            FinescaleError: they cannot be written.
        """
        if y > self._rows:
            raise ValueError(f"rows from {y} on, but those from {self._rows} on are missing")
        shape = (self.layout.width, self.layout.channels)
        if rows.shape[1:] != shape or 8 * rows.dtype.itemsize != self.layout.bits:
            raise ValueError(f"rows are (n, {shape[0]}, {shape[1]}) of {self.layout.bits} bits, not {rows.shape}")
        rows = rows[self._rows - y :]
        if len(rows):
            self._rows += len(rows)
            known = len(self._encoder.blocks)
            with writing(self.path):
                try:
                    self._encoder.write(rows)
                    if self._key and len(self._encoder.blocks) > known:
                        self._record(self._encoder.blocks[known:])
                except OSError:
                    self._full = True
                    raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # a damaged input stays damaged
        hopeless = isinstance(error, FinescaleError) and not self._full and not isinstance(error, ShortOfMemoryError)
        keep = self._key is not None and self.rows > 0 and not hopeless
        try:
            if kind is None:
                if self._rows != self.layout.height:
                    raise ValueError(f"{self._rows} of {self.layout.height} rows were written")
                with writing(self.path):
                    self._encoder.finish()
                    self._file.flush()
                    os.fsync(self._file.fileno())
                    if _WINDOWS:  # which renames no file that is open
                        self._file.close()
                    publish(self._part, self.path, self.overwrite)
                keep = False
        except TakenError:
            keep = False
            raise
        finally:
            if _WINDOWS:
                self._close()
            if not keep:  # while it is locked: nobody else may go on with a file that has its name already
                self._journal_path.unlink(missing_ok=True)
                self._part.unlink(missing_ok=True)
            self._close()
            if keep:
                warn(f"{self.path}: its finished rows are kept in {self._part}; the same command goes on from there")

    def _close(self) -> None:
        with suppress(OSError):  # what has to be on disk was flushed before
            self._files.close()

    def _record(self, blocks: list[Block]) -> None:
        """Notes blocks in the journal, after their bytes are safe on disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._journal.writelines(json.dumps(asdict(block)).encode() + b"\n" for block in blocks)
        self._journal.flush()
        os.fsync(self._journal.fileno())
