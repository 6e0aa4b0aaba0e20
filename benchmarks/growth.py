"""Seconds and memory of `finescale upscale` from file to file, for pictures from 0.1 to 100 megapixels.

    python benchmarks/growth.py [--megapixels 0.1,0.3,1,3,10,30,100] [--plot growth.svg] [--folder DIR] > growth.md
    python benchmarks/growth.py --megapixels 100 --kill 60      # killed after 60 seconds, then resumed
    python benchmarks/growth.py --megapixels 1,4 --scale 3.9    # enlarged x4, then resized: whole, not by strips

DIR (by default a temporary folder) needs room for the largest result: 5 GB for 100 megapixels x4. With --kill, each
picture's first run is killed without warning (SIGKILL) after so many seconds and the command is given again.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pyvips
import torch

from finescale.cli.main import told
from finescale.evaluation.plots import OURS, require
from finescale.evaluation.speed import machine
from finescale.images.files import probe
from finescale.inference.size import Target
from finescale.networks import DEFAULT

PHOTOGRAPH = Path(__file__).resolve().parents[1] / "docs" / "images" / "hopper.jpg"


@dataclass(frozen=True)
class Point:
    """One picture: megapixels of the input; seconds and peak resident MiB of the command, and of the killed one."""

    megapixels: float
    seconds: float
    memory: float
    killed: tuple[float, float] | None


def make(megapixels: float, file: Path) -> None:
    """A TIFF file of about so many megapixels, a photograph laid side by side, written by strips."""
    photo = pyvips.Image.new_from_file(str(PHOTOGRAPH))
    side = round((megapixels * 1e6) ** 0.5)
    across, down = -(-side // photo.width), -(-side // photo.height)
    photo.replicate(across, down).crop(0, 0, side, side).tiffsave(
        str(file), compression="deflate", predictor="horizontal"
    )


def timed(command: list[str], limit: float | None = None) -> tuple[float, float, bool]:
    """Seconds, peak resident MiB, and whether the command ended by itself within `limit` seconds."""
    started = time.perf_counter()
    process = subprocess.Popen(command)
    ended = True
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        if limit is not None and time.perf_counter() - started > limit and ended:
            process.send_signal(signal.SIGKILL)
            ended = False
        time.sleep(0.02)
    if ended and status:
        raise SystemExit(f"{' '.join(command)}: exit status {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - started, usage.ru_maxrss / 1024, ended


def measure(megapixels: float, args: argparse.Namespace, folder: Path) -> Point:
    source, target = folder / "in.tif", folder / f"out.{args.format}"
    make(megapixels, source)
    target.unlink(missing_ok=True)
    command = [sys.executable, "-m", "finescale", "upscale", str(source), "-o", str(target), "--quiet"]
    command += ["--scale", str(args.scale), "--network", args.network, "--precision", args.precision]
    command += ["--device", "cpu"]
    command += ["--ensemble"] if args.ensemble else []
    killed = None
    if args.kill:
        seconds, memory, ended = timed(command, args.kill)
        if ended:
            print(f"{megapixels:g} megapixels took less than {args.kill:g} seconds: not killed", file=sys.stderr)
            target.unlink()
        else:
            if target.exists():
                raise SystemExit(f"{target} is there although its writer was killed")
            killed = seconds, memory
    seconds, memory, _ = timed(command)
    small, large = probe(source), probe(target)
    if (large.width, large.height) != Target(scale=args.scale).size(small.width, small.height):
        raise SystemExit(f"{target}: {large.width} x {large.height} pixels are not what was asked for")
    found = Point(small.width * small.height / 1e6, seconds, memory, killed)
    target.unlink()
    left = [path.name for path in folder.iterdir() if path != source]
    if left:
        raise SystemExit(f"left behind: {', '.join(left)}")
    return found


def draw(points: list[Point], file: Path) -> None:
    """Seconds and memory against megapixels."""
    matplotlib = require()
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "finescale", "svg.fonttype": "path", "font.size": 9}):
        figure = Figure(figsize=(8, 3.4), layout="constrained")
        left, right = figure.subplots(1, 2)
        pixels = [point.megapixels for point in points]
        left.loglog(pixels, [point.seconds for point in points], "o-", color=OURS)
        left.set_ylabel("seconds, file to file")
        right.semilogx(pixels, [point.memory for point in points], "o-", color=OURS)
        right.set_ylabel("peak resident MiB")
        right.set_ylim(bottom=0)
        for axes in (left, right):
            axes.set_xlabel("megapixels of the input")
            axes.grid(True, color="#e5e7eb", linewidth=0.6)
            axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default=DEFAULT)
    parser.add_argument("--scale", type=float, default=4, help="2, 3, 4, or any other up to 16")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--ensemble", action="store_true")
    parser.add_argument("--megapixels", default="0.1,0.3,1,3,10,30,100")
    parser.add_argument("--format", default="tif", choices=("tif", "png", "jpg"))
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--folder", type=Path, help="for the pictures")
    parser.add_argument("--kill", type=float, metavar="SECONDS")
    args = parser.parse_args()
    info = machine(torch.device("cpu"))
    title = "Killed, and gone on" if args.kill else "Cost against pixels"
    title += ", self-ensemble" if args.ensemble else ""
    title += "" if args.scale in (2, 3, 4) else ", a factor that no network has"
    print(f"# {title}\n\n`python {' '.join(sys.argv)}`\n")
    options = f"--scale {args.scale:g}{' --ensemble' if args.ensemble else ''}"
    print(
        f"{info['device']}, {info['threads']} threads. `finescale upscale in.tif -o out.{args.format} {options}`, "
        f"{args.network}, {args.precision} precision, start to end.\n"
    )
    killed = " killed after (s, MiB) |" if args.kill else ""
    print(f"| megapixels in | megapixels out | seconds | s per megapixel out | peak resident MiB |{killed}")
    print(f"|---:|---:|---:|---:|---:|{'---:|' if args.kill else ''}")
    points = []
    folder = Path(tempfile.mkdtemp(dir=args.folder))
    try:
        for text in args.megapixels.split(","):
            point = measure(float(text), args, folder)
            points.append(point)
            large = point.megapixels * args.scale**2
            more = ""
            if args.kill:
                more = f" {point.killed[0]:.0f}, {point.killed[1]:.0f} |" if point.killed else " - |"
            print(
                f"| {point.megapixels:.3g} | {large:.4g} | {point.seconds:.1f} | {point.seconds / large:.3f} "
                f"| {point.memory:.0f} |{more}",
                flush=True,
            )
    finally:
        shutil.rmtree(folder)
    if args.kill:
        print("\nSeconds and memory are those of the command that went on after the kill.")
    if args.plot:
        draw(points, args.plot)


if __name__ == "__main__":
    sys.exit(told(main))
