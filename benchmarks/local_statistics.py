"""PSNR of every trained network with statistics of the whole picture, of local windows, and of naive tiles.

    python benchmarks/local_statistics.py [--sets Set5,Set14] [--scales 2,3,4] [--data DIR] > statistics.md

Naive tiles are what most programs do: squares of the picture with some context, each with its own statistics. The last
column is the largest difference, in grey levels, between Finescale's picture in tiles and in one piece.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from finescale.cli.main import told
from finescale.evaluation import benchmark, sets
from finescale.evaluation.arrays import downscale, to_pixels
from finescale.evaluation.scoring import means
from finescale.evaluation.speed import machine
from finescale.images.picture import mod_crop
from finescale.inference.upscale import Upscaler
from finescale.networks.catalogue import NETWORKS
from finescale.weights import store

TILE = 48


def seam(name: str, scale: int, chosen: list[sets.PictureSet]) -> int:
    """max |tiled - whole| in grey levels over all pictures, in float32."""
    network = store.load(name, scale)
    settings: dict[str, Any] = {"device": "cpu", "engine": "torch", "precision": "float32"}
    tiled, whole = Upscaler(network, tile=TILE, **settings), Upscaler(network, tile=1 << 20, **settings)
    worst = 0
    for one in chosen:
        for path in one.pictures:
            low = to_pixels(downscale(mod_crop(sets.read_rgb(path), scale), scale))
            difference = tiled.pixels(low).astype(int) - whole.pixels(low).astype(int)
            worst = max(worst, int(np.abs(difference).max()))
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", default="Set5,Set14")
    parser.add_argument("--scales", default="2,3,4")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--networks", help="only these, separated by commas (default: all with weights)")
    args = parser.parse_args()
    chosen = [sets.find(name, args.data) for name in args.sets.split(",")]
    names = args.networks.split(",") if args.networks else list(NETWORKS)
    columns: dict[str, dict[str, Any]] = {
        "whole picture": {"window": None},
        "local windows": {},
        "naive tiles": {"window": None, "tile": TILE},
    }
    info = machine(torch.device("cpu"))
    print(f"# Whole, local and tiled statistics\n\n`python {' '.join(sys.argv)}`\n")
    print(f"PSNR on luma, dB; PyTorch in float32, {info['device']}; naive tiles of {TILE} pixels with {TILE} around.\n")
    print(f"| network | set | {' | '.join(columns)} | local − whole | max tiled − whole |")
    print(f"|---|---|{'---:|' * (len(columns) + 2)}")
    for scale in (int(text) for text in args.scales.split(",")):
        for name in names:
            if not NETWORKS[name].trained or store.find(name, scale) is None:
                continue
            figures: dict[str, dict[str, float]] = {}
            for column, settings in columns.items():
                result = benchmark.run([name], chosen, scale, settings={"device": "cpu", **settings}, timed_size=None)
                (row,) = result.rows
                figures[column] = {one: means(row.scores[one])["psnr"] for one in result.sets}
            worst = seam(name, scale, chosen)
            for one in result.sets:
                values = " | ".join(f"{figures[column][one]:.3f}" for column in columns)
                gain = figures["local windows"][one] - figures["whole picture"][one]
                print(f"| {name} x{scale} | {one} | {values} | {gain:+.3f} | {worst} |", flush=True)


if __name__ == "__main__":
    sys.exit(told(main))
