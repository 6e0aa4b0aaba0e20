"""LPIPS of two pictures, by `finescale.backbones.lpips`."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from finescale.backbones import lpips
from finescale.evaluation.arrays import to_tensor
from finescale.evaluation.metrics import Pixels, check_rgb


@dataclass(frozen=True)
class PictureDistance:
    """LPIPS of two pictures (H, W, 3) uint8."""

    network: lpips.LPIPS
    key: ClassVar[str] = "lpips"

    @property
    def label(self) -> str:
        """For tables: "LPIPS (squeeze)"."""
        return f"LPIPS ({self.network.variant})"

    @torch.inference_mode()
    def __call__(self, enlarged: Pixels, high: Pixels) -> float:
        """The distance, computed in float32.

        Raises:
            UsageError: not 8-bit RGB, different sizes, or smaller than 32 x 32.
        """
        check_rgb(enlarged)
        check_rgb(high)
        device = self.network.shift.device
        first, second = (to_tensor(p).to(device).unsqueeze(0).float() / 127.5 - 1 for p in (enlarged, high))
        return float(self.network(first, second))


def load(variant: str = "auto") -> PictureDistance:
    """The distance, ready to use on the CPU; see `finescale.backbones.lpips.load`."""
    return PictureDistance(lpips.load(variant))
