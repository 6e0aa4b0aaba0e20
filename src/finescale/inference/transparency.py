"""Enlarging pictures with transparency without fringes."""

import numpy as np

from finescale.inference.tiling import Array


def bleed(pixels: Array, alpha: Array) -> Array:
    """Gives invisible pixels the colour of the nearest visible ones, so that enlarging mixes in no foreign colour.

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
    filled[hidden] = np.rint(_fill(pixels.astype(np.float32), seen.astype(np.float32))[hidden]).astype(pixels.dtype)
    return filled


def _fill(colour: Array, weight: Array) -> Array:
    """Means of ever larger squares: (H, W, C) colours where `weight` is above 0, elsewhere those of half the size."""
    if weight.all():
        return colour
    height, width = weight.shape
    even = ((0, height % 2), (0, width % 2))
    w = np.pad(weight, even).reshape(-(-height // 2), 2, -(-width // 2), 2)
    c = np.pad(colour, (*even, (0, 0))).reshape(*w.shape, -1)
    half = w.sum((1, 3))
    mean = (c * w[..., None]).sum((1, 3)) / np.maximum(half, 1e-6)[..., None]
    coarse = _fill(mean, (half > 0).astype(np.float32)).repeat(2, 0).repeat(2, 1)[:height, :width]
    return np.where(weight[..., None] > 0, colour, coarse)


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
