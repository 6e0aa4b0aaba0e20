"""Learned upsampling by name."""

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from torch import nn

from finescale.errors import check_known
from finescale.layers.initialisation import PlainPixelShuffle, icnr_

Upsampling = Literal["sub-pixel", "sub-pixel-plain", "resize", "transposed"]
UPSAMPLINGS = get_args(Upsampling)
_STEPS: Mapping[int, Sequence[int]] = {2: (2,), 3: (3,), 4: (2, 2)}


def sub_pixel(c_in: int, c_out: int, scale: int, *, kernel: int = 3) -> list[nn.Module]:
    """Convolution and pixel shuffle (arXiv 1609.05158), weight and bias started by ICNR (arXiv 1707.02937).

    (B, `c_in`, H, W) -> (B, `c_out`, sH, sW); at first the s x s outputs of one input position are all equal.
    """
    convolution = nn.Conv2d(c_in, c_out * scale**2, kernel, padding=kernel // 2)
    icnr_(convolution.weight, scale)
    assert convolution.bias is not None
    icnr_(convolution.bias, scale)
    return [convolution, nn.PixelShuffle(scale)]


class SubPixelUpsampler(nn.Sequential):
    """Sub-pixel convolution, twice for a factor of 4; (B, C, H, W) -> (B, C, sH, sW).

    Shi et al., "Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel Convolutional Neural
    Network" (arXiv 1609.05158), equation 3. Parameters are named as in the EDSR and RCAN files (`0`, and `2` for the
    second step of a factor of 4).

    Raises:
        UsageError: the scale is not 2, 3 or 4.
    """

    def __init__(self, channels: int, scale: int) -> None:
        check_known("sub-pixel upsampling by", scale, _STEPS)
        super().__init__(*[layer for step in _STEPS[scale] for layer in sub_pixel(channels, channels, step)])


def upsampling(name: Upsampling, c_in: int, c_out: int, scale: int) -> nn.Sequential:
    """One learned enlargement; (B, `c_in`, H, W) -> (B, `c_out`, sH, sW).

    Args:
        name: "sub-pixel" (1x1 convolution and pixel shuffle, started by ICNR: arXiv 1707.02937), "sub-pixel-plain" (the
            same, started like any other convolution: arXiv 1609.05158), "resize" (nearest neighbour, then a 3x3
            convolution: Odena et al., "Deconvolution and checkerboard artifacts", 2016) or "transposed" (a transposed
            convolution whose kernel is a multiple of its stride, so that every output is made of equally many terms).
        c_in: channels of the input.
        c_out: channels of the output.
        scale: 2, 3 or any larger whole number.

    Raises:
        UsageError: unknown name.
    """
    check_known("upsampling", name, UPSAMPLINGS)
    if name == "sub-pixel":
        return nn.Sequential(*sub_pixel(c_in, c_out, scale, kernel=1))
    if name == "sub-pixel-plain":
        return nn.Sequential(nn.Conv2d(c_in, c_out * scale**2, 1), PlainPixelShuffle(scale))
    if name == "resize":
        return nn.Sequential(nn.Upsample(scale_factor=scale), nn.Conv2d(c_in, c_out, 3, padding=1))
    kernel, padding = (2 * scale, scale // 2) if scale % 2 == 0 else (3 * scale, scale)
    return nn.Sequential(nn.ConvTranspose2d(c_in, c_out, kernel, stride=scale, padding=padding))
