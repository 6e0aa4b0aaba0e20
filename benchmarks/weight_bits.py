"""What rounding the weights of a file costs: float16, as they are shipped, against 8 bits for every output channel.

    python benchmarks/weight_bits.py FILE [FILE ...] [--sets Set5,Set14] [--data DIR] > weight-bits.md

Of FILE the weights as they are (float32, say, as training saves the best ones); biases and other vectors stay as they
are in both. Computing is float32 throughout: this is about files, not about `--precision int8`.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import torch

from finescale.atomic import sha256
from finescale.cli.main import told
from finescale.evaluation import benchmark, sets
from finescale.evaluation.scoring import means
from finescale.networks.base import Network
from finescale.weights import files
from finescale.weights.header import read_header


def to_eight_bits(network: Network) -> None:
    """Rounds every matrix and filter, per output channel, to one of 255 levels around zero."""
    for value in network.parameters():
        if value.ndim > 1:
            step = value.detach().abs().amax(tuple(range(1, value.ndim)), keepdim=True).clamp(min=1e-12) / 127
            value.data = (value.data / step).round() * step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--sets", default="Set5,Set14")
    parser.add_argument("--data", type=Path)
    args = parser.parse_args()
    chosen = [sets.find(name, args.data) for name in args.sets.split(",")]
    print(f"# Bits of the weights\n\n`python {' '.join(sys.argv)}`\n\nPSNR on luma, dB.\n")
    print(
        "| file | SHA-256 | set | as it is | float16 | 8 bits | 8 bits - float16 |\n|---|---|---|---:|---:|---:|---:|"
    )
    for file in args.files:
        header, network = read_header(file), files.load(file)
        with tempfile.TemporaryDirectory() as name:
            half, eight = Path(name) / "half.safetensors", Path(name) / "eight.safetensors"
            files.save(network, half, notes={}, dtype=torch.float16)
            to_eight_bits(network)
            files.save(network, eight, notes={})
            settings = {"device": "cpu"}
            run = benchmark.run(
                [str(file), str(half), str(eight)], chosen, header.scale, settings=settings, timed_size=None
            )
        for one in run.sets:
            psnr = [means(row.scores[one])["psnr"] for row in run.rows]
            values = " | ".join(f"{value:.4f}" for value in psnr)
            label = f"{header.name} x{header.scale} | `{sha256(file)[:16]}`"
            print(f"| {label} | {one} | {values} | {psnr[2] - psnr[1]:+.4f} |", flush=True)


if __name__ == "__main__":
    sys.exit(told(main))
