"""Layers that look at the whole feature map, and the local windows that replace the whole at inference.

Channel attention averages over the picture, instance norm normalises over it, self-attention looks across it. Trained
on small crops and run on a whole photograph they meet other statistics than in training (arXiv 2112.04491), and run
tile by tile they leave seams. Every such layer here has a `window`: None (the whole feature map, as in training) or
the side, in this layer's own positions, of the square it looks at around each position.

Windows are aligned to a grid that starts at the first row and column, so a tile whose corner lies on a multiple of the
grid meets the same windows as the whole picture does.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class StatisticsLayer(nn.Module):
    """Base of the layers that use statistics of the feature map; `window` is None (global) or a side >= 1."""

    window: int | None = None


def cell_size(window: int) -> int:
    """Side of the cells that `window_means` averages first: the largest power of two up to an eighth of the window."""
    return 1 << max(0, (window // 8).bit_length() - 1) if window >= 8 else 1


def window_means(x: Tensor, window: int) -> Tensor:
    """Means over a square of about `window` positions around every cell of a coarse grid.

    Args:
        x: (B, C, H, W), any float type.
        window: side of the square, in positions of `x`.

    Returns:
        (B, C, ceil(H / g), ceil(W / g)) with g = `cell_size(window)`. Positions outside `x` do not count: near a border
        the mean is over the part of the square that is inside. The square covers an odd number of cells, n = window / g
        rounded up to odd.
    """
    g = cell_size(window)
    height, width = x.shape[-2:]
    n = -(-window // g)
    n += 1 - n % 2
    padded = F.pad(x, (0, -width % g, 0, -height % g))
    cells = F.avg_pool2d(padded, g) if g > 1 else padded  # partial cells count the padding; `share` undoes it
    share = _inside_share(height, g, n, x)[:, None] * _inside_share(width, g, n, x)[None, :]
    box = cells
    for axis in (-2, -1):
        box = _box(box, n, axis)
    return box / (share * n * n)


def _inside_share(size: int, g: int, n: int, like: Tensor) -> Tensor:
    """For every cell along one axis: the share of its n-cell neighbourhood that lies inside the feature map."""
    cells = -(-size // g)
    filled = torch.ones(cells, dtype=torch.float32, device=like.device)
    filled[-1] = (size - (cells - 1) * g) / g
    return (_box(filled[None], n, -1)[0] / n).to(like.dtype)


def _box(x: Tensor, n: int, axis: int) -> Tensor:
    """Sum over n (odd) neighbours along an axis, zeros outside."""
    size = x.shape[axis]
    pad = [0, 0, n // 2, n // 2] if axis == -2 else [n // 2, n // 2]
    padded = F.pad(x, pad)
    total = padded.narrow(axis, 0, size)
    for i in range(1, n):
        total = total + padded.narrow(axis, i, size)
    return total


def spread(cells: Tensor, window: int, height: int, width: int) -> Tensor:
    """Bilinear enlargement of a grid of `window_means` back to (B, C, height, width), aligned with it."""
    g = cell_size(window)
    if g > 1:
        cells = F.interpolate(cells, scale_factor=g, mode="bilinear", align_corners=False)
    return cells[..., :height, :width]
