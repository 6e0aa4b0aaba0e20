"""PSNR of networks when the small pictures are noisy, or have been JPEGs, by how much.

    python benchmarks/damage.py noise [--scales 2,3,4] [--sets Set5,Set14] [--data DIR] > noise.md
    python benchmarks/damage.py jpeg ... > jpeg.md

"clean" is the field's protocol, as in all other tables.
"""

import argparse
import sys
import textwrap
from pathlib import Path

import torch

from finescale.cli.main import told
from finescale.evaluation import benchmark, sets
from finescale.evaluation.arrays import CLEAN, Damage
from finescale.evaluation.scoring import means
from finescale.evaluation.speed import machine
from finescale.networks import DEFAULT, FOR_JPEG, FOR_NOISE

KINDS: dict[str, tuple[str, str, str, tuple[int, ...], str]] = {
    "noise": (
        "Small pictures that are noisy",
        "Gaussian noise of the standard deviation above, in grey levels, is added (`finescale bench --noise LEVELS`)",
        "noise",
        (0, 2, 5, 10, 15, 20),
        FOR_NOISE,
    ),
    "jpeg": (
        "Small pictures that have been JPEGs",
        "it is written and read as a JPEG of the quality above (Pillow, colour of half the resolution; `finescale "
        "bench --jpeg QUALITY`)",
        "quality",
        (20, 40, 60, 80, 95, 0),
        FOR_JPEG,
    ),
}


def damage_of(kind: str, level: int, quality: int | None) -> Damage:
    """Of a level of noise (then a JPEG of `quality`), or of a quality; 0: none."""
    if kind == "noise":
        return Damage(noise=level, jpeg=quality)
    return Damage(jpeg=level) if level else CLEAN


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--scales", default="2,3,4")
    parser.add_argument("--sets", default="Set5,Set14")
    parser.add_argument("--networks")
    parser.add_argument("--levels", help="noises or qualities, separated by commas; 0: clean")
    parser.add_argument("--jpeg", type=int, metavar="QUALITY", help="of noise: it is a JPEG of this quality then")
    parser.add_argument("--data", type=Path)
    args = parser.parse_args()
    title, how, word, levels, made_for = KINDS[args.kind]
    levels = tuple(map(int, args.levels.split(","))) if args.levels else levels
    none = "no noise" if args.jpeg else "clean"
    damages = {f"{word} {level}" if level else none: damage_of(args.kind, level, args.jpeg) for level in levels}
    networks = (args.networks or f"bicubic,{DEFAULT},{made_for}").split(",")
    chosen = [sets.find(name, args.data) for name in args.sets.split(",")]
    info, hashes = machine(torch.device("cpu")), []
    print(f"# {title}\n\n`python {' '.join(sys.argv)}`\n")
    if args.jpeg:
        how += f", and it is written and read as a JPEG of quality {args.jpeg}"
    text = (
        f"PSNR on luma (dB) / SSIM. The small picture is made by the published protocol; then {how}. The enlarged one "
        f"is compared with the clean original. PyTorch in float32, {info['device']}."
    )
    print(textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False) + "\n")
    print(f"| network | set | {' | '.join(damages)} |")
    print(f"|---|---|{'---:|' * len(damages)}")
    for scale in (int(text) for text in args.scales.split(",")):
        runs = [
            benchmark.run(networks, chosen, scale, damage=damage, settings={"device": "cpu"}, timed_size=None)
            for damage in damages.values()
        ]
        for one in chosen:
            for rows in zip(*(run.rows for run in runs)):
                if rows[0].missing:
                    continue
                figures = [means(row.scores[damage.of(one.name)]) for row, damage in zip(rows, damages.values())]
                cells = (f"{f['psnr']:.2f} / {f['ssim']:.4f}" for f in figures)
                print(f"| {rows[0].name} x{scale} | {one.name} | {' | '.join(cells)} |", flush=True)
        hashes += [f"- {row.name} x{scale}: `{row.sha256}`" for row in runs[0].rows if row.sha256]
    print("\nWeights (SHA-256):\n")
    print("\n".join(hashes))


if __name__ == "__main__":
    sys.exit(told(main))
