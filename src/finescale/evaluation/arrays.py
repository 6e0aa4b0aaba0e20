"""Between arrays (H, W, 3), in which pictures are read and scored, and tensors (3, H, W), which networks take."""

import torch
from torch import Tensor

from finescale.evaluation.metrics import Pixels
from finescale.images.resize import Border, resize


def to_tensor(pixels: Pixels) -> Tensor:
    """(H, W, 3) uint8 array -> (3, H, W) uint8 tensor, a copy."""
    return torch.tensor(pixels).permute(2, 0, 1).contiguous()


def to_pixels(picture: Tensor) -> Pixels:
    """(3, H, W) uint8 tensor on any device -> (H, W, 3) uint8 array."""
    return picture.permute(1, 2, 0).contiguous().cpu().numpy()


def downscale(high: Pixels, scale: int, border: Border = "replicate") -> Tensor:
    """The protocol's low-resolution picture: (sH, sW, 3) -> (3, H, W) uint8; the sides must be multiples of `scale`."""
    return resize(to_tensor(high), scale=1 / scale, border=border)
