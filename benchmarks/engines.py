"""The default path and int8 against the usual way and against other programs' engines, interleaved.

    python benchmarks/engines.py [sa-rcan-light] [--scale 4] [--size 320x180] [--rounds 7] > engines.md

"the usual way" is how published networks are run: the same network, PyTorch eager in float32, the whole picture at once
with statistics of the whole picture. ONNX Runtime and OpenCV (pip install "finescale[brisque]" brings it; used as its
`dnn_superres` does) run the file that `finescale export` writes. Every way takes and gives the picture as 8-bit RGB.
Ratios are medians of the rounds' ratios; the share of the measured peak (float32 or bfloat16, whichever is higher)
counts the network's multiplications only.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from finescale.cli.main import told
from finescale.errors import FinescaleError
from finescale.evaluation.speed import machine
from finescale.images.files import read
from finescale.images.picture import Picture
from finescale.images.scaling import resize_picture
from finescale.images.sizes import parse_box
from finescale.inference.export import export
from finescale.inference.prepare import for_inference
from finescale.inference.tiling import Array, from_unit, to_unit
from finescale.inference.upscale import Upscaler
from finescale.networks import DEFAULT
from finescale.networks.base import Network
from finescale.networks.complexity import count
from finescale.training.measure import measured_peak
from finescale.weights import store

PHOTOGRAPH = Path(__file__).resolve().parents[1] / "docs" / "images" / "hopper.jpg"
USUAL, OURS = "the usual way", "finescale (default)"

Way = Callable[[Array], Array]


def through(run: Callable[[Array], Array]) -> Way:
    """A way from a function on (1, 3, H, W) float32 in [0, 1]."""

    def enlarge(pixels: Array) -> Array:
        y = run(np.ascontiguousarray(to_unit(pixels).transpose(2, 0, 1)[None]))
        return from_unit(y[0].transpose(1, 2, 0), np.uint8)

    return enlarge


def usual(network: Network) -> Way:
    def run(x: Array) -> Array:
        with torch.inference_mode():
            return network(torch.from_numpy(x)).numpy()

    return through(run)


def onnx_runtime(file: Path) -> Way:
    import onnxruntime

    session: Any = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return through(lambda x: session.run(None, {"picture": x})[0])


def opencv(file: Path, size: tuple[int, int]) -> Way:
    import cv2

    cv2.setNumThreads(torch.get_num_threads())
    network = cv2.dnn.readNetFromONNX(str(file))

    def run(x: Array) -> Array:
        network.setInput(x)
        return np.asarray(network.forward())

    run(np.zeros((1, 3, size[1], size[0]), np.float32))  # what it cannot compute is met here
    return through(run)


def _ours(network: Network | Path, **settings: Any) -> Way:
    return Upscaler(network, device="cpu", **settings).pixels


def ways(name: str, scale: int, size: tuple[int, int], folder: Path, say: Callable[[str], None]) -> dict[str, Way]:
    """Everything that can be run here; what cannot is said."""
    network = store.load(name, scale)
    source = store.find(name, scale) or network
    found: dict[str, Way] = {USUAL: usual(network), OURS: _ours(source)}

    def add(label: str, make: Callable[[], Way]) -> bool:
        try:
            found[label] = make()
        except ImportError as error:
            say(f"{label}: left out, {error.name} is not installed")
        except FinescaleError as error:
            say(f"{label}: left out, {error}")
        except Exception as error:  # whatever another program meets in our file
            lines = str(error).strip().splitlines() or [type(error).__name__]
            say(f"{label}: cannot run this network ({lines[0][:160]})")
        return label in found

    add("finescale --precision int8", partial(_ours, source, precision="int8"))
    for engine in ("openvino", "mnn", "torch"):
        add(f"finescale --engine {engine}", partial(_ours, source, engine=engine))
    files = {"local": folder / "local.onnx", "global": folder / "global.onnx"}
    try:
        export(network, files["local"])
        export(network, files["global"], window=None)
    except FinescaleError as error:
        say(f"ONNX Runtime, OpenCV: left out, {error}")
        return found
    add("ONNX Runtime", lambda: onnx_runtime(files["local"]))
    if not add("OpenCV dnn", lambda: opencv(files["local"], size)):
        add("OpenCV dnn, statistics of the whole picture", lambda: opencv(files["global"], size))
    return found


def picture(size: tuple[int, int]) -> Array:
    """A photograph of (width, height)."""
    found = read(PHOTOGRAPH)
    width, height = found.size
    if width * size[1] > height * size[0]:
        pixels = found.pixels[:, : height * size[0] // size[1]]
    else:
        pixels = found.pixels[: width * size[1] // size[0]]
    return resize_picture(Picture(np.ascontiguousarray(pixels)), size).pixels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=[DEFAULT])
    parser.add_argument("--scale", type=int, default=4, choices=(2, 3, 4))
    parser.add_argument("--size", default="320x180", help="of the picture that is enlarged")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    size = parse_box(args.size)
    device = torch.device("cpu")
    info = machine(device)
    print(f"# Engines side by side\n\n`python {' '.join(sys.argv)}`\n")
    peaks = {name: measured_peak(device, name) for name in ("float32", "bfloat16")}
    print(
        f"{info['device']}, {info['threads']} threads, torch {info['torch']}; measured peak of matrix products: "
        f"float32 {peaks['float32'] / 1e9:.4g} GFLOP/s, bfloat16 {peaks['bfloat16'] / 1e9:.4g} GFLOP/s."
    )
    x = picture(size)
    for name in args.networks:
        remarks: list[str] = []
        with tempfile.TemporaryDirectory() as folder:
            found = ways(name, args.scale, size, Path(folder), remarks.append)
        network = store.load(name, args.scale)
        exact = for_inference(network)
        wanted = usual(exact)(x).astype(float)
        results = {way: enlarge(x) for way, enlarge in found.items()}  # warms up, too
        times: dict[str, list[float]] = {way: [] for way in found}
        for _ in range(args.rounds):
            for way, enlarge in found.items():
                time.sleep(0.2)  # the last one's threads go to sleep
                started = time.perf_counter()
                enlarge(x)
                times[way].append(time.perf_counter() - started)
        flops = 2 * count(network).macs / 48**2 * size[0] * size[1]
        large = size[0] * size[1] * args.scale**2 / 1e6
        print(f"\n## {name} x{args.scale}, {size[0]} x {size[1]}, median of {args.rounds} interleaved rounds\n")
        print("| way | seconds | s per megapixel | times as fast (range) | of the peak | dB to float32 | largest |")
        print("|---|---:|---:|---:|---:|---:|---:|")
        for way, seconds in times.items():
            ratios = [a / b for a, b in zip(times[USUAL], seconds)]
            difference = results[way] - wanted
            error = float(np.square(difference).mean())
            closeness = "∞" if error == 0 else f"{10 * np.log10(255**2 / error):.1f}"
            middle = statistics.median(seconds)
            print(
                f"| {way} | {middle:.3f} | {middle / large:.3f} "
                f"| {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) "
                f"| {flops / middle / max(peaks.values()):.0%} | {closeness} | {np.abs(difference).max():.0f} |"
            )
        print(
            '\n"dB to float32" and "largest" (grey levels) compare with PyTorch in float32 with local statistics, '
            "as Finescale computes; the usual way (PyTorch float32, eager, the whole picture at once) differs because "
            "its statistics are of the whole picture. The aims: 3.5 times, by int8 6 times, and 55% of the peak."
        )
        for remark in remarks:
            print(f"\n{remark}")


if __name__ == "__main__":
    sys.exit(told(main))
