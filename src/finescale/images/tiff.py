"""TIFF files whose samples are not what libvips takes them for."""

import struct
from typing import Any, BinaryIO

from finescale.errors import FinescaleError
from finescale.images.exif import Directory, main_directory, numbers
from finescale.images.picture import damaged

MARKS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""The first bytes of TIFF and BigTIFF files."""

_BITS, _KIND = 258, 339
_COMPRESSION, _PHOTOMETRIC, _CHANNELS, _COEFFICIENTS, _REFERENCE = 259, 262, 277, 529, 532
_YCBCR = 6
_OTHERS: dict[float, str] = {9: "ICCLab", 10: "ITULab", 32803: "samples behind a camera's colour filters"}
_TURNED = (7, 33003, 33004, 33005)  # compressions (JPEG, JPEG 2000) that come as RGB


def colours(image: Any, file: BinaryIO) -> Any:
    """The picture that libvips opened, with RGB in place of the YCbCr that it gives as RGB.

    Args:
        image: what libvips made of the file.
        file: the file.

    Raises:
        FinescaleError: its samples mean something else; the message has no file name.
    """
    try:
        order, _, tags = main_directory(file)
    except (ValueError, struct.error):  # libvips has understood it
        return image

    def said(tag: int) -> list[float]:
        return numbers(order, *tags[tag]) if tag in tags else []

    if unread := _unread(order, tags):
        raise FinescaleError(f"of a kind that is not supported ({unread})")
    kind = (said(_PHOTOMETRIC) or [0])[0]
    if kind in _OTHERS:
        raise FinescaleError(f"of a kind that is not supported ({_OTHERS[kind]})")
    if kind != _YCBCR or (said(_COMPRESSION) or [1])[0] in _TURNED:
        return image
    if image.bands > (said(_CHANNELS) or [3])[0]:  # subsampled: libtiff has made RGB of it, and added an alpha
        return image[:3]
    if image.format != "uchar" or image.bands < 3:
        raise FinescaleError("of a kind that is not supported (YCbCr that is not of 8 bits)")
    rgb = _rgb(image[:3], said(_COEFFICIENTS), said(_REFERENCE))
    return rgb.bandjoin(image[3:]) if image.bands > 3 else rgb


def reason(file: BinaryIO) -> str | None:
    """Why libvips does not open a TIFF file, where that can be said more clearly than libvips does."""
    try:
        order, _, tags = main_directory(file)
    except (ValueError, struct.error):
        return damaged("its directory is missing")
    unread = _unread(order, tags)
    return f"of a kind that is not supported ({unread})" if unread else None


def _unread(order: str, tags: Directory) -> str | None:
    """What the samples are, if they are of a type that is not read."""

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
