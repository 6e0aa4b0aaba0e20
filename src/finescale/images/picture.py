"""A picture as data: samples, transparency, and what a file says about them."""

import io
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from finescale.errors import FinescaleError, UsageError, is_out_of_memory
from finescale.images import exif as exif_blocks
from finescale.images import xmp as xmp_blocks

Samples = NDArray[Any]  # uint8 or uint16

_ROWS = 32  # that are compared at a time
_AT_ONCE = 1 << 16  # samples that are converted at a time: what is wider in the meantime stays in the cache

_PLACES = {273, 324}  # where a TIFF's strips or tiles lie: its main directory has one of these, EXIF has none

# what the plugins of Pillow (AVIF's the last but one) and libheif raise over damaged files
ERRORS = (OSError, ValueError, SyntaxError, RuntimeError, EOFError)


@dataclass(frozen=True)
class Picture:
    """A still picture, stored upright.

    Attributes:
        pixels: (H, W, 1) grey or (H, W, 3) RGB, uint8 or uint16, in the colour space of `icc` (none: of `colours`,
            else sRGB).
        alpha: (H, W), same type, not premultiplied; None where the picture is opaque.
        icc: the ICC profile of the pixels.
        exif: the EXIF block, as Pillow's `exif=` takes it, with orientation 1.
        format: the format of the file it was read from: "png", "jpeg", "webp", "tiff", "avif", "bmp", ...
        resolution: (horizontal, vertical) pixels per inch, where the file says so.
        colours: what it says of the colour space where it has no profile, see `finescale.images.colours`.
        xmp: the XMP block, as `finescale.images.xmp.kept` gives it.
        texts: the chunks of text of a PNG, which another PNG takes as they are.
        quality: of the JPEG it was read from, see `finescale.images.jpeg.quality`; enlarged it has none.
    """

    pixels: Samples
    alpha: Samples | None = None
    icc: bytes | None = None
    exif: bytes | None = None
    format: str | None = None
    resolution: tuple[float, float] | None = None
    colours: bytes | None = None
    xmp: bytes | None = None
    texts: bytes | None = None
    quality: int | None = None

    def __post_init__(self) -> None:
        shape, kind = self.pixels.shape, self.pixels.dtype
        if len(shape) != 3 or shape[2] not in (1, 3) or 0 in shape:
            raise ValueError(f"pixels are (H, W, 1) or (H, W, 3), not {shape}")
        if kind not in (np.uint8, np.uint16):
            raise ValueError(f"pixels are uint8 or uint16, not {kind}")
        if self.alpha is not None and (self.alpha.shape != shape[:2] or self.alpha.dtype != kind):
            raise ValueError(f"alpha is {shape[:2]} {kind}, not {self.alpha.shape} {self.alpha.dtype}")

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        return self.pixels.shape[1], self.pixels.shape[0]

    @property
    def bits(self) -> int:
        """Bits per sample: 8 or 16."""
        return 8 * self.pixels.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Of pixels and alpha."""
        return self.pixels.nbytes + (0 if self.alpha is None else self.alpha.nbytes)

    @property
    def samples(self) -> Samples:
        """(H, W, 1 to 4): the pixels and, last, the alpha where there is one."""
        return self.pixels if self.alpha is None else np.dstack((self.pixels, self.alpha))

    @property
    def rgb(self) -> NDArray[np.uint8]:
        """(H, W, 3) uint8: grey in three equal channels, 16 bits rounded to 8, no alpha."""
        pixels = to_8_bit(self.pixels)
        return np.broadcast_to(pixels, (*pixels.shape[:2], 3))


def split(samples: Samples) -> tuple[Samples, Samples | None]:
    """Pixels and alpha of interleaved samples (H, W, 1 to 4): two and four channels end with alpha."""
    if samples.shape[2] % 2:
        return samples, None
    return np.ascontiguousarray(samples[..., :-1]), np.ascontiguousarray(samples[..., -1])


def full_range(samples: Samples, bits: int) -> Samples:
    """uint16 samples whose upper `bits` bits are used (10 or 12 of HEIC and AVIF), over all of 0 to 65535."""
    if bits >= 16:
        return samples
    top = (1 << bits) - 1
    return (((samples >> (16 - bits)).astype(np.uint32) * 65535 + top // 2) // top).astype(samples.dtype)


def is_grey(pixels: Samples) -> bool:
    """Whether all channels of (H, W, C) are equal everywhere, as in black and white that is stored as RGB."""
    parts = (pixels[y : y + _ROWS] for y in range(0, len(pixels), _ROWS))  # the first colours end it
    return all(np.array_equal(part[..., 0], part[..., c]) for part in parts for c in range(1, pixels.shape[2]))


def on_white(pixels: Samples, alpha: Samples) -> Samples:
    """What is seen of colours (H, W, C) with an alpha (H, W) before white; of their type."""
    top = np.uint32(np.iinfo(pixels.dtype).max)
    weight = alpha[..., None].astype(np.uint32)  # room enough for 16 bits, too
    return ((pixels * weight + (top - weight) * top + top // 2) // top).astype(pixels.dtype)


def unmultiplied(pixels: Samples, alpha: Samples) -> Samples:
    """Colours (H, W, C) that were stored multiplied by alpha (H, W), as they are."""
    top = np.iinfo(pixels.dtype).max
    weight = np.maximum(alpha, 1)[..., None].astype(np.uint64)
    return np.minimum((pixels * np.uint64(top) + weight // 2) // weight, top).astype(pixels.dtype)


def mod_crop(samples: Samples, multiple: int) -> Samples:
    """Crops (H, W, ...) at the bottom and right to multiples of `multiple`, as benchmarks do.

    Raises:
        UsageError: nothing would be left.
    """
    height, width = samples.shape[:2]
    if min(height, width) < multiple:
        raise UsageError(f"a picture of {width} x {height} cannot be cropped to a multiple of {multiple}")
    return samples[: height - height % multiple, : width - width % multiple]


def fitting(icc: bytes | None, channels: int) -> bytes | None:
    """The profile if it is one for pictures of so many channels: readers reject RGB profiles of grey pictures."""
    return icc if icc and icc[16:20] == (b"GRAY" if channels < 3 else b"RGB ") else None


def to_8_bit(samples: Samples) -> Samples:
    """uint16 samples as uint8, rounded to the nearest; uint8 is returned as it is."""
    if samples.dtype == np.uint8:
        return samples
    result = np.empty(samples.shape, np.uint8)
    rows = max(1, _AT_ONCE * len(samples) // max(1, samples.size))
    for y in range(0, len(samples), rows):
        result[y : y + rows] = (samples[y : y + rows].astype(np.uint32) + 128) // 257
    return result


def oriented(samples: Samples, orientation: int) -> Samples:
    """Samples (H, W, C) of a file with this EXIF orientation (1 to 8), turned and flipped upright."""
    if orientation >= 5:
        samples = samples.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        samples = samples[:, ::-1]
    if orientation in (3, 4, 7, 8):
        samples = samples[::-1]
    return np.ascontiguousarray(samples)


def cmyk_to_srgb(samples: Samples, icc: bytes | None) -> Samples:
    """CMYK samples (H, W, 4) as sRGB (H, W, 3), through the profile, or a typical print profile without a sound one."""
    import pyvips

    try:
        return _to_srgb(samples, "cmyk", icc, input_profile="cmyk", depth=8 * samples.dtype.itemsize)
    except pyvips.Error as error:
        if not icc or is_out_of_memory(error):
            raise
        return cmyk_to_srgb(samples, None)


def changes_colours(icc: bytes, channels: int) -> bool:
    """Whether pictures of so many channels (1 or 3) look different without their profile, which is as sRGB."""
    import pyvips

    ramp = np.linspace(0, 255, 9, dtype=np.uint8)
    every = np.stack(np.meshgrid(*[ramp] * channels), -1).reshape(1, -1, channels)
    try:
        seen = _to_srgb(every, "srgb" if channels == 3 else "b-w", icc)
    except pyvips.Error:  # no reader would understand it
        return False
    return bool(np.abs(seen.astype(int) - every).max() > 3)


def _to_srgb(samples: Samples, interpretation: str, icc: bytes | None, **how: Any) -> Samples:
    """Samples (H, W, C) as sRGB (H, W, 3), by relative colorimetry."""
    import pyvips

    from finescale.images import forks

    image = pyvips.Image.new_from_array(samples, interpretation=interpretation).copy()
    if icc:
        image.set_type(pyvips.GValue.blob_type, "icc-profile-data", icc)
    how |= {"embedded": True, "intent": "relative", "black_point_compensation": True}
    try:
        return forks.samples(image.icc_transform("srgb", **how))
    finally:  # what is said of a damaged profile would be told of the next picture that is damaged
        pyvips.vips_lib.vips_error_clear()


def damaged(reason: object) -> str:
    """That a file is, in one line."""
    return f"damaged or cut off ({' '.join(str(reason).split())})"


def from_pil(image: Image.Image) -> Picture:
    """A Pillow image as a Picture: upright by its EXIF orientation, palettes expanded, CMYK as sRGB.

    Raises:
        UsageError: no pixels, 32-bit integers beyond 16 bit, floats outside [0, 1].
        FinescaleError: a damaged file; no message has a file name.
    """
    if 0 in image.size:
        raise UsageError("holds no pixels")
    if getattr(image, "tile", None) and getattr(image, "fp", image) is None:
        raise UsageError("of a file that was closed before it was read (open it again, or call load() in time)")
    try:
        stored = image.getexif().get(exif_blocks.ORIENTATION, 1)
    except (*ERRORS, struct.error):  # better no EXIF than no picture
        stored = 1
    try:
        image.load()  # some plugins turn the picture here, and forget the orientation
    except ERRORS as error:
        raise FinescaleError(damaged(error)) from error
    block = image.getexif()
    orientation = block.get(exif_blocks.ORIENTATION, 1)
    icc = image.info.get("icc_profile")
    mode = image.mode
    if mode.startswith("I") or mode == "F":
        samples = to_integers(np.asarray(image))[..., None]
    elif mode == "CMYK":
        samples, icc = cmyk_to_srgb(np.asarray(image), icc), None
    else:
        clear = mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info
        grey = mode in ("1", "L", "LA", "La")
        samples = np.asarray(image.convert(("LA" if clear else "L") if grey else ("RGBA" if clear else "RGB")))
        samples = samples.reshape(*samples.shape[:2], -1)
    pixels, alpha = split(oriented(samples, orientation if orientation in range(1, 9) else 1))
    exif = _exif(image, block)
    dpi = image.info.get("dpi")
    resolution = (round(float(dpi[0]), 2), round(float(dpi[1]), 2)) if dpi and min(dpi) > 0 else None
    resolution = resolution[::-1] if resolution and stored in (5, 6, 7, 8) else resolution
    icc = fitting(icc, pixels.shape[2])  # Pillow's conversions leave the profile of the picture before in place
    format = image.format.lower() if image.format else None
    xmp = xmp_blocks.kept(image.info.get("xmp"), turned=stored != 1)
    return Picture(pixels, alpha, icc, exif, format, resolution, xmp=xmp)


def _exif(image: Image.Image, block: Image.Exif) -> bytes | None:
    """The EXIF of an image, upright; of a TIFF without what it says of its own layout."""
    if not len(block):
        return None
    try:
        kept: bytes | None = image.info.get("exif") or block.tobytes()
        if kept and not _PLACES.isdisjoint(block):
            kept = exif_blocks.from_tags(exif_blocks.read_tags(io.BytesIO(kept.removeprefix(exif_blocks.HEADER))))
    except (*ERRORS, struct.error):
        return None
    return exif_blocks.upright(kept) if kept else None


def to_pil(picture: Picture) -> Image.Image:
    """A Picture as a Pillow image with its profile, EXIF, XMP and resolution in `info`.

    Pillow has no 16-bit colour: 16 bits stay for opaque grey (mode I;16), all else becomes 8 bit, rounded.
    """
    if picture.bits == 16 and picture.alpha is None and picture.pixels.shape[2] == 1:
        image = Image.fromarray(picture.pixels[..., 0])
    else:
        samples = to_8_bit(picture.samples)
        image = Image.fromarray(samples[..., 0] if samples.shape[2] == 1 else samples)
    exif = exif_blocks.upright(picture.exif, picture.size) if picture.exif else None
    kept = {"icc_profile": picture.icc, "exif": exif, "xmp": picture.xmp, "dpi": picture.resolution}
    image.info.update({key: value for key, value in kept.items() if value})
    return image


def to_integers(samples: NDArray[Any]) -> Samples:
    """Samples of any numeric type as uint8 or uint16: floats in [0, 1] become 16 bit, integers must fit.

    Raises:
        UsageError: they do not fit; the message has no file name.
    """
    if samples.dtype in (np.uint8, np.uint16):
        return samples
    low, high = samples.min(), samples.max()
    if samples.dtype.kind == "f":
        if not (low >= 0 and high <= 1):
            raise UsageError(f"holds floating-point samples from {low:g} to {high:g}, and only [0, 1] is read")
        return np.floor(samples.astype(np.float64) * 65535 + 0.5).astype(np.uint16)
    if low < 0 or high > 65535:
        raise UsageError(f"holds samples from {low} to {high}, and only 8 and 16 bits are read")
    return samples.astype(np.uint16)
