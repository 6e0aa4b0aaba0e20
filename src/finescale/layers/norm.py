"""Normalisation by name."""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from finescale.errors import check_known
from finescale.layers.spectral import spectral_norm
from finescale.layers.statistics import StatisticsLayer, upsample_cells, window_means

Norm = Literal["batch", "instance", "spectral", "none"]
NORMS = get_args(Norm)


class InstanceNorm(StatisticsLayer):
    """Instance normalisation with a learned scale and shift (arXiv 1607.08022); (B, C, H, W) -> same.

    As `nn.InstanceNorm2d(channels, affine=True)`, parameters named alike, but of any size down to 1 x 1 (where only the
    shift is left); statistics are computed in float32. With a `window`, mean and variance are those of the square
    around each position.
    """

    def __init__(self, channels: int, *, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        if self.window is None:
            variance, mean = torch.var_mean(wide, (2, 3), correction=0, keepdim=True)
        else:
            size = x.shape[2:]
            wide = wide - wide.mean((2, 3), keepdim=True)  # a difference of large squares is little but rounding
            mean = window_means(wide, self.window)
            variance = (window_means(wide.square(), self.window) - mean.square()).clamp(min=0)
            mean, variance = upsample_cells(mean, self.window, *size), upsample_cells(variance, self.window, *size)
        y = (wide - mean) * torch.rsqrt(variance + self.eps)
        return (y * self.weight.float()[:, None, None] + self.bias.float()[:, None, None]).to(x.dtype)


def normalised(convolution: nn.Conv2d, norm: Norm) -> list[nn.Module]:
    """The convolution followed, or constrained, by a norm.

    Args:
        convolution: whose outputs are to be normalised.
        norm: "batch" (arXiv 1502.03167), "instance" (arXiv 1607.08022, affine), "spectral" (the weight divided by its
            largest singular value, arXiv 1802.05957) or "none".

    Raises:
        UsageError: unknown name.
    """
    check_known("norm", norm, NORMS)
    if norm == "batch":
        return [convolution, nn.BatchNorm2d(convolution.out_channels)]
    if norm == "instance":
        return [convolution, InstanceNorm(convolution.out_channels)]
    if norm == "spectral":
        return [spectral_norm(convolution)]
    return [convolution]
