"""MATLAB's `imresize(..., 'bicubic')`, to the last bit.

Keys' cubic kernel (a = -0.5), stretched by the scale when shrinking (antialiasing), weights normalised per output
sample; rows first, then columns; 8-bit pictures are rounded half up and clipped after each of the two passes. The
published low-resolution files of super-resolution benchmarks were made so.

Pictures are resized piece by piece, each small enough for a core's cache: the same bits, faster, and without the whole
picture in double precision. Torch, which takes two seconds to import, is left to those who have tensors.
"""

import math
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from finescale.errors import UsageError, check_known
from finescale.layers.bicubic import Border, contributions

if TYPE_CHECKING:
    from torch import Tensor

_Pictures = TypeVar("_Pictures", NDArray[Any], "Tensor")

SIDE = 256  # of a piece: samples along an axis, of the input or of the output, whichever are more


def resize(
    x: _Pictures,
    size: tuple[int, int] | None = None,
    *,
    scale: float | None = None,
    border: Border = "replicate",
) -> _Pictures:
    """Resizes pictures bicubically as MATLAB's imresize does.

    Args:
        x: (..., H, W), an array or a tensor: uint8 or uint16 (rounded half up and clipped after each pass, as MATLAB
            does), or a float that numpy has (no rounding, no clipping). One picture or a batch.
        size: (height, width) of the result; give this or `scale`.
        scale: factor for both axes; the result has ceil(scale * size) samples.
        border: "replicate" (the common benchmark collections) or "mirror" (present-day MATLAB).

    Returns:
        The resized pictures, same type and device; computed on the CPU in double precision. Of a tensor that requires
        a gradient, the same with one: computed on its device.

    Raises:
        ValueError: no planes, not exactly one of size and scale, a scale not above 0, a result without pixels, samples
            of another type, or an unknown border.
    """
    _check_planes(x)
    how: Resizing = Resizing((x.shape[-2], x.shape[-1]), size, scale=scale, border=border)
    if not isinstance(x, np.ndarray) and x.requires_grad:
        return _with_gradient(x, how)
    samples: NDArray[Any] = x if isinstance(x, np.ndarray) else x.cpu().numpy()
    limit = {"uint8": 255, "uint16": 65535}.get(samples.dtype.name)
    if limit is None and samples.dtype.kind != "f":
        raise ValueError(f"pictures are uint8, uint16 or float, not {x.dtype}")
    planes = samples.reshape(math.prod(x.shape[:-2]), *how.shape)
    results = np.empty((len(planes), *how.size), planes.dtype)

    def work(piece: Piece) -> None:
        for plane, result in zip(planes, results):
            result[piece.target] = piece.of(plane[piece.source], limit)

    how.each(work)
    results = results.reshape(*x.shape[:-2], *how.size)
    if isinstance(x, np.ndarray):
        return results
    import torch

    return torch.from_numpy(results).to(x.device)


def _check_planes(x: Any) -> None:
    """Refuses images of Pillow, and pictures whose colours come last: their width and colours would be resized.

    Planes as narrow as that are taken where there are no more of them than a picture has, or where they are small too.
    """
    shape = tuple(getattr(x, "shape", ()))
    if len(shape) < 2:
        raise UsageError(
            f"planes (..., H, W) are resized, arrays or tensors, not {type(x).__name__}"
            f"{f' of shape {shape}' if shape else ''}; of a Pillow image, numpy.asarray(image).transpose(2, 0, 1)"
        )
    if shape[-1] <= 4 < min(shape[-3:-1]) and len(shape) > 2:
        raise UsageError(
            f"planes (..., H, W) are resized, such as the three of a picture (3, H, W), not {shape}: the colours come"
            " first, as by x.transpose(2, 0, 1) of a numpy array or x.movedim(-1, -3) of a tensor"
        )


def _with_gradient(x: "Tensor", how: "Resizing") -> "Tensor":
    """As `resize`, of float32 and float64 to the last bit, by operations of torch."""
    import torch

    y = x.to(torch.float32 if x.device.type == "mps" else torch.float64)  # GPUs of Macs have no other
    for axis in how.axes:
        index, weight = contributions(how.shape[axis], how.size[axis], how.ratios[axis], how.border)
        taps = (
            y.index_select(axis - 2, torch.tensor(places, device=y.device))
            * torch.tensor(shares, dtype=y.dtype, device=y.device).reshape((-1, 1) if axis == 0 else (-1,))
            for places, shares in zip(index.T, weight.T)
        )
        y = reduce(add, taps)  # from the first to the last: another order has other last digits
    return y.to(x.dtype)


@dataclass(frozen=True)
class _Part:
    """Neighbouring output samples along one axis.

    Attributes:
        target: which they are.
        source: the input samples that make them.
        index, weight: (count, taps), as `contributions` gives them; indices count from the first of `source`.
    """

    target: slice
    source: slice
    index: NDArray[np.int64]
    weight: NDArray[np.float64]

    def of(self, x: NDArray[Any]) -> NDArray[np.float64]:
        """Weighted sums of the rows of `x`, (samples of `source`, n), from the first tap to the last."""
        total, part = np.empty((2, len(self.index), x.shape[1]))
        taken = np.empty(part.shape, x.dtype)
        for tap in range(self.index.shape[1]):
            np.take(x, self.index[:, tap], 0, out=taken, mode="clip")  # the other modes copy once more
            np.multiply(taken, self.weight[:, tap, None], out=part if tap else total)
            if tap:
                total += part
        return total


@dataclass(frozen=True)
class Piece:
    """A rectangle of a result.

    Attributes:
        target: where it stands, rows and columns.
        source: where the samples stand that it is made of.
    """

    target: tuple[slice, slice]
    source: tuple[slice, slice]
    _passes: tuple[tuple[int, _Part], ...]

    def of(self, x: NDArray[Any], limit: int | None = None) -> NDArray[np.float64]:
        """Its samples, made of those of `source`, (h, w); with a limit rounded and clipped after each pass."""
        for axis, part in self._passes:
            y = part.of(np.ascontiguousarray(x.swapaxes(0, axis)))
            if limit is not None:
                y += 0.5
                np.floor(y, out=y)
                np.clip(y, 0, limit, out=y)
            x = y.swapaxes(0, axis)
        return x


class Resizing:
    """How pictures of one size become pictures of another.

    Args:
        shape: (height, width) of the pictures.
        size, scale, border: as `resize` takes them.

    Attributes:
        size: (height, width) of the results.
        axes: in the order of the passes.

    Raises:
        ValueError: not exactly one of size and scale, a scale not above 0, a result without pixels, or an
            unknown border.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        size: tuple[int, int] | None = None,
        *,
        scale: float | None = None,
        border: Border = "replicate",
    ) -> None:
        check_known("border", border, get_args(Border))
        if (size is None) == (scale is None):
            raise ValueError("give either a size or a scale")
        if size is None:
            assert scale is not None
            if not scale > 0:
                raise ValueError(f"scale must be above 0, not {scale}")
            size = (math.ceil(scale * shape[0] - 1e-9), math.ceil(scale * shape[1] - 1e-9))
            ratios = (scale, scale)
        else:
            ratios = (size[0] / shape[0], size[1] / shape[1])
        if min(size) < 1:
            raise ValueError(f"the result would have size {size[1]} x {size[0]}")
        self.shape, self.size, self.ratios, self.border = shape, size, ratios, border
        # MATLAB shrinks most first; equal ratios: rows, then columns
        self.axes = sorted((0, 1), key=lambda axis: ratios[axis])

    def pieces(self) -> list[Piece]:
        """The result, cut up."""
        rows, columns = self._parts(0), self._parts(1)
        return [
            Piece((r.target, c.target), (r.source, c.source), tuple((axis, (r, c)[axis]) for axis in self.axes))
            for r in rows
            for c in columns
        ]

    def each(self, work: Callable[[Piece], None]) -> None:
        """Does a work for every piece, some at once."""
        pieces = self.pieces()
        if len(pieces) == 1:
            work(pieces[0])
            return
        count = getattr(sys.modules.get("torch"), "get_num_threads", os.cpu_count)  # torch's is what a person chose
        with ThreadPoolExecutor(min(count() or 1, 8)) as pool:
            for _ in pool.map(work, pieces):
                pass

    def _parts(self, axis: int) -> list[_Part]:
        index, weight = contributions(self.shape[axis], self.size[axis], self.ratios[axis], self.border)
        step = max(int(SIDE * min(self.ratios[axis], 1)), SIDE // 16)  # not fewer, as each takes a margin of 4
        parts = []
        for first in range(0, self.size[axis], step):
            mine = slice(first, min(first + step, self.size[axis]))
            start, stop = int(index[mine].min()), int(index[mine].max()) + 1
            parts.append(_Part(mine, slice(start, stop), index[mine] - start, weight[mine]))
        return parts
