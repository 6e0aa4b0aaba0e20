"""PSNR of networks on pictures that no camera took, kind by kind, beside photographs.

    python benchmarks/graphics.py [--scales 2,3,4] [--networks A,B,...] [--data DIR] > graphics.md

The kinds are drawn by chance as `finescale data draw` does, from seeds that no training uses. "On a screen" are windows
with text, and sprites, whose small pictures are drawn too, as by `finescale data draw --pairs`.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import finescale
from finescale.cli.main import told
from finescale.data.graphics import DRAWINGS, Chance, draw
from finescale.data.native import NATIVE
from finescale.evaluation import benchmark, sets
from finescale.evaluation.metrics import psnr_y, ssim_y
from finescale.evaluation.scoring import means
from finescale.evaluation.speed import machine

FIRST, SIDE = 2_000_000, 480  # seed of the first picture, pixels of its sides


def drawn(folder: Path, count: int) -> list[sets.PictureSet]:
    """One set for every kind of drawing, and one of pictures of several kinds, as `draw` makes them."""
    found = [sets.PictureSet("drawn", tuple(draw(folder, range(FIRST, FIRST + 24), SIDE)))]
    for drawing in dict.fromkeys(DRAWINGS):
        name = drawing.__name__.strip("_").replace("_", " ")
        files = [folder / f"{name}-{seed}.png" for seed in range(FIRST, FIRST + count)]
        for seed, file in enumerate(files, FIRST):
            Image.fromarray(drawing(Chance(seed), SIDE, SIDE)).save(file)
        found.append(sets.PictureSet(name, tuple(files)))
    return found


def on_a_screen(network: str, scale: int, count: int) -> dict[str, tuple[float, float]]:
    """PSNR and SSIM of the kinds of pairs, for which the small pictures are drawn, too, `SIDE` / 2 pixels a side."""
    upscaler = finescale.Upscaler(network, scale=scale, device="cpu", engine="torch", precision="float32")
    found, side = {}, SIDE // 2
    for drawing in dict.fromkeys(NATIVE):
        scores = []
        for seed in range(FIRST, FIRST + count):
            small, large = (drawing(Chance(seed), side, side, zoom) for zoom in (1, scale))
            made = upscaler.pixels(small)
            scores.append((psnr_y(made, large, scale), ssim_y(made, large, scale)))
        psnr, ssim = np.mean(scores, axis=0)
        found[f"{drawing.__name__.strip('_').rstrip('s')}s on a screen"] = (float(psnr), float(ssim))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scales", default="2,3,4")
    parser.add_argument("--networks", default="bicubic,sa-rcan-light,sa-rcan-light-graphics")
    parser.add_argument("--count", type=int, default=3, help="pictures of every kind (3)")
    parser.add_argument("--data", type=Path)
    args = parser.parse_args()
    info, names = machine(torch.device("cpu")), args.networks.split(",")
    print(f"# Text, charts, pixel art\n\n`python {' '.join(sys.argv)}`\n")
    print(
        f"PSNR on luma (dB) / SSIM by the published protocol: {args.count} pictures of {SIDE} x {SIDE} of every kind\n"
        "that `finescale data draw` makes, and 24 of several kinds each (`--count 24 --seed 2000000 --side 480`),\n"
        "from seeds that no training used, in the fonts of the extra `report`; the slide and the comic of Set14;\n"
        f"photographs; {2 * args.count} windows with text and as many pictures of sprites that are not shrunk, but\n"
        f"drawn as screens show them (`--pairs`). PyTorch in float32, {info['device']}.\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        chosen = drawn(Path(folder), args.count)
        set14 = {path.stem: path for path in sets.find("Set14", args.data).pictures}
        chosen += [sets.PictureSet(f"{name} (Set14)", (set14[name],)) for name in ("ppt3", "comic")]
        chosen += [sets.find(name, args.data) for name in ("Set5", "Set14")]
        hashes = []
        for scale in (int(text) for text in args.scales.split(",")):
            run = benchmark.run(names, chosen, scale, settings={"device": "cpu"}, timed_size=None)
            entrants = {row.name: name for row, name in zip(run.rows, names) if not row.missing}  # of files the paths
            rows = [row for row in run.rows if not row.missing]
            print(f"| x{scale} | {' | '.join(row.name for row in rows)} |")
            print(f"|---|{'---:|' * len(rows)}")
            for one in chosen:
                figures = [means(row.scores[one.name]) for row in rows]
                cells = (f"{f['psnr']:.2f} / {f['ssim']:.4f}" for f in figures)
                print(f"| {one.name} | {' | '.join(cells)} |", flush=True)
            screens = [on_a_screen(name, scale, 2 * args.count) for name in entrants.values()]
            for kind in screens[0]:
                cells = (f"{psnr:.2f} / {ssim:.4f}" for psnr, ssim in (one[kind] for one in screens))
                print(f"| {kind} | {' | '.join(cells)} |", flush=True)
            print()
            hashes += [f"- {row.name} x{scale}: `{row.sha256}`" for row in rows if row.sha256]
    print("Weights (SHA-256):\n")
    print("\n".join(hashes))


if __name__ == "__main__":
    sys.exit(told(main))
