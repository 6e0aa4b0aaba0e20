"""What this machine has: its processor, its memory, and how much of that a tile may take; needs no torch."""

import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

MAX_BUDGET = 5 << 28
"""Bytes for the features of one tile on a CPU: the most, which keeps a default run under 2 GiB."""
MIN_BUDGET = 1 << 27
"""And the least: smaller tiles are all margin, and what is free is no more than a hint."""


def processor() -> str:
    """The processor's model, as far as the system tells."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def cores() -> int:
    """Cores that this process may use; two threads of one core (Linux tells) count once."""
    try:
        own = os.sched_getaffinity(0)
        folder = Path("/sys/devices/system/cpu")
        return len({(folder / f"cpu{one}" / "topology" / "thread_siblings_list").read_text() for one in own})
    except (OSError, AttributeError):
        return os.cpu_count() or 1


def apart(module: str, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """Command and environment of a module of ours in a process of its own, which imports what this one would."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return [sys.executable, "-P", "-m", module, *arguments], environment


def meminfo(proc: Path = Path("/proc")) -> dict[str, int]:
    """Linux's figures of the main memory ("MemTotal", "MemAvailable", ...) in bytes; none elsewhere."""
    try:
        entries = [line.partition(":") for line in (proc / "meminfo").read_text().splitlines()]
    except OSError:
        return {}
    return {name: int(value.split()[0]) * 1024 for name, _, value in entries if value.endswith("kB")}


def tile_budget(device: "torch.device | None" = None) -> float:
    """Bytes for the features of one tile now: half of what is free, and on a CPU between `MIN_BUDGET` and `MAX_BUDGET`.

    Args:
        device: None: the CPU.
    """
    if device is not None and device.type == "cuda":
        import torch

        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # freed tensors of torch
        return (torch.cuda.mem_get_info(device)[0] + kept) / 2
    return max(MIN_BUDGET, min([MAX_BUDGET, *(free / 2 for free in available())]))


def available(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> Iterator[float]:
    """Bytes that the machine and the control groups of this process have left; nothing outside Linux."""
    if (free := meminfo(proc).get("MemAvailable")) is not None:
        yield free
    try:
        own = [line.split(":", 2) for line in (proc / "self" / "cgroup").read_text().splitlines()]
    except OSError:
        return
    for _, controllers, path in own:
        if not controllers:  # version 2
            yield from _left(groups, path, "max", "current", "")
        elif "memory" in controllers.split(","):  # version 1
            yield from _left(groups / "memory", path, "limit_in_bytes", "usage_in_bytes", "total_")


def _left(root: Path, path: str, limit: str, usage: str, prefix: str) -> Iterator[float]:
    """Bytes that a control group and those above it have left; in a container only `root` is there, and is its own."""
    place = root / path.strip("/")
    for group in (place, *place.parents):
        try:
            most, used = ((group / f"memory.{name}").read_text().strip() for name in (limit, usage))
            parts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            if most != "max":
                caches = int(parts[f"{prefix}active_file"]) + int(parts[f"{prefix}inactive_file"])  # can be let go
                yield max(0, int(most) - int(used) + caches)
        except (OSError, KeyError):
            pass
        if group == root:
            return
