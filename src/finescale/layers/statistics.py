"""Layers that look at the whole feature map, and the local windows that replace the whole at inference.

Channel attention averages over the picture, instance norm normalises over it, self-attention looks across it. Trained
on small crops and run on a whole photograph they meet other statistics than in training (arXiv 2112.04491), and run
tile by tile they leave seams. Every such layer here has a `window`: None (the whole feature map, as in training) or
the side, in this layer's own positions, of the square it looks at around each position.

Windows are aligned to a grid that starts at the first row and column, so a tile whose corner lies on a multiple of the
grid meets the same windows as the whole picture does.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

T = TypeVar("T")
_SHARED: ContextVar[dict[object, Any] | None] = ContextVar("shared", default=None)


@contextmanager
def sharing() -> Iterator[None]:
    """Within it, what depends on sizes alone is computed once for all layers: a network has a hundred of them.

    Translators, too, write it down once. `torch.compile` knows no context variables, and finds common parts by itself.
    """
    if torch.compiler.is_compiling():
        yield
        return
    token = _SHARED.set({})
    try:
        yield
    finally:
        _SHARED.reset(token)


def shared(key: object, make: Callable[[], T]) -> T:
    """What `make` gives, of the first layer that asked for it by this key within `sharing`."""
    table = None if torch.compiler.is_compiling() else _SHARED.get()
    if table is None:
        return make()
    if key not in table:
        table[key] = make()
    made: T = table[key]
    return made


class StatisticsLayer(nn.Module):
    """Base of the layers that use statistics of the feature map; `window` is None (global) or a side >= 1.

    `stride` is how many pixels of the network's input one position of this layer stands for; a network whose layers
    work at several resolutions sets it, so that one window in pixels can be given to all (`localise`). Layers that
    average squares of positions before anything else have their side as `query_pool`.
    """

    window: int | None = None
    stride: int = 1
    query_pool: int = 1

    def grid(self) -> int:
        """How far apart, in input pixels, the squares begin that positions look at together, with the window it has."""
        return self.stride * (1 if self.window is None else cell_size(self.window))


def localise(network: nn.Module, window: int | None) -> None:
    """Gives every statistics layer in `network` the window of `window` input pixels, or the whole map (None)."""
    for module in network.modules():
        if isinstance(module, StatisticsLayer):
            module.window = None if window is None else max(1, window // module.stride)


def alignment(network: nn.Module) -> int:
    """Pictures whose sides are multiples of this need no padding and no cropping for the statistics.

    Translated for such sizes only, a network does without these copies of whole feature maps.
    """
    sides = [1]
    for module in network.modules():
        if isinstance(module, StatisticsLayer):
            cell = 1 if module.window is None else cell_size(module.window)
            sides += [module.stride * cell, module.stride * module.query_pool]
    return math.lcm(*sides)


def cell_size(window: int) -> int:
    """Side of the cells that `window_means` averages first: the largest power of two up to an eighth of the window."""
    return 1 << max(0, (window // 8).bit_length() - 1)


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
    n = -(-window // g)
    n += 1 - n % 2
    squares = (((n, 1), (n // 2, 0)), ((1, n), (0, n // 2)))  # kernel and padding: by rows, then by columns
    total = _cells(x, g)
    if x.shape[2] % g == 0 and x.shape[3] % g == 0:  # every cell is full, so all inside the picture count the same
        for kernel, padding in squares:
            total = F.avg_pool2d(total, kernel, 1, padding, count_include_pad=False)
        return total
    inside = _cells(torch.ones_like(x[:1, :1]), g)
    for kernel, padding in squares:
        total = F.avg_pool2d(total, kernel, 1, padding)
        inside = F.avg_pool2d(inside, kernel, 1, padding)
    return total / inside


def cell_means(x: Tensor, g: int) -> Tensor:
    """Means over cells of g x g positions, (B, C, ceil(H / g), ceil(W / g)); the last ones over what is inside `x`."""
    means = _cells(x, g)
    if x.shape[2] % g == 0 and x.shape[3] % g == 0:
        return means
    return means / _cells(torch.ones_like(x[:1, :1]), g)


def _cells(x: Tensor, g: int) -> Tensor:
    """Sums over cells of g x g positions, divided by g^2 even where the cell is partly outside."""
    if g == 1:
        return x
    height, width = x.shape[2:]
    missing = (height + g - 1) // g * g - height, (width + g - 1) // g * g - width  # no negative numbers: for exporters
    if missing[0] != 0 or missing[1] != 0:
        x = F.pad(x, (0, missing[1], 0, missing[0]))
    return F.avg_pool2d(x, g)


def upsample_cells(cells: Tensor, window: int, height: int, width: int) -> Tensor:
    """Bilinear enlargement of a grid of `window_means` back to (B, C, height, width), aligned with it."""
    g = cell_size(window)
    if g > 1:
        cells = F.interpolate(cells, scale_factor=g, mode="bilinear", align_corners=False)
    return crop(cells, height, width)


def crop(x: Tensor, height: int, width: int) -> Tensor:
    """(B, C, H, W) -> (B, C, height, width), the upper left; `x` itself where that is all of it."""
    return x if x.shape[2] == height and x.shape[3] == width else x[..., :height, :width]
