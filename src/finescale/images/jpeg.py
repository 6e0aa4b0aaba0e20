"""How strongly a JPEG was compressed."""

import os
from functools import cache

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


@cache
def tables(quality: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """libjpeg's quantisation tables for luma and chroma at a quality from 1 to 100: 64 steps each, row by row."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    luma, chroma = (
        tuple(min(255, max(1, (step * scale + 50) // 100)) for row in table for step in row)
        for table in (_LUMA, _CHROMA)
    )
    return luma, chroma
