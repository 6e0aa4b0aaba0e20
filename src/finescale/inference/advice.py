"""Which network suits a picture better than the default one, whose pictures were clean photographs."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from finescale.images import jpeg
from finescale.images.picture import Picture
from finescale.networks import FOR_GRAPHICS, FOR_JPEG
from finescale.weights import places

FLAT = 0.45  # share of pixels like the one before them: photographs have less, but for a few; drawings more
_ROWS = 256  # that are looked at


@dataclass(frozen=True)
class Advice:
    """A network, with the words that say why: "a.png: {one}; NETWORK {does}", "3 of them {many}; NETWORK {does}"."""

    network: str
    one: str
    many: str
    does: str


def advice(source: Path, picture: Picture | None) -> Advice | None:
    """What is better for a picture, if its weights are on this machine.

    Args:
        source: its file.
        picture: what stands in it; None: not read, and only the file is looked at.
    """
    if _there(FOR_JPEG):
        quality = jpeg.quality(source)
        if quality is not None and quality < jpeg.STRONG:
            return Advice(
                FOR_JPEG, f"a JPEG of quality {quality}", "are JPEGs of low quality", "takes such traces away"
            )
    if picture is not None and _there(FOR_GRAPHICS) and drawn(picture):
        return Advice(FOR_GRAPHICS, "looks drawn", "look drawn", "is made for drawings, text and pixel art")
    return None


def drawn(picture: Picture) -> bool:
    """Whether so many neighbours in it are exactly alike as no camera makes them."""
    rows = picture.pixels[:: -(-picture.pixels.shape[0] // _ROWS)]
    if rows.shape[1] < 2:
        return False
    return bool(np.mean((rows[:, 1:] == rows[:, :-1]).all(2)) > FLAT)


def _there(network: str) -> bool:
    return places.present(network, 4) is not None
