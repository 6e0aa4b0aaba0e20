"""Learned upsampling."""

from torch import nn

from finescale.layers.initialisation import icnr_


class SubPixelUpsampler(nn.Sequential):
    """Convolution and pixel shuffle (arXiv 1609.05158), twice for a factor of 4; (B, C, H, W) -> (B, C, sH, sW).

    Initialised by ICNR (arXiv 1707.02937), so the first output has no checkerboard. Parameters are named as in the
    EDSR and RCAN files (`0`, and `2` for the second step of a factor of 4).
    """

    def __init__(self, channels: int, scale: int) -> None:
        steps = {2: (2,), 3: (3,), 4: (2, 2)}[scale]
        layers: list[nn.Module] = []
        for step in steps:
            convolution = nn.Conv2d(channels, channels * step**2, 3, padding=1)
            icnr_(convolution.weight, step)
            layers += [convolution, nn.PixelShuffle(step)]
        super().__init__(*layers)
