"""Seconds and memory of a training step: Finescale's against the plain float32 eager step, interleaved.

    python benchmarks/training_step.py [rcan unet-9] [--batch 16] [--scale 2] [--device cuda] [--compile blocks]
    python benchmarks/training_step.py sa-rcan --device cuda --batch 64 --profile profile.txt
    python benchmarks/training_step.py sa-rcan --device cuda --batch 64 --compile blocks --ways ours --no-memory

"plain" is the structure of published training code: float32, NCHW, unfused Adam, no average, the loss read at every
step. Both take the same crops; no time is spent on data.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import Tensor, nn

from finescale.cli.main import told
from finescale.evaluation import speed
from finescale.inference.machine import keep_memory
from finescale.networks import catalogue
from finescale.training import measure
from finescale.training.loop import Training
from finescale.training.parallel import World
from finescale.training.recipe import parse_recipe


class Same:
    """The same random crops at every step, on the device."""

    def __init__(self, batch: int, patch: int, scale: int, device: torch.device) -> None:
        shape = (batch, 3, patch, patch)
        self.patch, self.generator = patch, torch.Generator()
        self.low = torch.rand(shape, device=device).contiguous(memory_format=torch.channels_last)
        self.high = torch.rand((batch, 3, patch * scale, patch * scale), device=device)

    def batch(self, count: int) -> tuple[Tensor, Tensor]:
        return self.low, self.high

    def set_patch(self, patch: int) -> None:
        raise ValueError("one size")


def plain(name: str, crops: Same, args: argparse.Namespace, device: torch.device) -> Callable[[], object]:
    """The published codes' step."""
    network = catalogue.build(name, scale=args.scale).to(device).train()
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-4, foreach=False, fused=False)
    low, high = crops.low.contiguous(), crops.high

    def step() -> float:
        optimiser.zero_grad()
        loss = nn.functional.l1_loss(network(low), high)
        loss.backward()
        optimiser.step()
        return loss.item()

    return step


def ours(name: str, crops: Same, args: argparse.Namespace, device: torch.device) -> Callable[[], object]:
    """Finescale's step."""
    recipe = parse_recipe(
        {
            "network": name,
            "scale": args.scale,
            "budget": 1_000_000,
            "precision": args.precision,
            "compile": args.compile,
            "data": {"batch": args.batch, "patch": args.patch},
            "optimiser": {"kind": args.optimiser, "rate": 1e-4},
        },
        "benchmark",
    )
    network = catalogue.build(name, scale=args.scale).to(device)
    training = Training(
        network,
        crops,
        recipe,
        nn.functional.l1_loss,
        world=World(0, 1, device),
        out=Path("unused"),
        capture=args.capture,
    )
    training.prepare()
    if training.progress.prepared:  # of a run's budget, as the steps are
        print(f"{name}: ready after {training.progress.prepared:.0f} s")
    return training.step


def seconds(step: Callable[[], object], steps: int, device: torch.device) -> float:
    """Of one step."""
    started = time.perf_counter()
    for _ in range(steps):
        step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - started) / steps


WAYS = {"plain": plain, "ours": ours}


def memory(way: str, name: str, args: argparse.Namespace) -> float | None:
    """Peak MiB of a few steps, above what is there already; on a CPU of a fresh process."""
    if args.device != "cpu":
        return grown(way, name, args)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(grown, way, name, args).result()


def grown(way: str, name: str, args: argparse.Namespace) -> float | None:
    """MiB that two steps need; None where it cannot be told."""
    device = torch.device(args.device)
    crops = Same(args.batch, args.patch, args.scale, device)
    speed.reset_peak(device)
    before = speed.peak(device)
    seconds(WAYS[way](name, crops, args, device), 2, device)
    after = speed.peak(device)
    return None if before is None or after is None else after - before


def profile(step: Callable[[], object], file: Path, device: torch.device) -> None:
    """Where a step's time goes, by kernel."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as trace:
        seconds(step, 5, device)
    key = "cuda_time_total" if device.type == "cuda" else "cpu_time_total"
    file.write_text(trace.key_averages().table(sort_by=key, row_limit=40))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=["rcan", "unet-9"])
    parser.add_argument("--scale", type=int, default=2, choices=(2, 3, 4))
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--patch", type=int, default=48)
    parser.add_argument("--steps", type=int, default=5, help="for each and round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--optimiser", default="adam", choices=("adam", "muon"), help="of ours; plain has Adam")
    parser.add_argument("--precision", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--compile", default="off", choices=("off", "blocks", "whole"))
    parser.add_argument(
        "--capture", action=argparse.BooleanOptionalAction, default=True, help="record ours as a CUDA graph (on a GPU)"
    )
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS, help="which steps to take")
    parser.add_argument("--no-memory", dest="memory", action="store_false", help="measure the time alone")
    parser.add_argument(
        "--profile", type=Path, metavar="FILE", help="write a profile of our step (of the last network)"
    )
    args = parser.parse_args()
    if args.profile and "ours" not in args.ways:
        parser.error("--profile is of our step, which --ways leaves out")
    device = torch.device(args.device)
    keep_memory()  # as `finescale train` does
    torch.backends.cudnn.benchmark = True
    peak = measure.measured_peak(device, args.precision)
    print(f"{device}: {peak / 1e12:.3g} TFLOP/s in {args.precision} matrix products")
    for name in args.networks:
        crops = Same(args.batch, args.patch, args.scale, device)
        memories = {way: memory(way, name, args) for way in args.ways if args.memory}
        steps = {way: WAYS[way](name, crops, args, device) for way in args.ways}
        for step in steps.values():
            seconds(step, 2, device)
        times: dict[str, list[float]] = {way: [] for way in steps}
        for _ in range(args.rounds):  # interleaved, so that both meet the same machine
            for way, step in steps.items():
                times[way].append(seconds(step, args.steps, device))
        flops = args.batch * measure.step_flops(catalogue.build(name, scale=args.scale), args.patch)
        result = {way: statistics.median(values) for way, values in times.items()}
        words = [", ".join(f"{way} {value:.4f} s" for way, value in result.items())]
        if len(result) > 1:
            words.append(f"{result['plain'] / result['ours']:.2f} times as fast")
        if memories:
            words.append(" and ".join(f"{value or 0:.0f}" for value in memories.values()) + " MiB")
        if "ours" in result:
            rate = flops / result["ours"]
            words.append(f"{rate / 1e12:.3g} TFLOP/s ({rate / peak:.0%} of peak)")
        print(f"{name} x{args.scale}, batch {args.batch} of {args.patch} x {args.patch}: {', '.join(words)}")
        print(
            json.dumps({"network": name, "seconds": result, "memory_mib": memories, "peak_flops": peak, "flops": flops})
        )
        if args.profile:
            profile(steps["ours"], args.profile, device)


if __name__ == "__main__":
    sys.exit(told(main))
