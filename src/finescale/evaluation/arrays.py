"""Between arrays (H, W, 3), in which pictures are read and scored, and tensors (3, H, W), which networks take."""

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from finescale.evaluation.metrics import Pixels
from finescale.images.resize import resize
from finescale.layers.bicubic import Border


def to_tensor(pixels: Pixels) -> Tensor:
    """(H, W, 3) uint8 array -> (3, H, W) uint8 tensor, a copy."""
    return torch.tensor(pixels).permute(2, 0, 1).contiguous()


def to_pixels(picture: Tensor) -> Pixels:
    """(3, H, W) uint8 tensor on any device -> (H, W, 3) uint8 array."""
    return picture.permute(1, 2, 0).contiguous().cpu().numpy()


def downscale(high: Pixels, scale: int, border: Border = "replicate", jpeg: int | None = None) -> Tensor:
    """The protocol's low-resolution picture: (sH, sW, 3) -> (3, H, W) uint8; the sides must be multiples of `scale`.

    With `jpeg` it has been a JPEG of that quality (1 to 100, by Pillow and libjpeg, colour of half the resolution).
    """
    low = resize(to_tensor(high), scale=1 / scale, border=border)
    if jpeg is None:
        return low
    file = io.BytesIO()
    Image.fromarray(to_pixels(low)).save(file, "JPEG", quality=jpeg, subsampling="4:2:0")
    return to_tensor(np.asarray(Image.open(file)))
