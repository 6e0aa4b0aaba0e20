"""Crops per second given to an empty training step: the packed store, PNG files and pre-cut sub-images, interleaved.

    python benchmarks/feeding.py PICTURES [--seconds 5] [--scale 2] [--workers 2] [--device cpu]

The peers are what frameworks do: a map-style `Dataset` that decodes a picture (or one of its sub-images of 480 x 480,
low-resolution partner beside it), cuts, flips and turns a crop, and a `DataLoader` with worker processes.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from finescale.cli.main import told
from finescale.data import store
from finescale.data.crops import Crops
from finescale.errors import UsageError
from finescale.images.folders import find_pictures

BATCH, PATCH, SUB = 16, 48, 480

Pair = tuple[Tensor, Tensor]


class Files(Dataset[Pair]):
    """Pairs of picture files, a random crop of one pair at a time."""

    def __init__(self, pairs: list[tuple[Path, Path]], scale: int) -> None:
        self.pairs, self.scale = pairs, scale

    def __len__(self) -> int:
        return 1_000_000

    def __getitem__(self, index: int) -> Pair:
        rng = np.random.default_rng(index)
        low_path, high_path = self.pairs[int(rng.integers(len(self.pairs)))]
        low, high = (np.asarray(Image.open(path)) for path in (low_path, high_path))
        top, left = (int(rng.integers(n - PATCH + 1)) for n in low.shape[:2])
        s, turn = self.scale, int(rng.integers(8))

        def cut(pixels: NDArray[np.uint8], k: int) -> Tensor:
            crop = pixels[top * k : (top + PATCH) * k, left * k : (left + PATCH) * k]
            crop = crop[:, ::-1] if turn & 1 else crop
            crop = crop[::-1] if turn & 2 else crop
            crop = crop.transpose(1, 0, 2) if turn & 4 else crop
            return torch.from_numpy(crop.transpose(2, 0, 1).copy()).float().div_(255)

        return cut(low, 1), cut(high, s)


def write_pairs(packed: store.Store, folder: Path, scale: int, sub: int | None) -> list[tuple[Path, Path]]:
    """The store's pictures as PNG files, whole or cut into squares; those too small for a crop are left out."""
    folder.mkdir()
    pairs = []
    for i, item in enumerate(packed.items):
        low, high = (packed.picture(i, s).permute(1, 2, 0).numpy() for s in (scale, 1))
        tops = range(0, item.height - sub + 1, sub) if sub else [0]
        lefts = range(0, item.width - sub + 1, sub) if sub else [0]
        for top in tops:
            for left in lefts:
                height, width = (sub, sub) if sub else (item.height, item.width)
                paths = []
                for pixels, s in ((low, scale), (high, 1)):
                    piece = pixels[top // s : (top + height) // s, left // s : (left + width) // s]
                    if min(piece.shape[:2]) >= PATCH:
                        paths.append(folder / f"{i}_{top}_{left}_{s}.png")
                        Image.fromarray(piece).save(paths[-1], compress_level=1)
                if len(paths) == 2:
                    pairs.append((paths[0], paths[1]))
    if not pairs:
        raise UsageError(f"no picture is large enough for {f'pieces of {sub}' if sub else f'crops of {PATCH}'} pixels")
    return pairs


def loader(pairs: list[tuple[Path, Path]], scale: int, workers: int) -> Iterator[Pair]:
    """Endless batches."""
    return iter(DataLoader(Files(pairs, scale), BATCH, num_workers=workers, prefetch_factor=4))


def rate(step: Callable[[], object], seconds: float, device: torch.device) -> float:
    """Crops per second."""
    step()
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        step()
        count += BATCH
    if device.type == "cuda":
        torch.cuda.synchronize()
    return count / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path, help="a folder of large pictures, such as DIV2K's")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each and round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=int, default=24, help="pictures to use")
    parser.add_argument("--scale", type=int, default=2, choices=(2, 3, 4))
    parser.add_argument("--workers", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    device = torch.device(args.device)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = find_pictures([args.pictures])[: args.limit]
        list(store.prepare(found, folder / "store", (args.scale,)))
        packed = store.Store(folder / "store")
        crops = Crops(packed, scale=args.scale, patch=PATCH, device=device, seed=0)
        whole = loader(write_pairs(packed, folder / "png", args.scale, None), args.scale, args.workers)
        sub = loader(write_pairs(packed, folder / "sub", args.scale, SUB), args.scale, args.workers)
        ways: dict[str, Callable[[], object]] = {
            "packed store": lambda: crops.batch(BATCH),
            "DataLoader over PNG files": lambda: [x.to(device) for x in next(whole)],
            "DataLoader over PNG sub-images": lambda: [x.to(device) for x in next(sub)],
        }
        rates: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(args.rounds):  # interleaved, so that all meet the same machine
            for way, step in ways.items():
                rates[way].append(rate(step, args.seconds, device))
    median = {way: float(np.median(values)) for way, values in rates.items()}
    ours = median["packed store"]
    print(f"crops of {PATCH} and {PATCH * args.scale} pixels a side per second; {args.workers} workers; to {device}")
    for way, value in median.items():
        print(f"{way:32} {value:10.0f}   ours is {ours / value:.1f} times as fast")
    print(json.dumps({"scale": args.scale, "workers": args.workers, "rates": median}))


if __name__ == "__main__":
    sys.exit(told(main))
