"""Bicubic enlargement by 2, 3 or 4 as a layer."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from finescale.layers.bicubic import contributions


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
        line = np.zeros((scale, 5))
        places = (index[mine] - middle + 2).clip(0, 4)  # samples beyond have weight 0
        np.add.at(line, (np.arange(scale)[:, None], places), weight[mine])
        kernel = np.einsum("ai,bj->abij", line, line).reshape(scale**2, 1, 5, 5)
        self.register_buffer("kernel", torch.from_numpy(kernel).float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        kind = x.device.type
        if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
            with torch.autocast(kind, enabled=False):  # 8 bits of mantissa are too few for a picture
                return self(x)
        batch, channels, height, width = x.shape
        x = F.pad(x.reshape(batch * channels, 1, height, width), (2, 2, 2, 2), mode="replicate")
        x = F.pixel_shuffle(F.conv2d(x, self.kernel.to(x.device, x.dtype)), self.scale)
        return x.reshape(batch, channels, self.scale * height, self.scale * width)
