"""Between arrays (H, W, 3), in which pictures are read and scored, and tensors (3, H, W), which networks take."""

import io
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Damage:
    """What small pictures have been through since they were shrunk; by default nothing.

    Attributes:
        noise: standard deviation of Gaussian noise in grey levels, the same in every run; 0: none.
        jpeg: quality (1 to 100) of the JPEG that they have been then, by Pillow and libjpeg, with colour of half the
            resolution; None: none.
    """

    noise: float = 0
    jpeg: int | None = None

    @property
    def settings(self) -> dict[str, float]:
        """What was given, for reports."""
        return ({"noise": self.noise} if self.noise else {}) | ({} if self.jpeg is None else {"jpeg": self.jpeg})

    def of(self, name: str) -> str:
        """What a set is called in results, such as "Set5-noise10-jpeg40"."""
        return name + "".join(f"-{kind}{much:g}" for kind, much in self.settings.items())

    def to(self, low: Tensor) -> Tensor:
        """A picture (3, H, W) uint8 that has been through it."""
        if self == CLEAN:
            return low
        pixels = to_pixels(low)
        if self.noise:
            noise = np.random.default_rng(0).normal(0, self.noise, pixels.shape)
            pixels = (pixels + noise).round().clip(0, 255).astype(np.uint8)
        if self.jpeg is not None:
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "JPEG", quality=self.jpeg, subsampling="4:2:0")
            pixels = np.asarray(Image.open(file))
        return to_tensor(pixels)


CLEAN = Damage()


def downscale(high: Pixels, scale: int, border: Border = "replicate", damage: Damage = CLEAN) -> Tensor:
    """The protocol's low-resolution picture: (sH, sW, 3) -> (3, H, W) uint8; the sides must be multiples of `scale`.

    With `damage` it has been through that.
    """
    return damage.to(resize(to_tensor(high), scale=1 / scale, border=border))
