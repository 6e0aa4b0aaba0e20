"""`finescale upscale` of a small picture from start to end, against the network's own time; interleaved.

    python benchmarks/startup.py [--network sa-rcan-light] [--rounds 7] > startup.md

A first run compiles the network and is timed by itself, with an empty cache; the others find it compiled. Beside them:
Python with what the fast path cannot do without imported and nothing done, and the network by PyTorch in float32, as
published networks are usually run (imports not counted).
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from finescale.cli.main import told
from finescale.evaluation.speed import machine
from finescale.images.files import read, write
from finescale.images.picture import Picture
from finescale.images.scaling import resize_picture
from finescale.inference.upscale import Upscaler
from finescale.networks import DEFAULT
from finescale.weights import store

# as the command imports them
IMPORTS = {
    "mnn": "import MNN",
    "openvino": "import sys; sys.modules.update({'openvino.tools.ovc': None, 'openvino_telemetry': None}); "
    "import openvino",
}
PHOTOGRAPH = Path(__file__).resolve().parents[1] / "docs" / "images" / "hopper.jpg"


def seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default=DEFAULT)
    parser.add_argument("--scale", type=int, default=4, choices=(2, 3, 4))
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    square = read(PHOTOGRAPH).pixels[:512, :512].copy()
    x = resize_picture(Picture(square), (args.side, args.side)).pixels
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        write(Picture(x), folder / "small.jpg", quality=95)
        command = [sys.executable, "-m", "finescale", "upscale", str(folder / "small.jpg"), "--overwrite"]
        command += ["--device", "cpu"]
        command += ["--network", args.network, "--scale", str(args.scale), "--quiet"]
        first = seconds(command)
        network = store.find(args.network, args.scale) or store.load(args.network, args.scale)
        upscaler = Upscaler(network, device="cpu")
        imported = [sys.executable, "-c", f"import numpy; {IMPORTS.get(upscaler.engine.name, 'import torch')}"]
        usual = Upscaler(network, device="cpu", engine="torch", precision="float32", window=None)
        whole: list[float] = []
        imports: list[float] = []
        own: list[float] = []
        eager: list[float] = []
        for _ in range(args.rounds + 1):
            whole.append(seconds(command))
            imports.append(seconds(imported))
            for one, times in ((upscaler, own), (usual, eager)):
                started = time.perf_counter()
                one.pixels(x)
                times.append(time.perf_counter() - started)
        for times in (whole, imports, own, eager):
            del times[0]  # the first is slower
    ratios = [a / b for a, b in zip(whole, own)]
    info = machine(torch.device("cpu"))
    print(f"# Start-up\n\n`python {' '.join(sys.argv)}`\n")
    print(
        f"{info['device']}, {info['threads']} threads. `finescale upscale small.jpg --scale {args.scale}`, "
        f"{args.side} x {args.side}, {args.network} by {upscaler.engine.name} in {upscaler.engine.precision}; "
        f"median of {args.rounds} interleaved rounds.\n"
    )
    print("| what | seconds |\n|---|---:|")
    print(f"| the command, first run (compiles) | {first:.2f} |")
    print(f"| the command, later | {statistics.median(whole):.2f} |")
    print(f"| of that, Python with numpy and the engine imported | {statistics.median(imports):.2f} |")
    print(f"| the network alone | {statistics.median(own):.2f} |")
    print(f"| the network alone, by PyTorch in float32 | {statistics.median(eager):.2f} |")
    print(f"\nThe command takes {statistics.median(ratios):.2f} times the network's own time (", end="")
    print(f"{min(ratios):.2f} to {max(ratios):.2f}),", end="")
    print(f" and {statistics.median(whole) / statistics.median(eager):.2f} times PyTorch's. The aim is 2.5 times.")


if __name__ == "__main__":
    sys.exit(told(main))
