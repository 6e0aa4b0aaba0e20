"""The packed store: every picture of a training set in one memory-mapped file per scale.

A store is a folder: `index.json` (names, sizes, offsets), `hr.bin` (uint8, each picture (H, W, 3), one after another)
and for every scale `xS.bin` with the exact-bicubic low-resolution pictures in the same order.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from finescale.errors import FinescaleError
from finescale.images.resize import resize

MULTIPLE = 12  # every picture is cropped to multiples of 12, so that x2, x3 and x4 share one high-resolution file
EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".avif", ".tif", ".tiff", ".bmp"})


@dataclass(frozen=True)
class Item:
    """One picture of a store: its name and its high-resolution size, with the position of its first byte."""

    name: str
    height: int
    width: int
    offset: int


class Store:
    """A packed store opened for reading.

    Attributes:
        items: the pictures.
        scales: the scales it has low-resolution pictures for.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        try:
            index = json.loads((self.folder / "index.json").read_text())
        except (OSError, ValueError) as error:
            raise FinescaleError(f"{self.folder} is not a packed store: {error}") from error
        self.items = [Item(**item) for item in index["items"]]
        self.scales: list[int] = index["scales"]

    def flat(self, scale: int = 1) -> Tensor:
        """All bytes of one scale (1: high resolution) as a memory-mapped uint8 tensor (N,)."""
        if scale != 1 and scale not in self.scales:
            raise FinescaleError(f"{self.folder} has no pictures at scale {scale}, only {self.scales}")
        path = self.folder / ("hr.bin" if scale == 1 else f"x{scale}.bin")
        return torch.from_file(str(path), shared=False, size=path.stat().st_size, dtype=torch.uint8)

    def picture(self, i: int, scale: int = 1) -> Tensor:
        """Picture i at a scale: (3, H / scale, W / scale) uint8."""
        item = self.items[i]
        h, w, start = item.height // scale, item.width // scale, item.offset // scale**2
        return self.flat(scale)[start : start + 3 * h * w].reshape(h, w, 3).permute(2, 0, 1)


def prepare(
    pictures: Sequence[Path],
    folder: Path,
    scales: Sequence[int],
    read: Callable[[Path], np.ndarray[Any, np.dtype[np.uint8]]],
    root: Path | None = None,
) -> Iterator[str]:
    """Packs picture files into a store; yields each name when it is done.

    Args:
        pictures: files.
        folder: the store to make; written under temporary names and put in place at the end.
        scales: scales to make low-resolution pictures for, of 2, 3 and 4.
        read: gives (H, W, 3) uint8.
        root: names are relative to this folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = {scale: folder / ("hr.bin" if scale == 1 else f"x{scale}.bin") for scale in (1, *scales)}
    files = {scale: open(f"{path}.part", "wb") for scale, path in names.items()}
    items: list[dict[str, object]] = []
    offset = 0
    try:
        for path in pictures:
            pixels = read(path)
            height, width = (n // MULTIPLE * MULTIPLE for n in pixels.shape[:2])
            if min(height, width) < MULTIPLE:
                continue
            high = torch.from_numpy(np.ascontiguousarray(pixels[:height, :width])).permute(2, 0, 1)
            for scale, file in files.items():
                low = high if scale == 1 else resize(high, scale=1 / scale)
                file.write(low.permute(1, 2, 0).contiguous().numpy().tobytes())
            name = str(path.relative_to(root)) if root else path.name
            items.append({"name": name, "height": height, "width": width, "offset": offset})
            offset += 3 * height * width
            yield name
    finally:
        for file in files.values():
            file.close()
    for path in names.values():
        os.replace(f"{path}.part", path)
    (folder / "index.json").write_text(json.dumps({"scales": sorted(scales), "items": items}))
