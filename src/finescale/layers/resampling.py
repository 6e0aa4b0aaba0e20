"""Bicubic resampling of float tensors: Keys' kernel, the sample weights along an axis, and enlargement by 2, 3 or 4.

`finescale.images.resize` makes MATLAB's exact 8-bit resize of these.
"""

import math
from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Border = Literal["replicate", "mirror"]


def cubic(x: Tensor) -> Tensor:
    """Keys' cubic convolution kernel with a = -0.5 (IEEE Trans. ASSP 29(6), 1981, equation 15)."""
    x = x.abs()
    x2, x3 = x * x, x * x * x
    near = 1.5 * x3 - 2.5 * x2 + 1
    far = -0.5 * x3 + 2.5 * x2 - 4 * x + 2
    return torch.where(x <= 1, near, torch.where(x <= 2, far, torch.zeros_like(x)))


@lru_cache(maxsize=16)  # each takes a few hundred bytes for every sample of the target
@torch.inference_mode(False)  # what is kept is used in training, too
def contributions(size: int, target: int, scale: float, border: Border) -> tuple[Tensor, Tensor]:
    """Which input samples make each output sample, and with which weights, along one axis.

    Args:
        size: input samples.
        target: output samples.
        scale: target / size, or the exact ratio that the caller means.
        border: what stands for samples outside the picture: the nearest edge sample, or the mirror image.

    Returns:
        Indices (target, taps) int64 and weights (target, taps) float64, on the CPU.
    """
    shrink = min(scale, 1.0)
    support = 4.0 / shrink
    sample = torch.arange(1, target + 1, dtype=torch.float64, device="cpu")
    centre = sample / scale + 0.5 * (1 - 1 / scale)
    left = torch.floor(centre - support / 2)
    taps = math.ceil(support) + 2
    index = left[:, None] + torch.arange(taps, dtype=torch.float64, device="cpu")
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


class BicubicEnlargement(nn.Module):
    """Bicubic enlargement by a whole factor; (B, C, H, W) float -> (B, C, sH, sW), edges replicated.

    Equal to `finescale.images.resize.resize` of a float picture up to rounding, but as one small convolution with fixed
    weights, so that it exports and compiles for free height and width. It has no parameters and adds nothing to a state
    dict.

    Args:
        scale: s, a whole number.
    """

    kernel: Tensor  # (s^2, 1, 5, 5): for every output of one input sample, the weights of the 5 x 5 around that

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale
        size, middle = 9, 4  # of a line long enough for its middle sample not to meet an edge
        index, weight = contributions(size, size * scale, float(scale), "replicate")
        mine = slice(middle * scale, (middle + 1) * scale)
        line = torch.zeros(scale, 5, dtype=torch.float64, device="cpu")
        line.scatter_add_(1, (index[mine] - middle + 2).clamp(0, 4), weight[mine])  # samples beyond have weight 0
        kernel = torch.einsum("ai,bj->abij", line, line).reshape(scale**2, 1, 5, 5)
        self.register_buffer("kernel", kernel.float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        kind = x.device.type
        if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
            with torch.autocast(kind, enabled=False):  # 8 bits of mantissa are too few for a picture
                return self(x)
        batch, channels, height, width = x.shape
        x = F.pad(x.reshape(batch * channels, 1, height, width), (2, 2, 2, 2), mode="replicate")
        x = F.pixel_shuffle(F.conv2d(x, self.kernel.to(x.device, x.dtype)), self.scale)
        return x.reshape(batch, channels, self.scale * height, self.scale * width)
