"""What cameras and the web do to pictures, done to the low-resolution crops of a batch, on their device.

Networks trained on clean, exactly shrunk pictures take the blocks and ringing of JPEG for detail and sharpen them. One
that saw such crops beside clean originals removes them while it enlarges.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from finescale.images.jpeg import tables

# to luma and colour differences (JFIF; full range), and back
_TO_YCC = [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]
_FROM_YCC = [[1.0, 0.0, 1.402], [1.0, -0.344136, -0.714136], [1.0, 1.772, 0.0]]
_CELL = 16  # pixels that a block of subsampled colour covers


class Degrades(Protocol):
    """What degrades small pictures: `Degradation`, or what a program brings itself."""

    @property
    def NUMBERS(self) -> int:
        """How many numbers chance gives it for every crop."""
        ...

    @property
    def BLOCKS(self) -> slice:
        """Which of them are the same for all crops of a batch, those of its first one; `slice(0)`: none."""
        ...

    def __call__(self, low: Tensor, chance: Tensor) -> Tensor:
        """Degrades a batch; all chance comes in from outside, so that a run repeats and goes on exactly.

        Args:
            low: (B, 3, H, W) in [0, 1], on any device; whole pictures, one by one, for a validation.
            chance: (NUMBERS, B) in [0, 1), on the CPU.

        Returns:
            (B, 3, H, W) in [0, 1], on the device of `low`.
        """
        ...


@dataclass(frozen=True)
class Degradation:
    """Blur, then noise, then JPEG, each as strong for every crop as chance will have it.

    Attributes:
        share: of the crops that are degraded; the others stay as they are.
        blur: least and greatest standard deviation of a Gaussian, in pixels of the low-resolution picture.
        noise: least and greatest standard deviation, in grey levels.
        grain: least and greatest standard deviation of a Gaussian over the noise, in pixels; the noise stays as strong.
            Cameras and film give neighbouring pixels like noise.
        grey: share of the crops that have the same noise in all colours, as film and strong denoising leave it.
        jpeg: least and greatest quality (1 to 100, as libjpeg and Pillow count), None: no JPEG. Three in four have
            colour of half the resolution (4:2:0).
    """

    share: float = 1.0
    blur: tuple[float, float] = (0.0, 0.0)
    noise: tuple[float, float] = (0.0, 0.0)
    grain: tuple[float, float] = (0.0, 0.0)
    grey: float = 0.0
    jpeg: tuple[int, int] | None = None

    NUMBERS = 9  # that chance has to give for every crop
    BLOCKS = slice(4, 6)  # of them: where JPEG's blocks lie, the same for all crops of a batch

    def __call__(self, low: Tensor, chance: Tensor) -> Tensor:
        """Degrades a batch.

        Args:
            low: (B, 3, H, W) in [0, 1], on any device.
            chance: (9, B) in [0, 1), on the CPU: the only chance there is. A crop with the same numbers has the same
                noise (on one kind of device) in any batch; the first one's `BLOCKS` count for all.

        Returns:
            (B, 3, H, W) of whole grey levels in [0, 1], channels-last; crops outside the share are as they were.
        """
        seeds, chance = chance[2], chance.float()
        sigma, deviation, width = (
            sent(least + (greatest - least) * chance[row], low)
            for (least, greatest), row in ((self.blur, 1), (self.noise, 2), (self.grain, 7))
        )
        x = low
        if self.blur[1] > 0:
            x = _filtered(F.pad(x, [_radius(self.blur)] * 4, "replicate"), _gaussians(sigma, _radius(self.blur)))
        if self.noise[1] > 0:
            noise = _noise(F.pad(low, [_radius(self.grain)] * 4), seeds)
            if self.grey:
                noise = torch.where(_column(sent(chance[8] < self.grey, low)), noise[:, :1], noise)
            if self.grain[1] > 0:
                kernels = _gaussians(width, _radius(self.grain))
                noise = _filtered(noise, kernels) / _column(kernels.square().sum(1))
            x = x + noise * _column(deviation / 255)
        x = x.mul(255).add(0.5).floor().clamp(0, 255)
        if self.jpeg:
            quality = (self.jpeg[0] + (self.jpeg[1] - self.jpeg[0] + 1) * chance[3]).int().clamp(max=self.jpeg[1])
            shift = (chance[self.BLOCKS, 0] * _CELL).long().tolist()
            x = _jpeg_of_part(x, quality, sent(chance[6] < 0.75, low), shift)
        degraded = _column(sent(chance[0] < self.share, low))
        return torch.where(degraded, x / 255, low).contiguous(memory_format=torch.channels_last)


def _noise(like: Tensor, seeds: Tensor) -> Tensor:
    """Noise of deviation 1 for every crop, by a number in [0, 1) for each."""
    generator, noise = torch.Generator(like.device), torch.empty_like(like)
    for crop, seed in zip(noise, seeds.tolist()):
        crop.normal_(generator=generator.manual_seed(int(seed * 2**53)))
    return noise


def sent(numbers: Tensor, x: Tensor) -> Tensor:
    """A few numbers from the CPU to where `x` is, without waiting for what a GPU has still to do."""
    if x.is_cuda and not numbers.is_cuda:  # from other memory the copy would wait nevertheless
        numbers = numbers.pin_memory()
    return numbers.to(x.device, non_blocking=True)


def _column(numbers: Tensor) -> Tensor:
    """(B,) beside (B, C, H, W)."""
    return numbers[:, None, None, None]


def _radius(sigmas: tuple[float, float]) -> int:
    """Of kernels for standard deviations from the least to the greatest."""
    return math.ceil(3 * sigmas[1])


def _gaussians(sigma: Tensor, radius: int) -> Tensor:
    """(B,) standard deviations as kernels (B, 2 radius + 1) of sum 1."""
    places = torch.arange(-radius, radius + 1, device=sigma.device)
    kernels = torch.exp(-0.5 * (places / sigma[:, None].clamp(min=1e-3)).square())
    return kernels / kernels.sum(1, keepdim=True)


def _filtered(x: Tensor, kernels: Tensor) -> Tensor:
    """(B, C, H, W), each by its kernel of (B, K), down and across, where it fits: K - 1 rows and columns less."""
    count, channels, height, width = x.shape
    kernel = kernels.repeat_interleave(channels, 0)[:, None]  # (BC, 1, K)
    planes = F.conv2d(x.reshape(1, count * channels, height, width), kernel[..., None], groups=count * channels)
    planes = F.conv2d(planes, kernel[..., None, :], groups=count * channels)
    return planes.reshape(count, channels, *planes.shape[2:])


def _jpeg_of_part(x: Tensor, quality: Tensor, halved: Tensor, shift: list[int]) -> Tensor:
    """As `jpeg`, for crops of a larger picture: its blocks begin `shift` (rows, columns) before them."""
    height, width = x.shape[2:]
    rows, columns = (sent(_grown(size, before), x) for size, before in zip((height, width), shift))
    grown = jpeg(x[:, :, rows][..., columns], quality, halved)
    return grown[..., shift[0] : shift[0] + height, shift[1] : shift[1] + width]


def _grown(size: int, before: int) -> Tensor:
    """Where samples come from when [0, size) is grown to whole cells: mirrored at the edges, as often as it takes."""
    places = torch.arange(-before, size + -(size + before) % _CELL)
    period = max(1, 2 * size - 2)
    places = places.remainder(period)
    return torch.minimum(places, period - places) if size > 1 else torch.zeros_like(places)


def jpeg(x: Tensor, quality: Tensor, halved: Tensor) -> Tensor:
    """Pictures as they come out of baseline JPEG (ITU-T T.81, JFIF); libjpeg rounds a little otherwise.

    Args:
        x: (B, 3, H, W) whole grey levels in [0, 255]; H and W are multiples of 16.
        quality: (B,) from 1 to 100, on the CPU.
        halved: (B,) bool: colour of half the resolution (4:2:0), enlarged again by the triangle filter.

    Returns:
        (B, 3, H, W) whole grey levels in [0, 255].
    """
    ycc = _mixed(x, _TO_YCC).round()
    steps = torch.tensor([tables(q) for q in quality.tolist()], dtype=torch.float32)  # (B, 2, 64)
    luma_table, chroma_table = sent(steps, x).unbind(1)
    luma = _quantised(ycc[:, :1] - 128, luma_table) + 128
    whole = _quantised(ycc[:, 1:], chroma_table)
    half = _quantised(F.avg_pool2d(ycc[:, 1:], 2).round(), chroma_table)
    half = F.interpolate(half, scale_factor=2, mode="bilinear", align_corners=False)
    colour = torch.where(_column(halved), half, whole)
    return _mixed(torch.cat((luma, colour), 1), _FROM_YCC).round().clamp(0, 255)


def _mixed(x: Tensor, matrix: list[list[float]]) -> Tensor:
    return torch.einsum("oc,bchw->bohw", sent(torch.tensor(matrix), x), x)


def _quantised(x: Tensor, table: Tensor) -> Tensor:
    """(B, C, H, W) through the cosine transform of blocks, rounded to multiples of `table` (B, 64), and back."""
    count, channels, height, width = x.shape
    places = torch.arange(8, device=x.device)
    cosines = torch.cos((2 * places + 1) * places[:, None] * (math.pi / 16)) / 2  # (frequency, place)
    cosines[0] /= math.sqrt(2)
    basis = torch.kron(cosines, cosines)  # (64 frequencies, 64 places): one product for all blocks
    blocks = x.reshape(count, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
    step = table.reshape(count, 1, 1, 64)
    frequencies = (blocks.reshape(count, channels, -1, 64) @ basis.T / step).round() * step
    blocks = (frequencies @ basis).reshape(blocks.shape).transpose(3, 4)
    return blocks.reshape(x.shape).round().clamp(-128, 127)
