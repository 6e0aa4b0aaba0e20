"""What a JPEG says of itself, how it was compressed and how many views and scans it holds, and what pixels say."""

import io
import os
import re
import struct
from collections.abc import Iterator
from functools import cache
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from finescale.images.exif import main_directory
from finescale.images.picture import Samples

# quantisation tables for luma and chroma at quality 50 (ITU-T T.81, tables K.1 and K.2), which libjpeg scales
_LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)

_SEVERAL, _ENTRIES = b"MPF\0", 0xB002

SCANS = 100
"""Of one picture at most, as in libtiff. Programs write 1 to about 10; a decoder goes through all pixels for each."""
_PARTS = 20_000  # of a file at most, scans and segments: of 64 KiB each they would hold more than a gigabyte
_SEQUENTIAL = (0xC0, 0xC1)
_SCAN, _END = 0xDA, 0xD9
# what may stand before the samples, with its length behind it: tables, the frame, segments of programs, comments
_BEFORE = {*_SEQUENTIAL, 0xC4, 0xDB, 0xDD, *range(0xE0, 0xF0), 0xFE}
# as libjpeg looks for them, whatever lies between: those that it gives a length, and the end
_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd9-\xdf\xe0-\xef\xfe]")

STRONG = 92  # below this quality the network for JPEGs is nearer to the original, see docs/results/jpeg.md
TRACED = 0.45  # how sharply coefficients stand at multiples of their steps; in clean photographs up to 0.2

_LOW = [place for place in range(64) if 1 <= place // 8 + place % 8 <= 4]  # the coefficients that most blocks have
_SIZES = np.arange(1024, dtype=np.float32) / 4  # for which coefficients are counted


def quality(file: str | os.PathLike[str] | BinaryIO) -> int | None:
    """The quality (1 to 100, as libjpeg counts) whose luma table is nearest to a JPEG's; None for other files."""
    from PIL.JpegImagePlugin import JpegImageFile

    try:
        # `Image.open` warns of large ones though nothing is unpacked; this runs beside other threads, for which
        # warnings would be silenced too
        with JpegImageFile(os.fspath(file) if isinstance(file, str | os.PathLike) else file) as picture:
            table = picture.quantization[0]
    except (OSError, ValueError, SyntaxError, LookupError, AttributeError):
        return None
    total = sum(table)
    return min(range(1, 101), key=lambda q: abs(total - sum(tables(q)[0])))


def traces(pixels: Samples) -> int | None:
    """The quality of the JPEG below `STRONG` that a picture once was, in whatever file it stands; None: of none.

    A JPEG's DCT coefficients are multiples of a table's steps, and nearly so still when the pixels were rounded, or
    saved once more with finer steps (Fan and de Queiroz, Identification of Bitmap Compression History: JPEG Detection
    and Quantizer Estimation, IEEE Transactions on Image Processing 12(2), 2003). Here a quality's score is the mean
    cosine of the low coefficients, each in turns of its step: near 1 for multiples, 0 by chance. Where a picture was
    resized or rotated in between, or cropped by other than multiples of 8, nothing is found.

    Args:
        pixels: (H, W, 1 or 3) from the grid's beginning; at most 256 x 512 in the middle are looked at, and no uint16.
    """
    sizes = _coefficients(pixels) if pixels.dtype == np.uint8 else np.zeros((0, len(_LOW)), np.float32)
    places = np.rint(sizes.T / _SIZES[1]).astype(np.int64).clip(max=len(_SIZES))
    counts = np.array([np.bincount(of_one, minlength=len(_SIZES) + 1)[:-1] for of_one in places], np.float32)
    qualities = np.arange(10, 101)
    steps = np.array([tables(quality)[0] for quality in qualities])[:, _LOW]
    turns = _SIZES / np.arange(1, steps.max() + 1, dtype=np.float32)[:, None]
    at, some = (np.arange(len(_LOW)), steps - 1), turns > 0.5
    found, many, sharp = (
        np.einsum("cs,ts->ct", counts, what.astype(np.float32))[at]  # in one thread: for so little others cost more
        for what in (some, turns > 1.5, some * np.cos(2 * np.pi * turns))
    )
    told = (found >= 24) & (steps > 2)  # finer steps are lost in the rounding
    varied = (many * told).sum(1) > 0.1 * (found * told).sum(1)  # not one value again and again, as in a pattern
    clear = (told * sharp / np.maximum(found, 1)).sum(1) / np.maximum(told.sum(1), 1)
    scores = np.where(varied & (told.sum(1) > 3), clear, 0)
    best = np.flatnonzero(scores == scores.max())  # neighbours may have the same steps
    quality = int(qualities[best[len(best) // 2]])
    return quality if scores.max() > TRACED and quality < STRONG else None


def _coefficients(pixels: Samples) -> NDArray[np.float32]:
    """(blocks, coefficients): the absolute values of the low ones in the different blocks of 8 x 8.

    Those that touch black or white do not count, and those that are alike, as in patterns, count once.
    """
    height, width = pixels.shape[:2]
    top, left = max(0, height - 256) // 16 * 8, max(0, width - 512) // 16 * 8
    rows, columns = min(height, 256) // 8, min(width, 512) // 8
    part = pixels[top : top + rows * 8, left : left + columns * 8].astype(np.float32)
    weights = np.array([0.299, 0.587, 0.114] if part.shape[2] == 3 else [1], np.float32)
    luma = np.einsum("yxc,c->yx", part, weights)
    blocks = luma.reshape(rows, 8, columns, 8).swapaxes(1, 2).reshape(rows * columns, 64)
    blocks = blocks[np.all((blocks > 0) & (blocks < 255), axis=1)]  # what was cut off is no multiple
    wave = np.cos(np.outer(np.arange(8), np.arange(0.5, 8)) * np.pi / 8) / 2
    wave[0] /= np.sqrt(2)
    sizes = np.abs(np.einsum("nk,ck->nc", blocks, np.kron(wave, wave)[_LOW].astype(np.float32)))
    return sizes[np.unique(sizes.sum(1).round(2), return_index=True)[1]]


def views(file: BinaryIO, *, named: bool) -> int:
    """How many views of a scene a file holds, one behind the other: stereo, panoramas (CIPA DC-007).

    Small previews are no views, nor are the gain maps of phones, which are of no kind.

    Args:
        file: a JPEG.
        named: whether its name says that it holds several (.mpo): then those of no kind are views, too.
    """
    for kind, data in _segments(file):
        if kind == 0xE2 and data.startswith(_SEVERAL):
            try:
                order, _, tags = main_directory(io.BytesIO(data.removeprefix(_SEVERAL)))
                entries = struct.iter_unpack(order + "I12x", tags[_ENTRIES][2])
            except (ValueError, LookupError, struct.error):
                return 1
            counted = (0, 2, 3) if named else (2, 3)  # 0: of no kind, 1: preview, 2: view, 3: the main one
            return max(1, sum(attribute >> 16 & 0xFF in counted for (attribute,) in entries))
    return 1


def excess(file: BinaryIO) -> str | None:
    """What a JPEG has so much of that decoding could take hours though it is small: "more than 100 scans"; else None.

    Its samples are looked through only where it may have several scans.

    Args:
        file: a JPEG.
    """
    if _at_once(file):
        return None
    file.seek(0)
    data, place, scans, parts = file.read(), 2, 0, 0
    while (found := _MARKER.search(data, place)) and data[found.end() - 1] != _END:
        parts += 1
        scans += data[found.end() - 1] == _SCAN
        if scans > SCANS or parts > _PARTS:
            return f"more than {SCANS} scans" if scans > SCANS else f"more than {_PARTS} parts"
        place = found.end() + max(2, int.from_bytes(data[found.end() : found.end() + 2]))
    return None


def _at_once(file: BinaryIO) -> bool:
    """Whether a JPEG is sequential with all colours in its first scan: libjpeg takes no other one after that."""
    channels = b""
    for part, (kind, data) in enumerate(_segments(file)):
        if kind == _SCAN:
            return channels != b"" and data[:1] == channels
        if kind not in _BEFORE or part > _PARTS:
            return False
        if kind in _SEQUENTIAL:
            channels = data[5:6]
    return False


def _segments(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Markers and contents of what stands before the samples of a JPEG, the head of its first scan last."""
    file.seek(2)
    kind = 0
    while kind != _SCAN:
        head = file.read(4)
        if len(head) < 4 or head[0] != 0xFF or head[1] == _END or head[2:] < b"\0\2":
            return
        kind = head[1]
        yield kind, file.read(int.from_bytes(head[2:]) - 2)


@cache
def tables(quality: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """libjpeg's quantisation tables for luma and chroma at a quality from 1 to 100: 64 steps each, row by row."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    luma, chroma = (
        tuple(min(255, max(1, (step * scale + 50) // 100)) for row in table for step in row)
        for table in (_LUMA, _CHROMA)
    )
    return luma, chroma
