"""What this machine has and sends: its processor, its memory and how much of it a tile may take, its signals."""

import ctypes
import math
import os
import platform
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finescale.errors import FinescaleError

if TYPE_CHECKING:
    import torch

_PROC, _GROUPS = Path("/proc"), Path("/sys/fs/cgroup")
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


class NoPythonError(FinescaleError):
    """This program is no Python that could be started once more, see `apart`."""


def cores(proc: Path = _PROC, groups: Path = _GROUPS) -> int:
    """Cores that this process may use; two threads of one core (Linux tells) count once.

    Of a container that gets a share of the time of all cores, so many as that is of.
    """
    return min([_allowed(), *map(math.ceil, _shares(proc, groups))])


def threads() -> int:
    """With how many threads engines compute on the CPU: `cores`, or fewer where OMP_NUM_THREADS says so."""
    return min([cores(), *_wished()])


def limited() -> bool:
    """Whether `threads` are fewer than the cores that an engine sees by itself."""
    return threads() < _allowed()


def _wished() -> list[int]:
    """OMP_NUM_THREADS; of a list, which is for threads within threads, its first. Empty where it is no such number."""
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return [int(first)] if first.isdecimal() and int(first) else []


def _allowed() -> int:
    """Cores that the system lets this process run on, see `cores`."""
    try:
        own = os.sched_getaffinity(0)
        folder = Path("/sys/devices/system/cpu")
        return len({(folder / f"cpu{one}" / "topology" / "thread_siblings_list").read_text() for one in own})
    except (OSError, AttributeError):
        return os.cpu_count() or 1


def _shares(proc: Path, groups: Path) -> Iterator[float]:
    """Cores whose whole time the control groups of this process leave it; none where they do not limit it."""
    for version, group in _own_groups("cpu", proc, groups):
        with suppress(OSError, ValueError):  # of "max", too
            names = ("cpu.max",) if version == 2 else ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            quota, period = map(int, " ".join((group / name).read_text() for name in names).split())
            if quota > 0:
                yield quota / period


def apart(module: str, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """Command and environment of a module of ours in a process of its own, which imports what this one would.

    Raises:
        NoPythonError: this program is no Python that could be started once more: it holds one, or was made of one.
    """
    if hasattr(sys, "frozen") or "python" not in Path(sys.executable or "").name.lower():
        program = sys.executable or "this program"
        raise NoPythonError(f"this work needs a Python of its own, and {program} is none that can be started")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return [sys.executable, "-P", "-m", module, *arguments], environment


def signals(*names: str) -> dict[int, Any]:
    """Those of some signals that this program may take over, with what they do so far.

    None outside the main thread, where Python takes none; and not those that are ignored, nor those of a program that
    is not in Python, to which they could not be given back.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    found = {number: signal.getsignal(number) for number in numbers}
    return {number: handler for number, handler in found.items() if handler not in (signal.SIG_IGN, None)}


def meminfo(proc: Path = _PROC) -> dict[str, int]:
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


def available(proc: Path = _PROC, groups: Path = _GROUPS) -> Iterator[float]:
    """Bytes that the machine and the control groups of this process have left; nothing outside Linux."""
    if (free := meminfo(proc).get("MemAvailable")) is not None:
        yield free
    for version, group in _own_groups("memory", proc, groups):
        limit, usage, prefix = (
            ("max", "current", "") if version == 2 else ("limit_in_bytes", "usage_in_bytes", "total_")
        )
        with suppress(OSError, KeyError):
            most, used = ((group / f"memory.{name}").read_text().strip() for name in (limit, usage))
            parts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            if most != "max":
                caches = int(parts[f"{prefix}active_file"]) + int(parts[f"{prefix}inactive_file"])  # can be let go
                yield max(0, int(most) - int(used) + caches)


def _own_groups(controller: str, proc: Path, groups: Path) -> Iterator[tuple[int, Path]]:
    """The control groups of this process and those above them, with their version.

    In a container only the uppermost is there, and is its own.
    """
    try:
        own = [line.split(":", 2) for line in (proc / "self" / "cgroup").read_text().splitlines()]
    except OSError:
        return
    for _, controllers, path in own:
        if controllers and controller not in controllers.split(","):
            continue
        version, root = (1, groups / controller) if controllers else (2, groups)
        place = root / path.strip("/")
        for group in (place, *place.parents):
            yield version, group
            if group == root:
                break


def keep_memory() -> None:
    """From here on this process keeps the memory that it lets go of, for its next use; where glibc is, else nothing.

    By itself glibc gives large tensors back to the system at once, which fills every page with zeros when the next step
    of training asks for them again.
    """
    with suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in ((-4, 0), (-1, -1), (-2, 256 << 20)):  # M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD
            mallopt(option, value)
