"""PSNR of networks when the small pictures have been JPEGs, over qualities.

    python benchmarks/jpeg.py [--scales 2,3,4] [--sets Set5,Set14] [--data DIR] > jpeg.md

"clean" is the field's protocol, as in all other tables.
"""

import argparse
import sys
from pathlib import Path

import torch

from finescale.cli.main import told
from finescale.evaluation import benchmark, sets
from finescale.evaluation.scoring import means
from finescale.evaluation.speed import machine

QUALITIES = (20, 40, 60, 80, 95, None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scales", default="2,3,4")
    parser.add_argument("--sets", default="Set5,Set14")
    parser.add_argument("--networks", default="bicubic,sa-rcan-light,sa-rcan-light-jpeg")
    parser.add_argument("--data", type=Path)
    args = parser.parse_args()
    chosen = [sets.find(name, args.data) for name in args.sets.split(",")]
    info, hashes = machine(torch.device("cpu")), []
    print(f"# Small pictures that have been JPEGs\n\n`python {' '.join(sys.argv)}`\n")
    print(
        "PSNR on luma (dB) / SSIM. The small picture is made by the published protocol and then written and read as a\n"
        "JPEG of the quality above (Pillow, colour of half the resolution; `finescale bench --jpeg QUALITY`); the\n"
        f"enlarged one is compared with the clean original. PyTorch in float32, {info['device']}.\n"
    )
    print(f"| network | set | {' | '.join('clean' if q is None else f'quality {q}' for q in QUALITIES)} |")
    print(f"|---|---|{'---:|' * len(QUALITIES)}")
    for scale in (int(text) for text in args.scales.split(",")):
        runs = [
            benchmark.run(args.networks.split(","), chosen, scale, jpeg=q, settings={"device": "cpu"}, timed_size=None)
            for q in QUALITIES
        ]
        for one in chosen:
            for rows in zip(*(run.rows for run in runs)):
                if rows[0].missing:
                    continue
                figures = [
                    means(row.scores[benchmark.set_name(one.name, quality)]) for row, quality in zip(rows, QUALITIES)
                ]
                cells = (f"{f['psnr']:.2f} / {f['ssim']:.4f}" for f in figures)
                print(f"| {rows[0].name} x{scale} | {one.name} | {' | '.join(cells)} |", flush=True)
        hashes += [f"- {row.name} x{scale}: `{row.sha256}`" for row in runs[0].rows if row.sha256]
    print("\nWeights (SHA-256):\n")
    print("\n".join(hashes))


if __name__ == "__main__":
    sys.exit(told(main))
