"""MATLAB's `imresize(..., 'bicubic')`, to the last bit, on any torch device.

Keys' cubic kernel (a = -0.5), stretched by the scale when shrinking (antialiasing), weights normalised per output
sample; rows first, then columns; 8-bit pictures are rounded half up and clipped after each of the two passes. The
published low-resolution files of super-resolution benchmarks were made so.
"""

import math
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

Border = Literal["replicate", "mirror"]


def cubic(x: Tensor) -> Tensor:
    """Keys' cubic convolution kernel with a = -0.5 (IEEE Trans. ASSP 29(6), 1981, equation 15)."""
    x = x.abs()
    x2, x3 = x * x, x * x * x
    near = 1.5 * x3 - 2.5 * x2 + 1
    far = -0.5 * x3 + 2.5 * x2 - 4 * x + 2
    return torch.where(x <= 1, near, torch.where(x <= 2, far, torch.zeros_like(x)))


@lru_cache(maxsize=256)
def contributions(
    size: int, target: int, scale: float, border: Border, first: int = 0, count: int | None = None
) -> tuple[Tensor, Tensor]:
    """Which input samples make each output sample, and with which weights, along one axis.

    Args:
        size: input samples.
        target: output samples.
        scale: target / size, or the exact ratio that the caller means.
        border: what stands for samples outside the picture: the nearest edge sample, or the mirror image.
        first, count: only the output samples [first, first + count), for work by strips.

    Returns:
        Indices (count, taps) int64 and weights (count, taps) float64, on the CPU.
    """
    shrink = min(scale, 1.0)
    support = 4.0 / shrink
    count = target - first if count is None else count
    sample = torch.arange(first + 1, first + count + 1, dtype=torch.float64)
    centre = sample / scale + 0.5 * (1 - 1 / scale)
    left = torch.floor(centre - support / 2)
    taps = math.ceil(support) + 2
    index = left[:, None] + torch.arange(taps, dtype=torch.float64)
    weight = shrink * cubic(shrink * (centre[:, None] - index))
    weight = weight / weight.sum(1, keepdim=True)
    index = index.long() - 1
    if border == "replicate":
        index = index.clamp(0, size - 1)
    else:
        index = index % (2 * size)
        index = torch.where(index < size, index, 2 * size - 1 - index)
    used = (weight != 0).any(0)
    return index[:, used], weight[:, used]


def resample(x: Tensor, axis: int, index: Tensor, weight: Tensor) -> Tensor:
    """Weighted sums of samples of a float tensor along `axis`; index and weight as `contributions` gives them."""
    index = index.to(x.device)
    weight = weight.to(x.device, x.dtype)
    shape = [1] * x.ndim
    shape[axis] = -1
    total: Tensor | None = None
    for tap in range(index.shape[1]):
        part = x.index_select(axis, index[:, tap]) * weight[:, tap].reshape(shape)
        total = part if total is None else total.add_(part)
    assert total is not None
    return total


def resize(
    x: Tensor,
    size: tuple[int, int] | None = None,
    *,
    scale: float | None = None,
    border: Border = "replicate",
) -> Tensor:
    """Resizes pictures bicubically as MATLAB's imresize does.

    Args:
        x: (..., H, W): uint8 or uint16 (rounded half up and clipped after each pass, as MATLAB does), or float (no
            rounding, no clipping; computed in its own precision). One picture or a batch, on any device.
        size: (height, width) of the result; give this or `scale`.
        scale: factor for both axes; the result has ceil(scale * size) samples.
        border: "replicate" (the common benchmark collections) or "mirror" (present-day MATLAB).

    Returns:
        The resized pictures, same type and device.
    """
    if (size is None) == (scale is None):
        raise ValueError("give either a size or a scale")
    height, width = x.shape[-2:]
    if size is None:
        assert scale is not None
        if not scale > 0:
            raise ValueError(f"scale must be above 0, not {scale}")
        size = (math.ceil(scale * height - 1e-9), math.ceil(scale * width - 1e-9))
        ratios = (scale, scale)
    else:
        ratios = (size[0] / height, size[1] / width)
    if min(size) < 1:
        raise ValueError(f"the result would have size {size[1]} x {size[0]}")
    integer = not x.is_floating_point()
    limit = {torch.uint8: 255, torch.uint16: 65535}.get(x.dtype) if integer else None
    if integer and limit is None:
        raise ValueError(f"pictures are uint8, uint16 or float, not {x.dtype}")
    y = x.to(torch.float64) if integer else x
    axes = sorted((0, 1), key=lambda a: ratios[a])  # MATLAB shrinks most first; equal ratios: rows, then columns
    for a in axes:
        index, weight = contributions((height, width)[a], size[a], ratios[a], border)
        y = resample(y, a - 2, index, weight)
        if limit is not None:
            y = y.add_(0.5).floor_().clamp_(0, limit)
    return y.to(x.dtype)
