"""PSNR-Y and SSIM-Y of a network in training, by the published protocol, on pictures it does not see."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from finescale.data.degradations import Degrades
from finescale.data.store import Store, is_store
from finescale.errors import FinescaleError
from finescale.evaluation import sets
from finescale.evaluation.arrays import downscale, to_pixels, to_tensor
from finescale.evaluation.metrics import WINDOW, Pixels, psnr_y, ssim_y
from finescale.images.picture import mod_crop
from finescale.images.resize import resize

T = TypeVar("T")

_SAMPLES = 3
_FAULTLESS = 100.0  # dB: infinitely many of one blank picture would hide all others
_AT_ONCE, _PIXELS = 16, 2**18  # pictures of one size that go through the network together, and their small pixels
_SIDE = 384  # small pixels: attention over all of larger pictures takes longer than the training between


class Validation:
    """Scores a network on a set of pictures; shrunk once, or the pairs of a packed store; kept on the device.

    Of pictures that are more than 384 pixels high or wide when they are shrunk, the middle counts.

    Args:
        name: a set's name or a folder of pictures, see `finescale.evaluation.sets.find`, or a packed store, from which
            the small pictures are taken too.
        scale: enlargement factor.
        device: of the network.
        limit: at most so many pictures, evenly spread over the set.
        degradation: what is done to the shrunk pictures, the same in every run; None: nothing.

    Raises:
        FinescaleError: a picture cannot be read or is too small, or the store has no pictures for the scale.
    """

    def __init__(
        self,
        name: str,
        scale: int,
        device: torch.device,
        limit: int | None = None,
        degradation: Degrades | None = None,
    ) -> None:
        self.scale = scale
        if is_store(name):
            store = Store(name)
            pairs = [_pair(store, i, scale) for i in _spread(range(len(store.items)), limit)]
            self.high, self.low = [high for high, _ in pairs], [low for _, low in pairs]
        else:
            self.high = [_original(file, scale) for file in _spread(sets.find(name).pictures, limit)]
            self.low = [downscale(high, scale) for high in self.high]
        if degradation:
            chance = torch.rand(degradation.NUMBERS, len(self.low), generator=torch.Generator().manual_seed(0))
            self.low = [_degraded(low, degradation, chance[:, i : i + 1]) for i, low in enumerate(self.low)]
        self.low = [low.to(device) for low in self.low]

    def __call__(self, network: nn.Module, similarity: bool = False) -> tuple[float, float, list[Tensor]]:
        """Scores a network in evaluation mode.

        Args:
            network: what to score.
            similarity: SSIM too, which takes longer than PSNR.

        Returns:
            Mean PSNR-Y in dB (100 for a picture without any fault), mean SSIM-Y (NaN if not asked for, or if a picture
            is smaller than its window), and samples: bicubic, network, original side by side.
        """
        similarity = similarity and all(min(high.shape[:2]) >= WINDOW + 2 * self.scale for high in self.high)
        scores, likeness, samples = [0.0] * len(self.high), [math.nan] * len(self.high), []
        for batch in self._batches():
            output = network(torch.stack([self.low[i] for i in batch]).float().div(255))
            pixels = output.float().mul(255).add(0.5).floor().clamp(0, 255).to(torch.uint8)
            for i, picture in zip(batch, pixels):
                enlarged = to_pixels(picture)
                scores[i] = min(psnr_y(enlarged, self.high[i], self.scale), _FAULTLESS)
                if similarity:
                    likeness[i] = ssim_y(enlarged, self.high[i], self.scale)
                if i < _SAMPLES:
                    bicubic = resize(self.low[i].cpu(), scale=self.scale)
                    row = torch.cat([bicubic, picture.cpu(), to_tensor(self.high[i])], dim=2)
                    samples.append(row.float().div(255))
        return sum(scores) / len(scores), sum(likeness) / len(likeness), samples

    def _batches(self) -> list[list[int]]:
        """Numbers of pictures of equal size, as many at a time as memory surely holds."""
        by_size: dict[tuple[int, ...], list[int]] = {}
        for i, low in enumerate(self.low):
            by_size.setdefault(tuple(low.shape), []).append(i)
        batches = []
        for (_, height, width), same in by_size.items():
            count = max(1, min(_AT_ONCE, _PIXELS // (height * width)))
            batches += [same[i : i + count] for i in range(0, len(same), count)]
        return batches


def _spread(all_of_them: Sequence[T], limit: int | None) -> Sequence[T]:
    """At most so many of them, evenly spread."""
    count = len(all_of_them)
    return all_of_them if limit is None or limit >= count else [all_of_them[i * count // limit] for i in range(limit)]


def _pair(store: Store, i: int, scale: int) -> tuple[Pixels, Tensor]:
    """The middle of a picture of a store, (sH, sW, 3), and of its small one, (3, H, W)."""
    low, high = store.picture(i, scale), store.picture(i)
    top, left = (max(0, side - _SIDE) // 2 for side in low.shape[1:])
    low = low[:, top : top + _SIDE, left : left + _SIDE]
    high = high[:, top * scale : (top + _SIDE) * scale, left * scale : (left + _SIDE) * scale]
    return to_pixels(high).copy(), low.contiguous().clone()  # not of the mapped file


def _original(file: Path, scale: int) -> Pixels:
    pixels = sets.read_rgb(file)
    height, width = pixels.shape[:2]
    if min(height, width) // scale <= 2:  # nothing would be left within the border
        raise FinescaleError(f"{file}: a picture of {width} x {height} is too small to validate on at x{scale}")
    top, left = (max(0, side - _SIDE * scale) // 2 for side in (height, width))
    return mod_crop(pixels[top : top + _SIDE * scale, left : left + _SIDE * scale], scale).copy()  # the rest can go


def _degraded(low: Tensor, degradation: Degrades, chance: Tensor) -> Tensor:
    """(3, H, W) uint8 as it comes out of a degradation."""
    return degradation(low[None].float().div(255), chance)[0].mul(255).round().clamp(0, 255).to(torch.uint8)
