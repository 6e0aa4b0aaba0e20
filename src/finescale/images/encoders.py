"""PNG and TIFF written row by row in bounded memory, at 8 and 16 bits, with profile, EXIF, XMP and resolution.

Rows are compressed in independent blocks, on all cores. Nothing before a block depends on what follows, so the bytes
in the file and the records of the blocks in it are all that is needed to go on in another process.
"""

import io
import os
import struct
import zlib
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import BinaryIO

import numpy as np
from isal import isal_zlib

from finescale.images import exif as exif_blocks
from finescale.images import xmp as xmp_blocks
from finescale.images.colours import chunk
from finescale.images.picture import Picture, Samples

_LEVEL = 1  # ISA-L's: ten times as fast as zlib's 4, files 7 % larger
_BLOCK = 1 << 18  # bytes of samples compressed at a time: they stay in the cache while they are filtered
_BLOCK_ROWS = 16  # of a PNG at least: the first row of a block is compressed without the one above it
_TILE = 256
_TILED_FROM = 1 << 26  # pixels from which a TIFF is tiled, so that viewers can show a part without the rest


@dataclass(frozen=True)
class Layout:
    """What a file is to hold: size, channels (1 grey, 2 grey and alpha, 3 RGB, 4 RGBA), bits (8, 16), metadata.

    For the metadata see `finescale.images.picture.Picture`.
    """

    width: int
    height: int
    channels: int
    bits: int = 8
    icc: bytes | None = None
    exif: bytes | None = None
    resolution: tuple[float, float] | None = None
    colours: bytes | None = None
    xmp: bytes | None = None
    texts: bytes | None = None

    @classmethod
    def of(cls, picture: Picture) -> "Layout":
        """That of a picture."""
        size = (*picture.size, picture.pixels.shape[2] + (picture.alpha is not None), picture.bits)
        icc, exif, resolution = picture.icc, picture.exif, picture.resolution
        return cls(*size, icc, exif, resolution, picture.colours, picture.xmp, picture.texts)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of samples."""
        return self.width * self.channels * self.bits // 8


@dataclass
class Block:
    """Compressed rows: how many, in which parts, and the Adler-32 of the stream up to their end (PNG only)."""

    rows: int
    sizes: list[int]
    adler: int = 1


class Encoder(ABC):
    """Writes one picture: `begin` (or `resume`), `write` every row from the top, `finish`.

    Args:
        file: opened for writing bytes, at its start.
        layout: what is to be written.
    """

    block_rows: int

    def __init__(self, file: BinaryIO, layout: Layout) -> None:
        self.file, self.layout = file, layout
        self.blocks: list[Block] = []
        self._waiting: list[Samples] = []

    @property
    def rows(self) -> int:
        """Rows that the file holds."""
        return sum(block.rows for block in self.blocks)

    def begin(self) -> None:
        """Writes what stands before the samples."""
        self.file.write(self._head())

    def resume(self, blocks: list[Block]) -> bool:
        """Goes on behind these blocks in a file that another encoder of the same layout began.

        False, and nothing is changed, where the file is too short to hold them.
        """
        size = len(self._head()) + sum(sum(block.sizes) for block in blocks)
        if self.file.seek(0, os.SEEK_END) < size:
            return False
        self.blocks = blocks
        self.file.truncate(size)
        self.file.seek(size)
        return True

    def write(self, rows: Samples) -> None:
        """Takes the next rows (n, W, C); what does not fill a block waits for more."""
        self._waiting.append(rows)
        if sum(map(len, self._waiting)) >= self.block_rows:
            self._encode(last=False)
        else:
            self._waiting[-1] = rows.copy()  # the caller may use its memory again

    def finish(self) -> None:
        """Writes the rows that wait and what stands after the samples."""
        self._encode(last=True)
        self._tail()

    def _encode(self, last: bool) -> None:
        rows = self._waiting[0] if len(self._waiting) == 1 else np.concatenate(self._waiting or [np.empty(0)])
        whole = len(rows) if last else len(rows) - len(rows) % self.block_rows
        pieces = (rows[y : min(y + self.block_rows, whole)] for y in range(0, whole, self.block_rows))
        workers = min(os.cpu_count() or 1, 8)
        with ThreadPoolExecutor(workers) as pool:
            while group := list(islice(pieces, 2 * workers)):
                for piece, parts in zip(group, pool.map(self._compress, group), strict=True):
                    self.blocks.append(self._append(len(piece), parts))
        self._waiting = [rows[whole:].copy()] if whole < len(rows) else []

    @abstractmethod
    def _head(self) -> bytes: ...

    @abstractmethod
    def _compress(self, rows: Samples) -> list[bytes]:
        """The block's parts; runs in several threads."""

    @abstractmethod
    def _append(self, rows: int, parts: list[bytes]) -> Block: ...

    @abstractmethod
    def _tail(self) -> None: ...


class PngEncoder(Encoder):
    """PNG (ISO/IEC 15948), every row filtered by the rule of least absolute sum."""

    def __init__(self, file: BinaryIO, layout: Layout) -> None:
        super().__init__(file, layout)
        self.block_rows = max(_BLOCK_ROWS, _BLOCK // layout.row_bytes)

    def _head(self) -> bytes:
        layout = self.layout
        colour = {1: 0, 2: 4, 3: 2, 4: 6}[layout.channels]
        head = b"\x89PNG\r\n\x1a\n"
        head += chunk(b"IHDR", struct.pack(">IIBBBBB", layout.width, layout.height, layout.bits, colour, 0, 0, 0))
        if layout.icc:
            head += chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(layout.icc))
        else:
            head += layout.colours or b""
        if layout.resolution and max(layout.resolution) < 50_000_000:  # as much as fits in
            head += chunk(b"pHYs", struct.pack(">IIB", *(round(dpi / 0.0254) for dpi in layout.resolution), 1))
        if layout.exif:
            head += chunk(b"eXIf", layout.exif.removeprefix(exif_blocks.HEADER))
        if layout.xmp:
            head += xmp_blocks.in_png(layout.xmp)
        head += layout.texts or b""
        return head + chunk(b"IDAT", b"\x78\x9c")  # the zlib header; the blocks are raw deflate

    def _compress(self, rows: Samples) -> list[bytes]:
        filtered = _filtered(rows)
        deflate = isal_zlib.compressobj(_LEVEL, wbits=-15)
        return [deflate.compress(filtered) + deflate.flush(isal_zlib.Z_SYNC_FLUSH), filtered]

    def _append(self, rows: int, parts: list[bytes]) -> Block:
        data, filtered = parts
        whole = chunk(b"IDAT", data)
        self.file.write(whole)
        return Block(rows, [len(whole)], zlib.adler32(filtered, self.blocks[-1].adler if self.blocks else 1))

    def _tail(self) -> None:
        end = b"\x03\0" + struct.pack(">I", self.blocks[-1].adler)  # an empty last block, and the check sum
        self.file.write(chunk(b"IDAT", end) + chunk(b"IEND", b""))


def _in_order(samples: Samples, order: str) -> bytes:
    """The bytes of samples in a byte order, "<" or ">"."""
    return samples.astype(f"{order}u{samples.dtype.itemsize}").tobytes()


def _filtered(rows: Samples) -> bytes:
    """Rows (n, W, C) as PNG filters them; the first uses no row above, so that it stands alone.

    All in bytes, without wider integers: three times as fast.
    """
    step = rows.shape[2] * rows.dtype.itemsize
    raw = np.frombuffer(_in_order(rows, ">"), np.uint8).reshape(len(rows), -1)
    padded = np.zeros((len(rows) + 1, raw.shape[1] + step), np.uint8)
    padded[1:, step:] = raw
    left, up, corner = padded[1:, :-step], padded[:-1, step:], padded[:-1, :-step]
    candidates = np.empty((5, *raw.shape), np.uint8)
    candidates[0] = raw
    np.subtract(raw, left, out=candidates[1])
    np.subtract(raw, up, out=candidates[2])
    np.subtract(raw, (left & up) + ((left ^ up) >> 1), out=candidates[3])  # the mean, rounded down
    np.subtract(raw, _paeth(left, up, corner), out=candidates[4])
    cost = np.minimum(candidates, -candidates).sum(2, dtype=np.int64)
    cost[2:, 0] = np.iinfo(np.int64).max
    best = cost.argmin(0)
    return np.concatenate([best[:, None].astype(np.uint8), candidates[best, np.arange(len(rows))]], 1).tobytes()


def _paeth(left: Samples, up: Samples, corner: Samples) -> Samples:
    """The neighbour nearest to left + up - corner; of equally near ones the first of left, up, corner."""
    to_left, to_up = _apart(up, corner), _apart(left, corner)
    # left + up - 2 corner is farther than both where left and up lie on one side of the corner
    between = (up > corner) != (left > corner)
    nearest = np.where(to_left <= to_up, left, up)
    return np.where(between & (_apart(to_left, to_up) < np.minimum(to_left, to_up)), corner, nearest)


def _apart(a: Samples, b: Samples) -> Samples:
    return np.maximum(a, b) - np.minimum(a, b)


class TiffEncoder(Encoder):
    """TIFF 6.0 with deflate and horizontal prediction; tiled if large, BigTIFF if it could reach 4 GiB."""

    def __init__(self, file: BinaryIO, layout: Layout) -> None:
        super().__init__(file, layout)
        self.big = layout.row_bytes * layout.height > (1 << 32) - (1 << 26)
        self.tiled = layout.width * layout.height >= _TILED_FROM
        self.block_rows = _TILE if self.tiled else min(max(1, _BLOCK // layout.row_bytes), layout.height)
        self.tags = exif_blocks.Tags()
        if layout.exif:  # of `upright`, so its main directory can be read
            self.tags = exif_blocks.read_tags(io.BytesIO(layout.exif.removeprefix(exif_blocks.HEADER)))

    def _head(self) -> bytes:
        mark = b"II" if self.tags.order == "<" else b"MM"
        if self.big:
            return mark + struct.pack(self.tags.order + "HHHQ", 43, 8, 0, 0)
        return mark + struct.pack(self.tags.order + "HI", 42, 0)

    def _compress(self, rows: Samples) -> list[bytes]:
        step = _TILE if self.tiled else rows.shape[1]
        parts = []
        for x in range(0, rows.shape[1], step):
            part = rows[:, x : x + step]
            if self.tiled:
                part = np.pad(part, ((0, _TILE - len(part)), (0, _TILE - part.shape[1]), (0, 0)), mode="edge")
            steps = part.copy()
            steps[:, 1:] -= part[:, :-1]
            parts.append(isal_zlib.compress(_in_order(steps, self.tags.order), _LEVEL))
        return parts

    def _append(self, rows: int, parts: list[bytes]) -> Block:
        self.file.writelines(parts)
        return Block(rows, [len(part) for part in parts])

    def _tail(self) -> None:
        layout, tags = self.layout, self.tags
        sizes = [size for block in self.blocks for size in block.sizes]
        start = len(self._head())
        offsets = [start + int(x) for x in np.cumsum([0, *sizes[:-1]], dtype=np.int64)]
        pack = _Packer(tags.order, self.big)
        tags.main |= {
            256: pack.long(layout.width),
            257: pack.long(layout.height),
            258: pack.short(*[layout.bits] * layout.channels),
            259: pack.short(8),  # deflate
            262: pack.short(1 if layout.channels < 3 else 2),
            277: pack.short(layout.channels),
            284: pack.short(1),
            317: pack.short(2),
        }
        if self.tiled:
            tags.main |= {322: pack.long(_TILE), 323: pack.long(_TILE), 324: pack.far(offsets), 325: pack.far(sizes)}
        else:
            tags.main |= {278: pack.long(self.block_rows), 273: pack.far(offsets), 279: pack.far(sizes)}
        if layout.channels % 2 == 0:
            tags.main[338] = pack.short(2)  # alpha, not premultiplied
        if layout.resolution:
            tags.main |= {282 + i: pack.rational(dpi) for i, dpi in enumerate(layout.resolution)}
            tags.main[296] = pack.short(2)
        if layout.icc:
            tags.main[34675] = (7, len(layout.icc), layout.icc)
        if layout.xmp:
            tags.main[700] = (1, len(layout.xmp), layout.xmp)
        place = self.file.seek(0, os.SEEK_END)
        if place % 2:
            place += self.file.write(b"\0")
        self.file.write(exif_blocks.directories(tags, place, self.big))
        self.file.seek(8 if self.big else 4)
        self.file.write(struct.pack(tags.order + ("Q" if self.big else "I"), place))


@dataclass(frozen=True)
class _Packer:
    """Values of TIFF tags in a byte order."""

    order: str
    big: bool

    def short(self, *values: int) -> exif_blocks.Entry:
        return 3, len(values), struct.pack(f"{self.order}{len(values)}H", *values)

    def long(self, value: int) -> exif_blocks.Entry:
        return 4, 1, struct.pack(self.order + "I", value)

    def far(self, values: list[int]) -> exif_blocks.Entry:
        kind, code = (16, "Q") if self.big else (4, "I")
        return kind, len(values), struct.pack(f"{self.order}{len(values)}{code}", *values)

    def rational(self, value: float) -> exif_blocks.Entry:
        parts = 10000 if value < 400_000 else 1
        return 5, 1, struct.pack(self.order + "II", min(round(value * parts), (1 << 32) - 1), parts)


ENCODERS: dict[str, type[Encoder]] = {"png": PngEncoder, "tiff": TiffEncoder}
