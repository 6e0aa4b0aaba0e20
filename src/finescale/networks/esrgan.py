"""The networks of ESRGAN and Real-ESRGAN, with parameters named as in BasicSR's files of them."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from finescale.errors import UsageError
from finescale.layers.initialisation import icnr_
from finescale.networks.arguments import Count
from finescale.networks.base import Network

RESIDUAL = 0.2  # what blocks add is multiplied by it (arXiv 1809.00219, section 3.1)
SLOPE = 0.2  # of every leaky ReLU


class _DenseBlock(nn.Module):
    """Five convolutions, each of the input and all outputs before it; times 0.2, + input; (B, C, H, W) -> same."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        for number in range(5):
            layer = nn.Conv2d(channels + number * growth, growth if number < 4 else channels, 3, padding=1)
            nn.init.kaiming_normal_(layer.weight)
            layer.weight.data *= 0.1  # small at first, so that many of them can follow each other (section 3.1)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
            self.add_module(f"conv{number + 1}", layer)

    def forward(self, x: Tensor) -> Tensor:
        *inner, last = self.children()
        seen = [x]
        for layer in inner:
            seen.append(F.leaky_relu(layer(torch.cat(seen, 1)), SLOPE))
        y: Tensor = last(torch.cat(seen, 1))
        return x + RESIDUAL * y


class _RRDB(nn.Module):
    """Three dense blocks; what they add is multiplied by 0.2; (B, C, H, W) -> same."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        for number in (1, 2, 3):
            self.add_module(f"rdb{number}", _DenseBlock(channels, growth))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for block in self.children():
            y = block(y)
        return x + RESIDUAL * y


class RRDBNet(Network):
    """The generator of ESRGAN (arXiv 1809.00219, figure 4) and Real-ESRGAN (arXiv 2107.10833, section 3.4).

    Args:
        scale: 2, 3 or 4.
        channels: width of the features.
        blocks: residual-in-residual dense blocks; 23, or 6 in Real-ESRGAN's small network for anime.
        growth: channels that each convolution in a dense block adds.
        unshuffle: 2 is Real-ESRGAN at x2: squares of 2 x 2 pixels become channels, and the network enlarges four times.

    Raises:
        UsageError: `unshuffle` is 2 and the scale is not.
    """

    def __init__(
        self, *, scale: int, channels: Count = 64, blocks: Count = 23, growth: Count = 32, unshuffle: Literal[1, 2] = 1
    ) -> None:
        super().__init__(scale=scale)
        if unshuffle == 2 and scale != 2:
            raise UsageError(f"arguments.unshuffle is 2 at x2 alone, not at x{scale}")
        self.unshuffle = self.multiple = unshuffle
        # measured with Real-ESRGAN's own weights: with 48 a tile was up to 3 grey levels from the whole picture
        self.context = 96 * unshuffle
        self.steps = {2: [2], 3: [3], 4: [2, 2]}[scale * unshuffle]
        self.conv_first = nn.Conv2d(3 * unshuffle**2, channels, 3, padding=1)
        self.body = nn.Sequential(*[_RRDB(channels, growth) for _ in range(blocks)])
        self.conv_body = nn.Conv2d(channels, channels, 3, padding=1)
        for number in range(len(self.steps)):
            self.add_module(f"conv_up{number + 1}", nn.Conv2d(channels, channels, 3, padding=1))
        self.conv_hr = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv_last = nn.Conv2d(channels, 3, 3, padding=1)

    def enlarge(self, x: Tensor) -> Tensor:
        if self.unshuffle > 1:
            x = F.pixel_unshuffle(x, self.unshuffle)
        y = self.conv_first(x)
        y = y + self.conv_body(self.body(y))
        for number, step in enumerate(self.steps):
            y = F.interpolate(y, scale_factor=float(step))  # nearest neighbour
            y = F.leaky_relu(self.get_submodule(f"conv_up{number + 1}")(y), SLOPE)
        y = F.leaky_relu(self.conv_hr(y), SLOPE)
        large: Tensor = self.conv_last(y)
        return large


class SRVGGNet(Network):
    """Real-ESRGAN's compact network, "SRVGGNetCompact" in its code: plain convolutions at the small size.

    What they make is added to the picture enlarged by its nearest neighbours.

    Args:
        scale: 2, 3 or 4.
        channels: width of the features.
        convolutions: between the first and the last one; 32 in Real-ESRGAN's general network, 16 in that for anime.
    """

    def __init__(self, *, scale: int, channels: Count = 64, convolutions: Count = 32) -> None:
        super().__init__(scale=scale)
        layers: list[nn.Module] = [nn.Conv2d(3, channels, 3, padding=1), nn.PReLU(channels)]
        for _ in range(convolutions):
            layers += [nn.Conv2d(channels, channels, 3, padding=1), nn.PReLU(channels)]
        last = nn.Conv2d(channels, 3 * scale**2, 3, padding=1)
        assert last.bias is not None
        icnr_(last.weight, scale)
        icnr_(last.bias, scale)
        self.body = nn.Sequential(*layers, last)

    def enlarge(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.body(x), self.scale) + F.interpolate(x, scale_factor=float(self.scale))
