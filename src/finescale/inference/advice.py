"""Which network suits a picture better than the default one, whose pictures were clean photographs."""

import logging
import math
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finescale.errors import FinescaleError
from finescale.images import jpeg
from finescale.images.files import Opened, warnings_to
from finescale.images.picture import Picture, Samples, split
from finescale.images.strips import StripReader
from finescale.networks import FOR_GRAPHICS, FOR_JPEG, FOR_NOISE
from finescale.weights import places
from finescale.weights.header import read_header

FEW = 16  # colours: no photograph has so few, but what is dithered from a palette, with no neighbours alike
FLAT = 0.45  # share of pixels like the one before them: but for a few, photographs have less, drawings more
# grey levels that noise has even where a picture is smoothest: in grey, where fine texture has up to 7, and in colour
NOISE, COLOUR_NOISE = 8.0, 6.0
log = logging.getLogger("finescale")
_NO_TRACES = "takes the traces of JPEG away"
_SIDE = 256  # about so many rows are looked at, and at most sixteen times as many columns


@dataclass(frozen=True)
class Advice:
    """A network and why it suits.

    Attributes:
        network: its name.
        one, many: what a picture is, what several are: "looks drawn", "look drawn".
        does: the network with them.
    """

    network: str
    one: str
    many: str
    does: str

    @property
    def done(self) -> str:
        """What is said of it."""
        return f"network: {self.network}, which {self.does}"


def choice(
    source: Path | None, picture: Picture | None, small: tuple[int, int], size: tuple[int, int]
) -> Advice | None:
    """`advice` for a picture of (width, height) `small` that becomes `size`; None where no network would be of use.

    What keeps its size is cleaned, and what becomes smaller is left to bicubic interpolation. Of a network whose files
    cannot be used, that is said, and there is none.
    """
    enlarged = size[0] > small[0] or size[1] > small[1]
    better = advice(source, picture) if enlarged or size == small else None
    if better is None or (not enlarged and better.network == FOR_GRAPHICS):
        return None
    try:
        for path in filter(None, (places.locate(better.network, scale) for scale in (2, 3, 4))):
            read_header(path)
    except FinescaleError as error:
        _say(str(error))
        return None
    return better


@cache
def _say(sentence: str) -> None:
    """Once, not of every picture."""
    log.warning("%s", sentence)


def advice(source: Path | None, picture: Picture | None) -> Advice | None:
    """What is better for a picture, if its weights are on this machine.

    Args:
        source: its file; None: it came in none.
        picture: what stands in it; None: too large to be held, and some of its rows are read.

    Raises:
        ValueError: neither is given.
    """
    if picture is not None:
        pixels, alpha = picture.pixels, picture.alpha
    elif source is not None:
        pixels, alpha = _rows(source)
    else:
        raise ValueError("a picture or its file is needed")
    quality = picture.quality if picture is not None else None
    if quality is None and source is not None:
        quality = jpeg.quality(source)
    compressed = _compressed(quality, pixels) if _there(FOR_JPEG) else None
    # many compressed ones look drawn: flat blocks are alike
    if compressed is None and _there(FOR_GRAPHICS) and drawn(pixels, alpha):
        return Advice(FOR_GRAPHICS, "looks drawn", "look drawn", "is made for text, charts and pixel art")
    # what JPEG has left of noise is worse than JPEG, whose traces this network takes away, too
    if alpha is None and _there(FOR_NOISE) and noisy(pixels):
        return Advice(FOR_NOISE, "looks noisy", "look noisy", "takes noise away")
    return compressed


def _compressed(quality: int | None, pixels: Samples) -> Advice | None:
    """Whether a picture is a JPEG of low quality (None: no JPEG), or has been one."""
    if quality is not None and quality < jpeg.STRONG:
        return Advice(FOR_JPEG, f"a JPEG of quality {quality}", "are JPEGs of low quality", _NO_TRACES)
    quality = jpeg.traces(pixels)
    if quality is not None:
        return Advice(FOR_JPEG, f"has been a JPEG of quality {quality}", "have been JPEGs of low quality", _NO_TRACES)
    return None


def drawn(pixels: Samples, alpha: Samples | None = None) -> bool:
    """Whether so many neighbours are exactly alike, or so few colours there, as no camera makes them.

    An empty margin, such as that of a scan, and what transparency hides do not count.

    Args:
        pixels: (H, W, 1 or 3), unsigned.
        alpha: (H, W), or None.
    """
    height, width = pixels.shape[:2]
    left = max(0, width // 2 - 8 * _SIDE)
    part = np.s_[:: -(-height // _SIDE), left : left + 16 * _SIDE]
    pixels, shown = pixels[part], None if alpha is None else alpha[part] > 0
    content = _any(pixels != pixels[0, 0])
    content = content if shown is None else content & shown
    inside = tuple(
        slice(where[0], where[-1] + 1) for axis in (1, 0) if (where := np.flatnonzero(content.any(axis))).size
    )
    if len(inside) < 2:
        return False
    pixels, shown = pixels[inside], None if shown is None else shown[inside]
    if _few_colours(pixels, shown):
        return True
    alike = ~_any(pixels[:, 1:] != pixels[:, :-1])
    if shown is not None:
        alike = alike[shown[:, 1:] & shown[:, :-1]]
    return bool(alike.size and np.mean(alike) > FLAT)


def _few_colours(pixels: Samples, shown: Samples | None) -> bool:
    """Whether there are 2 to `FEW` colours, not all nearly the same as in fog or at night, in 256 pixels or more."""
    colours: set[int] = set()
    for y, row in enumerate(pixels):
        row = row if shown is None else row[shown[y]]
        packed = sum(row[:, channel].astype(np.int64) << 16 * channel for channel in range(row.shape[1]))
        colours.update(np.unique(packed).tolist())
        if len(colours) > FEW:
            return False
    levels = [[colour >> 16 * channel & 0xFFFF for colour in colours] for channel in range(pixels.shape[2])]
    contrast = max(max(of_one) - min(of_one) for of_one in levels)
    count = pixels[..., 0].size if shown is None else np.count_nonzero(shown)
    return int(count) >= 256 and contrast * 4 >= np.iinfo(pixels.dtype).max


def noisy(pixels: Samples) -> bool:
    """Whether a picture is noisy even where it is smoothest, more than the network for that costs in texture.

    Noise is measured by Immerkaer's operator (Fast Noise Variance Estimation, Computer Vision and Image Understanding
    64, 1996, equation 3) in each block of 8 x 8 without black or white, and the smoothest twentieth of them counts.
    Textures, unlike noise, are mostly of one colour, so that the differences of the channels tell more than grey.

    Args:
        pixels: (H, W, 1 or 3), unsigned; at most 256 x 512 in the middle are looked at.
    """
    height, width = pixels.shape[:2]
    top, left = max(0, (height - _SIDE) // 2), max(0, width // 2 - _SIDE)
    part = pixels[top : top + _SIDE, left : left + 2 * _SIDE] * np.float32(255 / np.iinfo(pixels.dtype).max)
    planes = [part.mean(2)]
    if part.shape[2] == 3:
        planes += [part[..., 1] - part[..., 0], part[..., 1] - part[..., 2]]
    grey = _blocks(planes[0][1:-1, 1:-1])
    middle = (grey.min(2) > 15) & (grey.max(2) < 240)
    if np.count_nonzero(middle) < 20:
        return False
    levels = []
    for plane in planes:
        plane = np.diff(np.diff(plane, 2, axis=0), 2, axis=1)
        levels.append(np.quantile(_blocks(np.abs(plane)).mean(2)[middle], 0.05) * math.sqrt(math.pi / 2) / 6)
    return levels[0] >= NOISE or min(levels[1:], default=0) >= COLOUR_NOISE


def _blocks(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    """(H, W) -> (rows, columns, 64) blocks of 8 x 8; what is left over is left out."""
    rows, columns = plane.shape[0] // 8, plane.shape[1] // 8
    blocks = plane[: rows * 8, : columns * 8].reshape(rows, 8, columns, 8).swapaxes(1, 2)
    return blocks.reshape(rows, columns, 64)


def _any(differs: Samples) -> Samples:
    """(H, W, C) -> (H, W); `any` over a short axis is slow."""
    found = differs[..., 0]
    for channel in range(1, differs.shape[2]):
        found = found | differs[..., channel]
    return found


def _rows(source: Path) -> tuple[Samples, Samples | None]:
    """Pixels and alpha of the middle rows of a picture.

    One pixel where it cannot be read, as is told later, or only as a whole.
    """
    with suppress(FinescaleError), warnings_to(lambda text: None):  # who reads it for good tells them
        opened = Opened(source)
        if opened.orientation == 1 and opened.decoder is None:
            reader = StripReader(source)
            height, middle = reader.layout.height, reader.layout.height // 2
            top = max(0, middle - _SIDE // 2) // 8 * 8  # where a JPEG's blocks would begin
            return split(reader.rows(top, min(height, top + _SIDE)))
    return np.zeros((1, 1, 1), np.uint8), None


def _there(network: str) -> bool:
    return any(places.present(network, scale) for scale in (2, 3, 4))
