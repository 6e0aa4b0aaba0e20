"""How long a network takes and how much memory it needs on this machine."""

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SIZE = (320, 180)  # width, height of the picture that the published timings enlarge, to 1280 x 720 at x4


@dataclass(frozen=True)
class Speed:
    """Seconds for one picture of `size` (median) and peak memory in MiB (None where it cannot be told)."""

    seconds: float
    memory: float | None
    size: tuple[int, int]
    repeats: int


def measure(
    enlarge: Callable[[Tensor], Tensor], size: tuple[int, int] = SIZE, *, device: torch.device, repeats: int = 3
) -> Speed:
    """Times `enlarge` on one picture of `size` (width, height), after one run to warm up.

    Memory is the peak of the whole process on a CPU (resident set, Linux only) and what torch allocated on a GPU.
    """
    generator = torch.Generator().manual_seed(0)
    picture = torch.randint(0, 256, (3, size[1], size[0]), dtype=torch.uint8, generator=generator)
    seconds = []
    _reset_peak(device)
    for _ in range(repeats + 1):
        start = time.perf_counter()
        enlarge(picture)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return Speed(statistics.median(seconds[1:]), _peak(device), size, repeats)


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        with suppress(OSError):  # a hardened container: the peak is then that of the process's whole life
            Path("/proc/self/clear_refs").write_text("5")


def _peak(device: torch.device) -> float | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if sys.platform != "linux":
        return None
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def machine(device: torch.device) -> dict[str, Any]:
    """What the figures were measured on: processor or GPU, threads, versions."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
