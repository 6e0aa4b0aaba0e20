"""TIFF files whose samples are not what libvips takes them for."""

import struct
from collections.abc import Callable
from typing import Any, BinaryIO

from finescale.errors import FinescaleError
from finescale.images.exif import Directory, main_directory, numbers
from finescale.images.picture import damaged

MARKS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""The first bytes of TIFF and BigTIFF files."""

_BITS, _KIND, _EXTRA = 258, 339, 338
_REDUCED, _SUB_DIRECTORIES, _DNG = 254, 330, 50706
_COMPRESSION, _PHOTOMETRIC, _CHANNELS, _COEFFICIENTS, _REFERENCE = 259, 262, 277, 529, 532
_INKS = 332
_YCBCR = 6
# photometric interpretation -> channels of it
_OF_COLOUR: dict[float, int] = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, _YCBCR: 3, 8: 3}
_OTHERS: dict[float, str] = {9: "ICCLab", 10: "ITULab", 32803: "samples behind a camera's colour filters"}
_TURNED = (7, 33003, 33004, 33005)  # compressions (JPEG, JPEG 2000) that come as RGB


def colours(image: Any, file: BinaryIO) -> tuple[Any, int]:
    """The picture that libvips opened, as RGB where it is Lab, or YCbCr that libvips takes for RGB.

    Args:
        image: what libvips made of the file.
        file: the file.

    Returns:
        The picture, and how many channels were left out: those beside the colours that are not called transparency,
        such as infrared of scanners and saved selections.

    Raises:
        FinescaleError: its samples mean something else; the message has no file name.
    """
    try:
        order, _, tags = main_directory(file)
    except (ValueError, struct.error):  # libvips has understood it
        order, tags = "<", {}

    def said(tag: int) -> list[float]:
        return numbers(order, *tags[tag]) if tag in tags else []

    image, left_out = _without_unnamed(image, said)
    if image.interpretation in ("lab", "labs", "xyz", "yxy", "lch"):
        return image.colourspace("srgb"), left_out
    if unread := _unread(file, order, tags):
        raise FinescaleError(f"of a kind that is not supported ({unread})")
    kind = (said(_PHOTOMETRIC) or [0])[0]
    if kind in _OTHERS:
        raise FinescaleError(f"of a kind that is not supported ({_OTHERS[kind]})")
    if kind != _YCBCR or (said(_COMPRESSION) or [1])[0] in _TURNED:
        return image, left_out
    if image.bands > (said(_CHANNELS) or [3])[0]:  # subsampled: libtiff has made RGB of it, and added an alpha
        return image[:3], left_out
    if image.format != "uchar" or image.bands < 3:
        raise FinescaleError("of a kind that is not supported (YCbCr that is not of 8 bits)")
    rgb = _rgb(image[:3], said(_COEFFICIENTS), said(_REFERENCE))
    return rgb.bandjoin(image[3:]) if image.bands > 3 else rgb, left_out


def _without_unnamed(image: Any, said: Callable[[int], list[float]]) -> tuple[Any, int]:
    """The picture without the channels that its file does not call transparency, and how many these were."""
    kind, channels = ((said(tag) or [1])[0] for tag in (_PHOTOMETRIC, _CHANNELS))
    extra = channels - _OF_COLOUR.get(kind, channels)
    # other inks than CMYK are no extra channels, and where several follow a first one that is no picture either
    if not 0 < extra < image.bands or 2 in said(_INKS) or (extra > 1 and _OF_COLOUR[kind] == 1):
        return image, 0
    extra = int(extra)
    kinds = (said(_EXTRA) + [0] * extra)[:extra]  # 0: not named, 1: alpha that colours are multiplied by, 2: alpha
    first = image.bands - extra
    alpha = [image[first + i] for i, kind in enumerate(kinds) if kind in (1, 2)]
    if len(alpha) == extra:
        return image, 0
    return image[:first].bandjoin(alpha) if alpha else image[:first], extra - len(alpha)


def reason(file: BinaryIO) -> str | None:
    """Why libvips does not open a TIFF file, where that can be said more clearly than libvips does."""
    try:
        order, _, tags = main_directory(file)
    except (ValueError, struct.error):
        return damaged("its directory is missing")
    unread = _unread(file, order, tags)
    return f"of a kind that is not supported ({unread})" if unread else None


def _unread(file: BinaryIO, order: str, tags: Directory) -> str | None:
    """What the samples are, if they are of a type that is not read."""
    file.seek(8)
    reduced = _REDUCED in tags and numbers(order, *tags[_REDUCED])[:1] in ([1], [3])
    if _DNG in tags or (reduced and _SUB_DIRECTORIES in tags) or file.read(3) == b"CR\2":
        return "camera RAW, of which this would be the preview; develop it to TIFF or JPEG first"

    def said(tag: int) -> float:
        return max(numbers(order, *tags[tag]) if tag in tags else [], default=1)

    bits, kind = said(_BITS), said(_KIND)  # 1: unsigned, 2: signed, 3: floats
    if kind in (5, 6):
        return "complex numbers"
    if bits > 32:
        return f"{'floats' if kind == 3 else 'integers'} of {bits:g} bits"
    if kind != 3 and bits == 32:
        return "integers of 32 bits, whose white is not defined"
    return f"signed integers of {bits:g} bits, whose white is not defined" if kind == 2 and bits < 16 else None


def _rgb(image: Any, coefficients: list[float], reference: list[float]) -> Any:
    """YCbCr as RGB (TIFF 6.0, section 21), by default of BT.601 over the full range."""
    red, green, blue = coefficients if len(coefficients) == 3 and all(coefficients) else (0.299, 0.587, 0.114)
    if len(reference) != 6 or any(a == b for a, b in zip(reference[::2], reference[1::2])):
        reference = [0, 255, 128, 255, 128, 255]
    blacks, whites = reference[::2], reference[1::2]
    gains = [top / (white - black) for top, black, white in zip((255, 127, 127), blacks, whites)]
    of_red, of_blue = 2 - 2 * red, 2 - 2 * blue
    matrix = [[1, 0, of_red], [1, -of_blue * blue / green, -of_red * red / green], [1, of_blue, 0]]
    spread = image.linear(gains, [-black * gain for black, gain in zip(blacks, gains)])
    return spread.recomb(matrix).rint().cast("uchar").copy(interpretation="srgb")
