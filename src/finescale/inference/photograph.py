"""The photograph beside this file (Grace Hopper by James S. Davis, US Navy, public domain): what networks are tried on.

It is the same on every machine and for every user's picture.
"""

from pathlib import Path

import numpy as np

from finescale.images.files import read
from finescale.inference.engines.interface import grown
from finescale.inference.tiling import Array, to_unit

PHOTOGRAPH = Path(__file__).with_name("photograph.png")


def photograph(multiple: int = 1) -> Array:
    """The photograph as (1, 3, H, W) float32 in [0, 1], 225 x 192, its sides multiples of `multiple`: see `_cut`."""
    return _cut(to_unit(read(PHOTOGRAPH).pixels).transpose(2, 0, 1)[None], multiple)


def samples(multiple: int = 1) -> list[Array]:
    """Parts of the photograph, 144 x 96, one with hard contrast and one as a negative, as `photograph`."""
    x = photograph()[..., :144, :]
    hard = np.clip((x - 0.5) * 4 + 0.5, 0, 1)
    return [_cut(part, multiple) for part in (x[..., :96], x[..., 96:], hard[..., 48:144], 1 - x[..., 48:144])]


def _cut(x: Array, multiple: int) -> Array:
    """Sides that are multiples of a number: cut down, or mirrored up where that is larger than they are."""
    height, width = (max(1, side // multiple) * multiple for side in x.shape[2:])
    return np.ascontiguousarray(grown(x, multiple)[..., :height, :width])
