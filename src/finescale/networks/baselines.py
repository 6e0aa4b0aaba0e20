"""Networks to compare with: bicubic enlargement, SRCNN and EDSR."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from finescale.layers.activation import activation as make_activation
from finescale.layers.resampling import BicubicEnlargement
from finescale.layers.upsampling import SubPixelUpsampler
from finescale.networks.arguments import ActivationName, Count, OddCount, Positive
from finescale.networks.base import DIV2K_MEAN, MeanShift, Network


class Bicubic(Network):
    """Bicubic enlargement as MATLAB's imresize of a float picture; nothing to train.

    Args:
        scale: 2, 3 or 4.
    """

    def __init__(self, *, scale: int) -> None:
        super().__init__(scale=scale)
        self.bicubic = BicubicEnlargement(scale)

    def enlarge(self, x: Tensor) -> Tensor:
        return self.bicubic(x)


class SRCNN(Network):
    """SRCNN (arXiv 1501.00092): bicubic enlargement, then three convolutions on its luma; colour stays bicubic.

    Edges are replicated, so that the size stays.

    Args:
        scale: 2, 3 or 4.
        channels: of the two hidden layers.
        kernels: of the three convolutions, odd; 9-5-5 is the paper's largest, with 57 k parameters.
        activation: by name, see `finescale.layers.activation`; the paper's is ReLU.
    """

    _LUMA = (65.481 / 255, 128.553 / 255, 24.966 / 255)  # ITU-R BT.601, as the benchmarks' Y
    _RANGE = 219 / 255  # of luma between black and white

    def __init__(
        self,
        *,
        scale: int,
        channels: tuple[Count, Count] = (64, 32),
        kernels: tuple[OddCount, OddCount, OddCount] = (9, 5, 5),
        activation: ActivationName = "relu",
    ) -> None:
        super().__init__(scale=scale)
        self.bicubic = BicubicEnlargement(scale)
        widths = pairwise((1, *channels, 1))
        self.layers = nn.ModuleList(
            nn.Conv2d(a, b, k, padding=k // 2, padding_mode="replicate") for (a, b), k in zip(widths, kernels)
        )
        self.activations = nn.ModuleList(make_activation(activation, channels=width) for width in channels)

    def enlarge(self, x: Tensor) -> Tensor:
        picture = self.bicubic(x)
        weights = torch.tensor(self._LUMA, dtype=x.dtype, device=x.device).reshape(1, 3, 1, 1)
        luma = (picture * weights).sum(1, keepdim=True) + 16 / 255
        y = luma
        for layer, activation in zip(self.layers, self.activations):  # the last layer has none
            y = activation(layer(y))
        y = self.layers[-1](y)
        return picture + (y - luma) / self._RANGE  # more luma at the same colour is as much more of R, G and B


class _Residual(nn.Module):
    """Convolution, activation, convolution, times `factor`, + input; (B, C, H, W) -> same."""

    def __init__(self, channels: int, activation: str, factor: float) -> None:
        super().__init__()
        self.factor = factor
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            make_activation(activation, channels=channels),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) * self.factor


class EDSR(Network):
    """EDSR (arXiv 1707.02921), parameters named and shaped as in the authors' files.

    Args:
        scale: 2, 3 or 4.
        channels: width of the features; 64 in the baseline, 256 in the full network.
        blocks: residual blocks; 16, 32.
        residual_factor: what a block adds is multiplied by it; 1, 0.1.
        activation: by name, see `finescale.layers.activation`.
        value_range: the inner range of values: 1, or 255 as in the authors' files.
    """

    def __init__(
        self,
        *,
        scale: int,
        channels: Count = 64,
        blocks: Count = 16,
        residual_factor: float = 1.0,
        activation: ActivationName = "relu",
        value_range: Positive = 1.0,
    ) -> None:
        super().__init__(scale=scale)
        self.value_range = value_range
        self.sub_mean = MeanShift(DIV2K_MEAN, value_range, -1)
        self.add_mean = MeanShift(DIV2K_MEAN, value_range, +1)
        self.head = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1))
        self.body = nn.Sequential(
            *[_Residual(channels, activation, residual_factor) for _ in range(blocks)],
            nn.Conv2d(channels, channels, 3, padding=1),
        )
        self.tail = nn.Sequential(SubPixelUpsampler(channels, scale), nn.Conv2d(channels, 3, 3, padding=1))

    def enlarge(self, x: Tensor) -> Tensor:
        features = self.head(self.sub_mean(x * self.value_range))
        return self.add_mean(self.tail(features + self.body(features))) / self.value_range
