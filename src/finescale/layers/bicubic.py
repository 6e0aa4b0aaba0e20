"""MATLAB's bicubic in numbers, without torch: Keys' kernel, and the weights of samples along an axis."""

import math
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Border = Literal["replicate", "mirror"]


def cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' cubic convolution kernel with a = -0.5 (IEEE Trans. ASSP 29(6), 1981, equation 15)."""
    x = np.abs(x)
    x2, x3 = x * x, x * x * x
    near = 1.5 * x3 - 2.5 * x2 + 1
    far = -0.5 * x3 + 2.5 * x2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0))


@lru_cache(maxsize=16)  # each takes a few hundred bytes for every sample of the target
def contributions(
    size: int, target: int, scale: float, border: Border
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Which input samples make each output sample, and with which weights, along one axis.

    Args:
        size: input samples.
        target: output samples.
        scale: target / size, or the exact ratio that the caller means.
        border: what stands for samples outside the picture: the nearest edge sample, or the mirror image.

    Returns:
        Indices and weights, (target, taps) each.
    """
    shrink = min(scale, 1.0)
    support = 4.0 / shrink
    centre = np.arange(1.0, target + 1) / scale + 0.5 * (1 - 1 / scale)
    left = np.floor(centre - support / 2)
    index = left[:, None] + np.arange(math.ceil(support) + 2)
    weight = shrink * cubic(shrink * (centre[:, None] - index))
    weight /= weight.sum(1, keepdims=True)
    index = index.astype(np.int64) - 1
    if border == "replicate":
        index = index.clip(0, size - 1)
    else:
        index %= 2 * size
        index = np.where(index < size, index, 2 * size - 1 - index)
    used = (weight != 0).any(0)
    return index[:, used], weight[:, used]
