"""What a JPEG says of itself: how strongly it was compressed, and how many views it holds."""

import io
import os
import struct
from collections.abc import Iterator
from functools import cache
from typing import BinaryIO

from finescale.images.exif import main_directory

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

STRONG = 85  # below this quality blocks and ringing show when a picture is enlarged, see docs/results/jpeg.md


def quality(path: str | os.PathLike[str]) -> int | None:
    """The quality (1 to 100, as libjpeg counts) whose luma table is nearest to a JPEG's; None for other files."""
    from PIL.JpegImagePlugin import JpegImageFile

    try:
        # `Image.open` warns of large ones though nothing is unpacked; this runs beside other threads, for which
        # warnings would be silenced too
        with JpegImageFile(os.fspath(path)) as picture:
            table = picture.quantization[0]
    except (OSError, ValueError, SyntaxError, LookupError, AttributeError):
        return None
    total = sum(table)
    return min(range(1, 101), key=lambda q: abs(total - sum(tables(q)[0])))


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


def _segments(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Markers and contents of what stands before the samples of a JPEG."""
    file.seek(2)
    while True:
        head = file.read(4)
        if len(head) < 4 or head[0] != 0xFF or head[1] in (0xD9, 0xDA) or head[2:] < b"\0\2":
            return
        yield head[1], file.read(int.from_bytes(head[2:]) - 2)


@cache
def tables(quality: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """libjpeg's quantisation tables for luma and chroma at a quality from 1 to 100: 64 steps each, row by row."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    luma, chroma = (
        tuple(min(255, max(1, (step * scale + 50) // 100)) for row in table for step in row)
        for table in (_LUMA, _CHROMA)
    )
    return luma, chroma
