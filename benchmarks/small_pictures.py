"""Eight small pictures of one size, one after the other and in one batch, by every engine on the CPU; interleaved.

    python benchmarks/small_pictures.py [--network sa-rcan-light] [--sides 48,96] [--rounds 7] > small-pictures.md

`finescale upscale` computes one after the other.
"""

import argparse
import statistics
import sys
import time

import numpy as np
import torch

from finescale.cli.main import told
from finescale.errors import UsageError
from finescale.evaluation.speed import machine
from finescale.inference import ENGINES
from finescale.inference.engines.interface import Engine
from finescale.inference.tiling import Array
from finescale.inference.upscale import Upscaler
from finescale.networks import DEFAULT

COUNT = 8


def seconds(engine: Engine, batches: list[Array]) -> float:
    started = time.perf_counter()
    for x in batches:
        engine.run(x)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default=DEFAULT)
    parser.add_argument("--sides", default="48,96")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    info = machine(torch.device("cpu"))
    print(f"# Eight small pictures\n\n`python {' '.join(sys.argv)}`\n")
    print(f"{args.network} x4 in float32, {info['device']}; median of {args.rounds} interleaved rounds.\n")
    print("| engine | side | one after the other, s | in one batch, s | times as fast |")
    print("|---|---:|---:|---:|---:|")
    for name in ENGINES:
        if name == "auto":
            continue
        try:
            engine = Upscaler(args.network, scale=4, device="cpu", engine=name, precision="float32").engine
        except UsageError:  # not installed
            continue
        for side in map(int, args.sides.split(",")):
            x = np.random.default_rng(0).random((COUNT, 3, side, side), np.float32)
            ways = ([one[None] for one in x], [x])
            for way in ways:
                seconds(engine, way)
            rounds = [[seconds(engine, way) for way in ways] for _ in range(args.rounds)]
            single, together = (statistics.median(times) for times in zip(*rounds))
            gains = sorted(one / other for one, other in rounds)
            gain = f"{statistics.median(gains):.2f} ({gains[0]:.2f} to {gains[-1]:.2f})"
            print(f"| {name} | {side} | {single:.3f} | {together:.3f} | {gain} |", flush=True)


if __name__ == "__main__":
    sys.exit(told(main))
