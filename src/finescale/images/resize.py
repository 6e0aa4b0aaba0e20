"""MATLAB's `imresize(..., 'bicubic')`, to the last bit, on any torch device.

Keys' cubic kernel (a = -0.5), stretched by the scale when shrinking (antialiasing), weights normalised per output
sample; rows first, then columns; 8-bit pictures are rounded half up and clipped after each of the two passes. The
published low-resolution files of super-resolution benchmarks were made so.
"""

import math

import torch
from torch import Tensor

from finescale.layers.resampling import Border, contributions, resample

__all__ = ["Border", "contributions", "resample", "resize"]


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
