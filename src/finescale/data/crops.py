"""Random aligned crops, flipped and turned, gathered on the device the pictures lie on.

A crop under one of the eight flips and turns is the same picture read with other strides: mirrored columns count down,
turned ones swap rows and columns. So cutting, flipping and turning a batch is a single gather of bytes by index.
"""

from typing import Literal

import torch
from torch import Tensor

from finescale.data.degradations import Degrades, sent
from finescale.data.store import Store
from finescale.errors import FinescaleError

Where = Literal["auto", "device", "memory"]


class Crops:
    """Draws batches of aligned low- and high-resolution crops from a store.

    Pictures are drawn in proportion to the number of crop positions they offer, so every position is equally likely.
    All randomness comes from one generator on the CPU, so the same seed gives the same crops on every device.

    Args:
        store: the packed store.
        scale: which low-resolution pictures.
        patch: side of the low-resolution crop.
        device: where the batches are wanted.
        seed: of the generator; `generator.get_state()` is the position in the data.
        where: the pictures lie in the "device"'s memory, or in the computer's "memory" (mapped from the disk); "auto"
            takes the device if they fill no more than half of what is free there.
        degradation: what is done to the low-resolution crops, after flips and turns; None: nothing.
        share: (i, n): give only the i-th of n equal parts of every batch; the n parts together are the batch that a
            single process would have drawn.
    """

    def __init__(
        self,
        store: Store,
        *,
        scale: int,
        patch: int,
        device: torch.device,
        seed: int,
        where: Where = "auto",
        degradation: Degrades | None = None,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self.scale, self.device, self.degradation, self.share = scale, device, degradation, share
        self.resident = _resident(store.size() + store.size(scale), device, where)
        home = device if self.resident else torch.device("cpu")
        self.high, self.low = (store.flat(s).to(home) for s in (1, scale))
        self.sizes = torch.tensor([[i.height // scale, i.width // scale, i.offset // scale**2] for i in store.items])
        self.generator = torch.Generator().manual_seed(seed)
        self.set_patch(patch)

    def set_patch(self, patch: int) -> None:
        """Changes the side of the crops; pictures smaller than it are left out.

        Raises:
            FinescaleError: no picture is that large.
        """
        self.patch = patch
        places = (self.sizes[:, 0] - patch + 1).clamp(min=0) * (self.sizes[:, 1] - patch + 1).clamp(min=0)
        if not places.any():
            raise FinescaleError(f"no picture of the store holds a low-resolution crop of {patch} x {patch}")
        self.places = places.double().cumsum(0)

    def too_small(self, patch: int) -> int:
        """How many pictures are left out where crops have this side."""
        return int((self.sizes[:, :2] < patch).any(1).sum())

    def batch(self, count: int) -> tuple[Tensor, Tensor]:
        """This process's part of the next `count` crops: (N, 3, P, P) and (N, 3, sP, sP), float32 in [0, 1].

        Both are channels-last in memory, on `device`; N = count / share[1].
        """
        more = self.degradation.NUMBERS if self.degradation else 0
        draw = torch.rand(4 + more, count, generator=self.generator, dtype=torch.float64)
        index, of = self.share
        if self.degradation:  # in every process, JPEG's blocks lie as in the batch's first crop
            places = draw[4:][self.degradation.BLOCKS]
            places[:] = places[:, :1].clone()
        draw = draw[:, index * count // of : (index + 1) * count // of]
        picture = torch.searchsorted(self.places, draw[0] * self.places[-1], right=True).clamp(max=len(self.sizes) - 1)
        height, width, offset = self.sizes[picture].unbind(1)
        top = (draw[1] * (height - self.patch + 1)).long()
        left = (draw[2] * (width - self.patch + 1)).long()
        turn = (draw[3] * 8).long()
        low = self._gather(self.low, offset, width, top, left, turn, 1)
        if self.degradation:
            low = self.degradation(low, draw[4:])
        return low, self._gather(self.high, offset, width, top, left, turn, self.scale)

    def _gather(
        self, flat: Tensor, offset: Tensor, width: Tensor, top: Tensor, left: Tensor, turn: Tensor, s: int
    ) -> Tensor:
        """Crops of `flat`, whose pictures are s times the size of those that offset, width, top and left speak of."""
        side, width = self.patch * s, width * s
        start = offset * s * s + (top * s * width + left * s) * 3
        right, down = torch.full_like(width, 3), width * 3  # bytes to the next pixel of a row and of a column
        mirrored, upside_down, transposed = turn & 1 > 0, turn & 2 > 0, turn & 4 > 0
        start = start + mirrored * right * (side - 1) + upside_down * down * (side - 1)
        right, down = torch.where(mirrored, -right, right), torch.where(upside_down, -down, down)
        right, down = torch.where(transposed, down, right), torch.where(transposed, right, down)
        places = sent(torch.stack((start, down, right)), flat)[..., None, None, None]
        step = torch.arange(side, device=flat.device)
        index = places[0] + step[:, None, None] * places[1] + step[None, :, None] * places[2]  # (N, side, side, 1)
        crops = flat[index + torch.arange(3, device=flat.device)]
        if crops.device != self.device:
            crops = crops.pin_memory().to(self.device, non_blocking=True)
        return crops.permute(0, 3, 1, 2).float().div_(255)


def _resident(size: int, device: torch.device, where: Where) -> bool:
    """Whether `size` bytes of pictures are to lie in the device's own memory."""
    if device.type == "cpu" or where != "auto":
        return device.type != "cpu" and where == "device"
    return size <= torch.cuda.mem_get_info(device)[0] // 2
