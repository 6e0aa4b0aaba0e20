"""Formats that libvips does not open, or not always: BMP, PPM and odd AVIF through Pillow, HEIC through libheif."""

import io
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from finescale.errors import FinescaleError, install
from finescale.images import exif as exif_blocks
from finescale.images import xmp as xmp_blocks
from finescale.images.picture import Picture, fitting, from_pil, full_range, split, unmultiplied

HEIC = find_spec("pillow_heif") is not None
"""Whether HEIC can be read: an extra, because the package contains an encoder under GPL."""


class Info(NamedTuple):
    """What the header of a picture says; width and height as shown, after the EXIF orientation."""

    width: int
    height: int
    format: str
    channels: int
    bits: int
    frames: int


class Decoder(NamedTuple):
    """A picture whose header was read.

    Attributes:
        info: what the header says.
        decode: reads the samples; raises FinescaleError without the file's name, or one of `ERRORS`.
    """

    info: Info
    decode: Callable[[], Picture]


def is_heic(head: bytes) -> bool:
    """Whether a file that begins so is a HEIF file (ISO/IEC 23008-12) with HEVC pictures: HEIC, as phones write it."""
    brands = head[8 : min(int.from_bytes(head[:4]), 256)]
    return head[4:8] == b"ftyp" and any(brand in brands for brand in (b"heic", b"heix", b"heim", b"heis"))


def with_pillow(data: bytes | str) -> Decoder:
    """Opens a file, or its bytes, with Pillow.

    Raises:
        OSError and others of `ERRORS`: it cannot be opened.
    """
    data = data if isinstance(data, bytes) else Path(data).read_bytes()
    kind: Any
    if data[:2] == b"BM":
        from PIL.BmpImagePlugin import BmpImageFile as kind
    elif data[:1] == b"P":
        from PIL.PpmImagePlugin import PpmImageFile as kind
    else:
        from PIL.AvifImagePlugin import AvifImageFile as kind  # with a library of megabytes
    image = kind(io.BytesIO(data))  # `Image.open` has a limit of pixels of its own, below that of `files.read`
    turned = image.getexif().get(exif_blocks.ORIENTATION, 1) >= 5
    width, height = image.size[::-1] if turned else image.size
    channels = 3 if image.mode == "P" else len(image.getbands())
    info = Info(width, height, (image.format or "").lower(), channels, 8, getattr(image, "n_frames", 1))
    return Decoder(info, lambda: from_pil(image))


def with_libheif(data: bytes | str) -> Decoder:
    """Opens a HEIC file, or its bytes: the main picture of it, which libheif turns upright itself.

    Raises:
        FinescaleError: pillow-heif is not installed.
        OSError and others of `ERRORS`: it cannot be opened.
    """
    if not HEIC:
        raise FinescaleError(f"HEIC pictures need another package: {install('heic')}")
    import pillow_heif

    file = pillow_heif.open_heif(io.BytesIO(data) if isinstance(data, bytes) else data, convert_hdr_to_8bit=False)
    if not len(file):
        raise ValueError("it holds no picture")
    image = file[file.primary_index]
    mode, deep = image.mode.split(";")[0], ";" in image.mode
    width, height = image.size
    info = Info(width, height, "heic", len(mode), 16 if deep else 8, len(file))

    def decode() -> Picture:
        samples = np.array(image)  # a copy: the memory is libheif's, and goes with the image
        samples = samples.reshape(*samples.shape[:2], -1)
        if deep:
            samples = full_range(samples, image.info["bit_depth"])
        pixels, alpha = split(samples)
        if alpha is not None and mode[-1] == "a":
            pixels = unmultiplied(pixels, alpha)
        block = image.info["exif"]
        icc = fitting(image.info.get("icc_profile"), pixels.shape[2])
        exif = exif_blocks.upright(block) if block else None
        xmp = xmp_blocks.kept(image.info.get("xmp"), turned=True)  # libheif does not tell whether it has turned it
        return Picture(pixels, alpha, icc, exif, "heic", xmp=xmp)

    return Decoder(info, decode)
