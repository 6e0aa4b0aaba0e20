"""How long a network takes and how much memory it needs on this machine.

Measured in a process of its own, `python -m finescale.evaluation.speed`: memory is not that of what ran before.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from multiprocessing import spawn
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from finescale.errors import FinescaleError, UsageError
from finescale.evaluation.contenders import contender
from finescale.inference.engines.pytorch import pick_device
from finescale.inference.machine import apart, processor
from finescale.layers.activation import ACTIVATIONS
from finescale.networks.catalogue import NETWORKS

_CHILD = "FINESCALE_TIMES"  # in the environment of the process that measures
SIZE = (320, 180)  # width, height of the picture that the published timings enlarge, to 1280 x 720 at x4


@dataclass(frozen=True)
class Speed:
    """Seconds for one picture (median) and peak memory in MiB (None where it cannot be told)."""

    seconds: float
    memory: float | None


def measure_apart(
    name: str, scale: int, settings: Mapping[str, Any], size: tuple[int, int] = SIZE, *, repeats: int = 3
) -> Speed:
    """Measures a contender in a fresh process with the same number of threads.

    Where this program brought networks or activations of its own, that process imports it first, as `__mp_main__`.

    Args:
        name, scale, settings: see `finescale.evaluation.contenders.contender`.
        size, repeats: see `measure`.

    Raises:
        UsageError: the program does its work where it is imported.
        FinescaleError: the process failed (memory ran out, say).
    """
    task = {"name": name, "scale": scale, "settings": dict(settings), "size": size, "repeats": repeats}
    task |= {"threads": torch.get_num_threads(), "program": _program()}
    command, environment = apart("finescale.evaluation.speed", json.dumps(task))
    if _CHILD in environment:
        raise UsageError(f"{name}: the program's work needs `if __name__ == '__main__':` before it")
    environment[_CHILD] = "1"
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        raise FinescaleError(f"{name}: could not be timed ({reason[0]})")
    try:
        return Speed(**json.loads(done.stdout.splitlines()[-1]))  # libraries may have printed before it
    except (IndexError, ValueError, TypeError) as error:
        raise FinescaleError(f"{name}: could not be timed (its process did not say how long it took)") from error


def _program() -> dict[str, str]:
    """What multiprocessing needs to import this program in another process; nothing where it brought nothing."""
    made = [*ACTIVATIONS.values(), *(entry.architecture for entry in NETWORKS.values())]
    if all(one.__module__.startswith("finescale.") for one in made):
        return {}
    return {key: value for key, value in spawn.get_preparation_data("timing").items() if key.startswith("init_main")}


def _main(task: dict[str, Any]) -> None:
    """The other end of `measure_apart`."""
    spawn.prepare(task["program"])
    torch.set_num_threads(task["threads"])
    device = pick_device(task["settings"].get("device", "auto"))
    entrant = contender(task["name"], task["scale"], settings=task["settings"])
    speed = measure(entrant.enlarge, tuple(task["size"]), device=device, repeats=task["repeats"])
    print(json.dumps(asdict(speed)))


def measure(
    enlarge: Callable[[Tensor], Tensor], size: tuple[int, int] = SIZE, *, device: torch.device, repeats: int = 3
) -> Speed:
    """Times `enlarge` on one picture of `size` (width, height), after one run to warm up.

    Memory is the peak of the whole process on a CPU (resident set, Linux only) and what torch allocated on a GPU.
    """
    generator = torch.Generator().manual_seed(0)
    picture = torch.randint(0, 256, (3, size[1], size[0]), dtype=torch.uint8, generator=generator)
    seconds = []
    reset_peak(device)
    for _ in range(repeats + 1):
        start = time.perf_counter()
        enlarge(picture)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return Speed(statistics.median(seconds[1:]), peak(device))


def reset_peak(device: torch.device) -> None:
    """Lets `peak` count anew."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        with suppress(OSError):  # a hardened container: the peak is then that of the process's whole life
            Path("/proc/self/clear_refs").write_text("5")


def peak(device: torch.device) -> float | None:
    """Peak MiB since `reset_peak`: resident in this process (Linux only, else None), or allocated by torch on a GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if sys.platform != "linux":
        return None
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
    return None  # a sandbox whose /proc does not tell


def machine(device: torch.device) -> dict[str, Any]:
    """What the figures were measured on: processor or GPU, threads, versions."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


if __name__ == "__main__":
    _main(json.loads(sys.argv[1]))
