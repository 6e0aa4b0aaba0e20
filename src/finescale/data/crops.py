"""Random aligned crops, flipped and turned, gathered on the device the store lies on."""

import torch
from torch import Tensor

from finescale.data.store import Store


class Crops:
    """Draws batches of aligned low- and high-resolution crops from a store.

    Pictures are drawn in proportion to the number of crop positions they offer, so every position is equally likely.

    Args:
        store: the packed store.
        scale: which low-resolution pictures.
        patch: side of the low-resolution crop.
        device: where the pictures lie and the crops are gathered.
        seed: of the generator; its state is `state()`.
    """

    def __init__(self, store: Store, *, scale: int, patch: int, device: torch.device, seed: int) -> None:
        self.scale, self.device = scale, device
        self.high, self.low = (store.flat(s).to(device) for s in (1, scale))
        self.sizes = torch.tensor([[i.height // scale, i.width // scale, i.offset // scale**2] for i in store.items])
        self.generator = torch.Generator().manual_seed(seed)
        self.set_patch(patch)

    def set_patch(self, patch: int) -> None:
        """Changes the side of the crops; pictures smaller than it are left out."""
        self.patch = patch
        places = (self.sizes[:, 0] - patch + 1).clamp(min=0) * (self.sizes[:, 1] - patch + 1).clamp(min=0)
        if not places.any():
            raise ValueError(f"no picture of the store holds a crop of {patch} x {patch}")
        self.places = places.double().cumsum(0)

    def batch(self, count: int) -> tuple[Tensor, Tensor]:
        """(count, 3, P, P) and (count, 3, sP, sP) float32 in [0, 1]."""
        draw = torch.rand(4, count, generator=self.generator, dtype=torch.float64)
        picture = torch.searchsorted(self.places, draw[0] * self.places[-1], right=True).clamp(max=len(self.sizes) - 1)
        height, width, offset = self.sizes[picture].unbind(1)
        top = (draw[1] * (height - self.patch + 1)).long()
        left = (draw[2] * (width - self.patch + 1)).long()
        turn = (draw[3] * 8).long()
        result = []
        for flat, s in ((self.low, 1), (self.high, self.scale)):
            crops = self._gather(flat, offset * s * s, width * s, top * s, left * s, self.patch * s)
            result.append(self._turn(crops, turn).float().div_(255))
        return result[0], result[1]

    def _gather(self, flat: Tensor, offset: Tensor, width: Tensor, top: Tensor, left: Tensor, side: int) -> Tensor:
        start = (offset + (top * width + left) * 3).to(self.device, non_blocking=True)
        stride = (width * 3).to(self.device, non_blocking=True)
        row = torch.arange(side, device=self.device)
        column = torch.arange(side * 3, device=self.device)
        index = start[:, None, None] + row[None, :, None] * stride[:, None, None] + column[None, None, :]
        return flat[index].unflatten(2, (side, 3)).permute(0, 3, 1, 2)

    @staticmethod
    def _turn(crops: Tensor, turn: Tensor) -> Tensor:
        """Each crop under one of the eight flips and turns: bit 0 mirrors, bit 1 turns upside down, bit 2 transposes."""
        turn = turn.to(crops.device)[:, None, None, None]
        crops = torch.where(turn & 1 > 0, crops.flip(3), crops)
        crops = torch.where(turn & 2 > 0, crops.flip(2), crops)
        return torch.where(turn & 4 > 0, crops.transpose(2, 3), crops)
