"""Memory that every engine needs for an input pixel: what the process really takes, against the engine's own estimate.

    python benchmarks/memory.py [sa-rcan-light edsr-baseline] [--scale 4] > memory.md

Each figure is the difference of the peak of two fresh processes that enlarge pictures of two sizes in one piece, over
the difference of their pixels. It holds the picture, its features and the result. The estimates decide about tiles; the
factors `MEMORY` of the engines come from here.
"""

import argparse
import sys
from itertools import product
from typing import Any

import torch

from finescale.cli.main import told
from finescale.errors import FinescaleError
from finescale.evaluation.speed import machine, measure_apart
from finescale.evaluation.throughput import WAYS
from finescale.inference.engines import choose
from finescale.networks import DEFAULT
from finescale.weights import store


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=[DEFAULT], help="names or weight files")
    parser.add_argument("--scale", type=int, default=4, choices=(2, 3, 4))
    parser.add_argument("--sides", type=int, nargs=2, default=(240, 720), help="of the two pictures")
    args = parser.parse_args()
    info = machine(torch.device("cpu"))
    print(f"# Memory for an input pixel\n\n`python {' '.join(sys.argv)}`\n")
    print(
        f"{info['device']}, {info['threads']} threads, x{args.scale}, between {args.sides[0]} and {args.sides[1]} ",
        end="",
    )
    print("pixels a side.\n\n| network | engine | precision | measured, bytes | estimated | measured / estimated |")
    print("|---|---|---|---:|---:|---:|")
    for name, (engine, precision) in product(args.networks, WAYS):
        settings: dict[str, Any] = {"device": "cpu", "engine": engine, "precision": precision}
        try:
            estimate = choose(store.load(name, args.scale), **settings).bytes_per_pixel
        except FinescaleError as error:
            print(f"| {name} | {engine} | {precision} | {error} | | |")
            continue
        peaks = []
        for side in args.sides:
            speed = measure_apart(name, args.scale, {**settings, "tile": side}, (side, side), repeats=1)
            assert speed.memory is not None, "the peak is read on Linux only"
            peaks.append(speed.memory * 2**20)
        measured = (peaks[1] - peaks[0]) / (args.sides[1] ** 2 - args.sides[0] ** 2)
        print(f"| {name} | {engine} | {precision} | {measured:,.0f} | {estimate:,.0f} | {measured / estimate:.2f} |")


if __name__ == "__main__":
    sys.exit(told(main))
