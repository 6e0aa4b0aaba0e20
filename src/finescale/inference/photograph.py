"""The photograph beside this file (Grace Hopper by James S. Davis, US Navy, public domain): what networks are tried on.

It is the same on every machine and for every user's picture.
"""

from pathlib import Path

import numpy as np

from finescale.images.files import read
from finescale.inference.tiling import Array, to_unit

PHOTOGRAPH = Path(__file__).with_name("photograph.png")


def photograph(multiple: int = 1) -> Array:
    """The photograph as (1, 3, H, W) float32 in [0, 1], up to 225 x 192, its sides multiples of `multiple`."""
    return _cut(to_unit(read(PHOTOGRAPH).pixels).transpose(2, 0, 1)[None], multiple)


def samples(multiple: int = 1) -> list[Array]:
    """Parts of the photograph, up to 144 x 96, one with hard contrast and one as a negative."""
    x = photograph()[..., :144, :]
    hard = np.clip((x - 0.5) * 4 + 0.5, 0, 1)
    return [_cut(part, multiple) for part in (x[..., :96], x[..., 96:], hard[..., 48:144], 1 - x[..., 48:144])]


def _cut(x: Array, multiple: int) -> Array:
    height, width = (side // multiple * multiple for side in x.shape[2:])
    return np.ascontiguousarray(x[..., :height, :width])
