"""Enlarging pictures with transparency without fringes."""

import numpy as np

from finescale.inference.tiling import Array

_CELL = 16  # pixels of the largest squares; their grid meets that of strips, which begin at multiples of 48
_SPREAD = 6  # such squares around them, at most, that take their colour
REACH = _CELL * (_SPREAD + 3)
"""Rows around a pixel of which its colour may be made; a multiple of 48."""


def bleed(pixels: Array, alpha: Array) -> Array:
    """Gives invisible pixels the colour of near visible ones, so that enlarging mixes in no foreign colour.

    What lies farther than `REACH` from all visible pixels becomes grey, so that the rows of a strip with so many
    around them are filled as in the whole picture; with nothing visible in all of them they keep their colours.

    Args:
        pixels: (H, W, C) integers.
        alpha: (H, W); the colour where it is 0 is replaced.

    Returns:
        A new array of the same type; `pixels` itself where nothing or everything is invisible.
    """
    seen = alpha > 0
    if seen.all() or not seen.any():
        return pixels
    filled = pixels.copy()
    hidden = ~seen
    grey = np.float32(np.iinfo(pixels.dtype).max / 2)
    colours = _fill(pixels.astype(np.float32), seen.astype(np.float32), 1, grey)
    filled[hidden] = np.rint(colours[hidden]).astype(pixels.dtype)
    return filled


def _fill(colour: Array, weight: Array, side: int, grey: np.float32) -> Array:
    """Means of ever larger squares: (H, W, C) colours where `weight` is above 0, elsewhere those of half the size.

    Args:
        colour, weight: of squares of `side` pixels.
        side: 1, 2, 4, ...
        grey: what is beyond the reach of the largest squares.
    """
    if weight.all():
        return colour
    if side == _CELL:
        return _spread(colour, weight, grey)
    height, width = weight.shape
    even = ((0, height % 2), (0, width % 2))
    w = np.pad(weight, even).reshape(-(-height // 2), 2, -(-width // 2), 2)
    c = np.pad(colour, (*even, (0, 0))).reshape(*w.shape, -1)
    half = w.sum((1, 3))
    mean = (c * w[..., None]).sum((1, 3)) / np.maximum(half, 1e-6)[..., None]
    coarse = _fill(mean, (half > 0).astype(np.float32), 2 * side, grey).repeat(2, 0).repeat(2, 1)[:height, :width]
    return np.where(weight[..., None] > 0, colour, coarse)


def _spread(colour: Array, weight: Array, grey: np.float32) -> Array:
    """Each square takes the mean of those around it that have a colour, some times over; (H, W, C) -> same."""
    height, width = weight.shape
    for _ in range(_SPREAD):
        if weight.all():
            return colour
        around = np.pad(np.dstack([colour * weight[..., None], weight]), ((1, 1), (1, 1), (0, 0)))
        total = sum(around[i : i + height, j : j + width] for i in range(3) for j in range(3))
        assert isinstance(total, np.ndarray)
        mean = total[..., :-1] / np.maximum(total[..., -1:], 1)
        colour = np.where(weight[..., None] > 0, colour, mean)
        weight = (total[..., -1] > 0).astype(np.float32)
    return np.where(weight[..., None] > 0, colour, grey)


def within_neighbours(large: Array, small: Array, first: int = 0) -> Array:
    """Clips an enlarged plane to the range of the 3 x 3 pixels around each of its sources.

    What is fully opaque or fully clear stays exactly so, and sharp edges get no rim.

    Args:
        large: (s rows, s W): some rows of the enlarged plane, or all.
        small: (H, W), same type.
        first: the row of `small` with which `large` begins.
    """
    height, width = small.shape
    scale = large.shape[1] // width
    rows = slice(first, first + large.shape[0] // scale)
    padded = np.pad(small, 1, mode="edge")
    around = [padded[i : i + height, j : j + width][rows] for i in range(3) for j in range(3)]
    low, high = around[0].copy(), around[0].copy()
    for plane in around[1:]:
        np.minimum(low, plane, out=low)
        np.maximum(high, plane, out=high)
    return np.clip(large, low.repeat(scale, 0).repeat(scale, 1), high.repeat(scale, 0).repeat(scale, 1))
