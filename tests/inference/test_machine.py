"""How much memory tiles take: what Linux and its control groups say is left."""

import math
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.conftest import tiny_network
from tests.inference.test_tiling import picture

from finescale.errors import FinescaleError
from finescale.inference import machine
from finescale.inference.tiling import Array
from finescale.inference.upscale import Upscaler


def system(folder: Path, free: int, groups: dict[str, tuple[str, int, int]], own: str) -> tuple[Path, Path]:
    """The files of a machine with `free` KiB and control groups of (limit, bytes in use, of those caches)."""
    proc, root = folder / "proc", folder / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text(f"MemTotal: 99 kB\nMemAvailable:   {free} kB\n")
    (proc / "self" / "cgroup").write_text(f"4:cpu:/x\n0::{own}\n")
    for name, (limit, used, caches) in groups.items():
        place = root / name
        place.mkdir(parents=True, exist_ok=True)
        (place / "memory.max").write_text(f"{limit}\n")
        (place / "memory.current").write_text(f"{used}\n")
        (place / "memory.stat").write_text(f"anon 1\nactive_file {caches // 3}\ninactive_file {caches - caches // 3}\n")
    return proc, root


def test_every_group_above_counts(tmp_path: Path) -> None:
    groups = {"a": ("1000", 900, 300), "a/b": ("max", 50, 0), "a/b/c": ("200", 250, 0)}
    assert list(machine.available(*system(tmp_path, 7, groups, "/a/b/c"))) == [7 * 1024, 0, 400]


def test_a_container_sees_its_own_group_as_the_root(tmp_path: Path) -> None:
    assert list(machine.available(*system(tmp_path, 7, {".": ("5000", 1000, 0)}, "/"))) == [7 * 1024, 4000]


def test_groups_of_version_1(tmp_path: Path) -> None:
    proc, root = system(tmp_path, 7, {}, "/")
    (proc / "self" / "cgroup").write_text("5:cpu,cpuacct:/x\n4:memory:/docker/a\n0::/\n")
    (root / "memory").mkdir(parents=True)  # of a container: its own group is the root
    (root / "memory" / "memory.limit_in_bytes").write_text("5000\n")
    (root / "memory" / "memory.usage_in_bytes").write_text("3000\n")
    (root / "memory" / "memory.stat").write_text("active_file 9\ntotal_active_file 300\ntotal_inactive_file 700\n")
    assert list(machine.available(proc, root)) == [7 * 1024, 3000]


def test_systems_that_do_not_tell(tmp_path: Path) -> None:
    assert list(machine.available(tmp_path / "proc", tmp_path / "cgroup")) == []
    assert list(machine.available(*system(tmp_path, 7, {}, "/gone"))) == [7 * 1024]


def test_little_memory_makes_small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    upscaler = Upscaler(tiny_network(2), engine="torch", precision="float32")
    shapes: list[tuple[int, ...]] = []
    run = upscaler.engine.run

    def noting(x: Array) -> Array:
        shapes.append(x.shape[2:])
        return run(x)

    monkeypatch.setattr(upscaler.engine, "run", noting)
    x = picture(300, 300)
    monkeypatch.setattr(machine, "MIN_BUDGET", 0)
    for share in (2.1, 1.1):  # of what the whole picture needs
        pixels = share * 300 * 300
        monkeypatch.setattr(machine, "available", lambda: iter([pixels * upscaler.engine.bytes_per_pixel]))  # noqa: B023
        shapes.clear()
        upscaler.pixels(x)
        assert (shapes == [(300, 300)]) == (share > 2)
        assert max(height * width for height, width in shapes) <= pixels / 2


def test_never_more_than_the_budget_and_half_of_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "available", lambda: iter([1e15, 6e8]))
    assert machine.tile_budget() == machine.tile_budget(torch.device("cpu")) == 3e8
    monkeypatch.setattr(machine, "available", lambda: iter([1e15, 10]))
    assert machine.tile_budget() == machine.MIN_BUDGET
    monkeypatch.setattr(machine, "available", lambda: iter([]))
    assert machine.tile_budget() == machine.MAX_BUDGET


@pytest.mark.parametrize(
    ("own", "files", "share"),
    [
        ("0::/a/b", {"a/cpu.max": "150000 100000", "a/b/cpu.max": "max 100000"}, 1.5),
        ("0::/", {"cpu.max": "50000 100000"}, 0.5),
        ("3:cpu,cpuacct:/x", {"cpu/x/cpu.cfs_quota_us": "400000", "cpu/x/cpu.cfs_period_us": "200000"}, 2),
        ("3:cpu:/x", {"cpu/x/cpu.cfs_quota_us": "-1", "cpu/x/cpu.cfs_period_us": "100000"}, None),
        ("4:memory:/x", {"cpu.max": "50000 100000"}, None),
    ],
)
def test_a_share_of_the_cores(own: str, files: dict[str, str], share: float | None, tmp_path: Path) -> None:
    proc, groups = system(tmp_path, 7, {}, "/")
    (proc / "self" / "cgroup").write_text(f"{own}\n")
    for name, text in files.items():
        (groups / name).parent.mkdir(parents=True, exist_ok=True)
        (groups / name).write_text(f"{text}\n")
    assert list(machine._shares(proc, groups)) == ([] if share is None else [share])
    whole = machine.cores(tmp_path, tmp_path)
    assert machine.cores(proc, groups) == min(whole, math.ceil(share or whole))


@pytest.mark.parametrize(
    ("wish", "count"),
    [("3", 3), ("99", 8), (" 2 ", 2), ("3,2", 3), ("0", 8), ("-1", 8), ("1.5", 8), ("many", 8), ("", 8), (None, 8)],
)
def test_threads_are_as_many_as_asked_for_and_allowed(
    wish: str | None, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if wish is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", wish)
    monkeypatch.setattr(machine, "_allowed", lambda: 8)
    monkeypatch.setattr(machine, "_shares", lambda *_: iter(()))
    assert (machine.cores(), machine.threads(), machine.limited()) == (8, count, count < 8)
    monkeypatch.setattr(machine, "_shares", lambda *_: iter([1.5]))
    assert (machine.threads(), machine.limited()) == (2, True)


@pytest.mark.parametrize("program", ["/usr/bin/qgis", "C:/Program Files/Editor/editor.exe", "", None])
def test_programs_that_are_no_python_are_not_started_again(
    program: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", program)
    with pytest.raises(FinescaleError, match="needs a Python of its own"):
        machine.apart("finescale.evaluation.speed")


def test_nor_are_frozen_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with pytest.raises(FinescaleError, match="needs a Python of its own"):
        machine.apart("finescale.evaluation.speed")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="what is kept is glibc's")
def test_memory_is_kept_where_that_is_asked_for() -> None:
    code = """
import sys, numpy
from finescale.inference.machine import keep_memory
if "keep" in sys.argv:
    keep_memory()
big = numpy.ones(200 << 20, numpy.uint8)
del big
print(next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS")))
"""
    kept, freed = (
        int(subprocess.run([sys.executable, "-c", code, word], capture_output=True, text=True, check=True).stdout)
        for word in ("keep", "free")
    )
    assert kept - freed > 190 << 10  # KiB


@pytest.mark.parametrize("problem", [OSError, TypeError, AttributeError])  # Windows, musl and others
def test_where_nothing_can_be_kept_nothing_happens(monkeypatch: pytest.MonkeyPatch, problem: type[Exception]) -> None:
    def library(name: None) -> None:
        raise problem

    monkeypatch.setattr("ctypes.CDLL", library)
    machine.keep_memory()
