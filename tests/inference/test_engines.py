"""Engines: all give PyTorch's picture, "auto" takes the fastest, impossible wishes are refused."""

import logging
import multiprocessing
import os
import pickle
import platform
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.conftest import SHIPPED_WEIGHTS, needs, tiny_network
from tests.inference.test_tiling import picture
from torch import Tensor, nn

import finescale
from finescale.errors import FinescaleError, FinescaleWarning, UsageError
from finescale.inference import engines, machine, tiling
from finescale.inference.engines import choose, interface, mnn, onnx, pytorch, quantise, source
from finescale.inference.engines.interface import Engine, fitting_tile
from finescale.inference.engines.openvino import _HINTS, MEMORY, OpenVINOEngine, translate
from finescale.inference.engines.pytorch import TorchEngine, fast_bfloat16
from finescale.inference.engines.source import Source
from finescale.inference.machine import apart
from finescale.inference.photograph import photograph
from finescale.inference.prepare import for_inference, full_float32
from finescale.inference.tiling import Array, enlarge
from finescale.inference.upscale import Upscaler
from finescale.layers.statistics import alignment
from finescale.networks import DEFAULT
from finescale.networks.base import Network
from finescale.networks.catalogue import NETWORKS, Entry, build
from finescale.weights import files

SIZES = ((1, 1), (49, 70), (64, 96))


def noise(height: int, width: int, count: int = 1) -> Array:
    return np.random.default_rng(0).random((count, 3, height, width), np.float32)


def decibels(a: Array, b: Array) -> float:
    return float(-10 * np.log10(np.square(a - b).mean() + 1e-20))


def test_slow_bfloat16_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finescale.inference.engines.pytorch.fast_bfloat16", lambda device: False)
    with pytest.warns(FinescaleWarning, match="slower than float32"):
        choose(tiny_network(2), engine="torch", precision="bfloat16", device="cpu")


def openvino_has_bfloat16() -> bool:
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.mark.parametrize(
    ("engine", "precision", "least"),
    [
        ("onnx", "float32", 100),
        ("mnn", "float32", 80),
        ("openvino", "float32", 80),
        ("openvino", "bfloat16", 45),
        ("torch", "bfloat16", 45),
    ],
)
def test_every_engine_gives_the_same_picture(engine: str, precision: str, least: float) -> None:
    if engine != "torch":
        needs(engine)
    if (engine, precision) == ("openvino", "bfloat16") and not openvino_has_bfloat16():
        with pytest.raises(UsageError, match="this processor has no bfloat16"):  # and float32 is not called so
            choose(tiny_network(2), engine=engine, precision=precision)
        return
    network = tiny_network(2)
    exact = TorchEngine(for_inference(network), torch.device("cpu"), "float32")
    other = choose(network, device="cpu", engine=engine, precision=precision)
    assert (other.name, other.precision, other.scale) == (engine, precision, 2)
    assert other.margin == exact.margin
    memory = {"onnx": onnx.MEMORY, "mnn": mnn.MEMORY, "openvino": MEMORY[precision], "torch": 1}[engine]
    assert other.bytes_per_pixel == memory * exact.bytes_per_pixel
    for size in SIZES:
        assert decibels(other.run(noise(*size)), exact.run(noise(*size))) > least
    two = other.run(noise(40, 52, 2))
    np.testing.assert_allclose(two[1:], other.run(noise(40, 52, 2)[1:]), atol=1e-2 if least < 80 else 1e-3)
    fine = other.exact()
    if precision == "float32":
        assert fine is None
    else:
        assert fine is not None
        assert fine.precision == "float32"


@pytest.mark.skipif(not fast_bfloat16(torch.device("cpu")), reason="this processor is not fast at bfloat16")
def test_torch_takes_bfloat16_only_where_little_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def chosen(network: Network) -> str:
        return choose(network, device="cpu", engine="torch").precision

    network = tiny_network(2)
    with torch.no_grad():
        for parameter in network.get_submodule("tail").parameters():
            parameter.mul_(0.01)  # hardly more than the enlarged picture, which is summed up in float32
    assert [chosen(network), chosen(network)] == ["bfloat16"] * 2
    with torch.no_grad():
        for parameter in network.get_submodule("tail").parameters():
            parameter.mul_(300)
    assert [chosen(network), chosen(network)] == ["float32"] * 2
    assert len(list((tmp_path / "finescale" / "compiled").iterdir())) == 2 + 2  # with those of the gates


@pytest.mark.parametrize("abilities", ["some processor", "flags: avx512_bf16"])
def test_a_broken_openvino_leaves_the_others(abilities: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system does not tell what its processor can, OpenVINO is asked; where it can bfloat16, it is taken."""
    needs("openvino")

    def fail() -> None:
        raise RuntimeError("Cannot load library 'openvino_intel_cpu_plugin'")

    monkeypatch.setattr("finescale.inference.engines.compiled.abilities", lambda: abilities)
    monkeypatch.setattr("openvino.Core", fail)
    upscaler = Upscaler(tiny_network(2))
    assert upscaler.engine.name != "openvino"
    with pytest.raises(FinescaleError, match=r"OpenVINO is installed and does not work \(Cannot load library"):
        Upscaler(tiny_network(2), engine="openvino")


@pytest.mark.parametrize(
    ("flags", "precision", "missing", "wanted"),
    [
        ("avx512_bf16", "auto", "", "openvino auto, openvino float32"),  # never int8
        ("avx512_bf16", "float32", "", "openvino float32"),
        ("avx512_bf16", "bfloat16", "", "openvino bfloat16"),
        ("avx512_bf16", "auto", "openvino", ""),
        ("avx512_bf16", "float32", "openvino", "onnx float32"),
        ("avx2", "auto", "", "mnn float32, openvino auto, openvino float32"),
        ("avx2", "float32", "", "mnn float32, openvino float32"),
        ("avx2", "bfloat16", "", "openvino bfloat16"),
        ("avx2", "auto", "MNN", "openvino auto, openvino float32"),
        ("avx2", "auto", "onnx openvino", ""),
        ("avx2", "auto", "MNN openvino", "onnx float32"),
        ("avx2", "auto", "MNN openvino onnxruntime", ""),
        ("neon", "auto", "", "openvino auto, openvino float32"),  # MNN was not measured there
    ],
)
def test_which_engines_are_fastest(
    flags: str, precision: str, missing: str, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finescale.inference.engines.compiled.abilities", lambda: f"flags: {flags}")
    monkeypatch.setattr(platform, "machine", lambda: "arm64" if flags == "neon" else "x86_64")
    monkeypatch.setattr(engines, "find_spec", lambda name: None if name in missing.split() else name)
    assert ", ".join(map(" ".join, engines._fastest(precision))) == wanted


def test_auto_takes_the_fastest_that_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    needs("openvino")
    needs("mnn")
    monkeypatch.setattr(engines, "_bfloat16", lambda: False)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    assert choose(tiny_network(2), device="cpu").name == "mnn"
    assert not caplog.messages
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # without what was converted
    monkeypatch.setattr(sys, "frozen", True, raising=False)  # such programs start no converter
    assert choose(tiny_network(2), device="cpu").name == "openvino"
    assert [(one.name, one.levelname) for one in caplog.records] == [("finescale", "WARNING")]
    assert caplog.messages[0].startswith("the mnn engine, the fastest here, is left out: this work needs a Python")


@pytest.mark.skipif(os.name != "posix", reason="scripts as POSIX systems have them")
@pytest.mark.parametrize(
    ("end", "reason", "remembered"),
    [
        ("raise SystemExit(4)", r"MNN cannot take this network \(its converter ended with 4\)", True),
        ("import os; os.abort()", r"MNN cannot take this network \(its converter ended with -6\)", True),
        ("import no_such_module", r"did not get on \(it ended with 1\)", False),  # a Python without our packages
        (None, "could not start", False),
    ],
)
def test_a_converter_that_fails(
    end: str | None, reason: str, remembered: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("mnn")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    network, program = tiny_network(2, blocks=1), tmp_path / "python"
    if end:
        program.write_text(f"#!{sys.executable}\n{end}\n")
        program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    with pytest.raises(FinescaleError, match=reason):
        choose(network, engine="mnn")
    program.unlink(missing_ok=True)
    with pytest.raises(FinescaleError, match=reason if remembered else "could not start"):  # it costs seconds otherwise
        choose(network, engine="mnn")


def test_what_mnn_cannot_take_its_converter_tells(tmp_path: Path) -> None:
    """And not what is wrong with the Python that it is."""
    needs("mnn")
    command, environment = apart("finescale.inference.engines.mnn", str(tmp_path), "1")
    (tmp_path / "network.onnx").write_bytes(b"no network")
    assert subprocess.run(command, env=environment, capture_output=True).returncode == mnn._REFUSED
    (tmp_path / "MNN.py").write_text("raise ImportError")
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), environment["PYTHONPATH"]])
    assert subprocess.run(command, env=environment, capture_output=True).returncode == 1


def test_a_converter_that_leaves_nothing_is_told_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("mnn")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    program = tmp_path / "python"
    program.write_text(f"#!{sys.executable}\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    with pytest.raises(FinescaleError, match="could not use its temporary files"):
        choose(tiny_network(2, blocks=1), engine="mnn")


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX systems have them")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_converter_that_is_interrupted_says_nothing_of_the_network(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("mnn")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    program = tmp_path / "python"
    ignored = (
        f"signal.signal({int(number)}, signal.SIG_DFL)" if number != signal.SIGKILL else ""
    )  # as in background jobs
    program.write_text(
        f"#!{sys.executable}\nimport os, signal, time\n{ignored}\nos.kill(os.getpid(), {int(number)})\ntime.sleep(9)\n"
    )
    program.chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", str(program))
        with pytest.raises(FinescaleError, match="did not get on"):
            choose(tiny_network(2, blocks=1), engine="mnn")
    assert not list((tmp_path / "finescale").rglob("*.*"))
    if number == signal.SIGKILL:  # a conversion takes seconds
        assert choose(tiny_network(2, blocks=1), engine="mnn").name == "mnn"


def test_a_program_without_our_text_keeps_what_its_version_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As frozen ones are, in which packages may also not tell their versions."""
    monkeypatch.setattr(finescale, "__file__", str(tmp_path / "__init__.py"))
    codes = set()
    for version in ("1", "2", "2"):
        monkeypatch.setattr(finescale, "__version__", version)
        codes.add(source._code.__wrapped__())
    assert len(codes) == 2
    monkeypatch.setattr("importlib.metadata.Distribution.discover", lambda **_: iter(()))
    assert onnx.translator().split()[:2] == [str(onnx.OPSET), "unknown"]


def test_mnn_greets_nobody(tiny_weights: Path) -> None:
    """Its line on stdout would be in the middle of what a program writes there."""
    needs("mnn")
    code = (
        "import numpy as np; from finescale.inference.upscale import Upscaler;"
        f"u = Upscaler({str(tiny_weights / f'{DEFAULT}-x2.safetensors')!r}, engine='mnn');"
        "print(u.pixels(np.zeros((20, 30, 3), np.uint8)).shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("(40, 60, 3)\n", "")


def test_tiles_of_mnn_are_the_whole(tiny_weights: Path) -> None:
    """But for its last digits: one grey level here and there."""
    needs("mnn")
    path, x = tiny_weights / f"{DEFAULT}-x2.safetensors", picture(131, 150)
    whole = Upscaler(path, device="cpu", engine="mnn", tile=1000).pixels(x).astype(int)
    for tile in (64, 96):
        tiled = Upscaler(path, device="cpu", engine="mnn", tile=tile).pixels(x)
        assert np.abs(tiled - whole).max() <= 1
        assert (tiled != whole).mean() < 0.01


SHORT = """
import resource, sys
from pathlib import Path
import numpy as np
from finescale.inference.upscale import Upscaler

x = np.add.outer(np.arange(700) % 251, np.arange(700) % 241)[..., None].repeat(3, 2).astype(np.float32) / 500
up = Upscaler(sys.argv[1], device="cpu", engine="mnn", tile=192)
wanted = up.pixels(x)
up.rest()
taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + int(sys.argv[2]) * 2**20,) * 2)
up.tile = 1000
print(np.abs(up.pixels(x) - wanted).max())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems limit and tell memory in other ways")
def test_mnn_takes_smaller_tiles_where_memory_is_short(tiny_weights: Path) -> None:
    """MNN itself goes on, and the picture is black."""
    needs("mnn")
    weights = tiny_weights / f"{DEFAULT}-x2.safetensors"
    done = subprocess.run([sys.executable, "-c", SHORT, weights, "130"], capture_output=True, text=True, check=True)
    assert float(done.stdout.split()[-1]) < 1e-2


def test_other_threads_run_while_mnn_computes(tiny_weights: Path) -> None:
    needs("mnn")
    up = Upscaler(tiny_weights / f"{DEFAULT}-x2.safetensors", device="cpu", engine="mnn")
    x = picture(400, 400)
    up.pixels(x)
    steps = []
    with ThreadPoolExecutor(1) as threads:
        computing = threads.submit(up.pixels, x)
        while not computing.done():
            time.sleep(0.001)
            steps.append(time.perf_counter())
    assert len(steps) > 3  # it would hold the interpreter's lock all the time otherwise


class Strange(Network):
    """A network whose picture depends on what a translator takes for a constant."""

    def enlarge(self, x: torch.Tensor) -> torch.Tensor:
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3) + 0.01 * float(x.shape[2])


class Spectral(Network):
    """A network with an operation that ONNX has not."""

    def __init__(self, *, scale: int) -> None:
        super().__init__(scale=scale)
        self.gain = nn.Parameter(torch.ones(1))

    def enlarge(self, x: Tensor) -> Tensor:
        x = torch.fft.irfft2(self.gain * torch.fft.rfft2(x), s=x.shape[-2:])
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


def test_what_onnx_cannot_take_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    needs("mnn")
    needs("onnx")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(engines, "_fastest", lambda _: [("mnn", "float32"), ("onnx", "float32")])
    network = Spectral(scale=2)
    assert choose(network, device="cpu").name == "torch"
    assert capfd.readouterr().out == ""
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: pytest.fail("this was known"))
    for engine in ("mnn", "onnx"):
        with pytest.raises(FinescaleError, match=r"ONNX cannot take this network \(.*fft_rfft2"):
            choose(network, engine=engine)


def test_an_mnn_that_does_not_start_leaves_auto_to_the_next_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    needs("mnn")

    def broken(_: str) -> None:
        raise ImportError("DLL load failed")

    monkeypatch.setattr(engines, "_fastest", lambda _: [("mnn", "float32")])
    monkeypatch.delitem(sys.modules, "MNN", raising=False)
    monkeypatch.setattr(mnn, "import_module", broken)
    network = tiny_network(2, blocks=1)
    assert choose(network, device="cpu").name == "torch"
    with pytest.raises(FinescaleError, match=r"MNN, which is installed and cannot be imported \(DLL load failed\)"):
        choose(network, engine="mnn")


@pytest.mark.parametrize(("package", "engine"), [("openvino", "openvino"), ("onnxruntime", "onnx"), ("onnx", "onnx")])
def test_a_package_that_is_broken_leaves_auto_to_the_next_engine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, package: str, engine: str
) -> None:
    needs(engine)
    (tmp_path / f"{package}.py").write_text("raise ImportError('libfoo.so: not found')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # nothing is translated yet
    monkeypatch.delitem(sys.modules, package, raising=False)
    monkeypatch.setattr(engines, "_fastest", lambda _: [(engine, "float32")])
    network = tiny_network(2, blocks=1)
    assert choose(network, device="cpu").name == "torch"
    with pytest.raises(FinescaleError, match=r"is installed and cannot be imported \(libfoo.so: not found\)"):
        choose(network, engine=engine)
    monkeypatch.undo()
    assert choose(network, engine=engine).name == engine  # nothing is remembered against it


def test_without_a_folder_for_temporary_files_another_engine_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    needs("mnn")
    monkeypatch.setattr(engines, "_fastest", lambda _: [("mnn", "float32")])
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/nowhere/at/all"])
    assert choose(tiny_network(2, blocks=1), device="cpu").name == "torch"


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",  # SA-RCAN's 120 blocks add up what bfloat16 rounds, so it is left to float32
    [path for path in SHIPPED_WEIGHTS if not path.stem.startswith("sa-rcan-x")],
    ids=lambda path: path.stem,
)
def test_shipped_networks_take_the_fast_path(path: Path) -> None:
    needs("openvino")
    needs("mnn")
    best = choose(path, device="cpu")
    assert (best.name, best.precision) == (("openvino", "bfloat16") if openvino_has_bfloat16() else ("mnn", "float32"))


def test_a_block_more_is_few_operations_more() -> None:
    """SA-RCAN has 120 with self-attention: with a thousand each, as they once had, OpenVINO compiled for minutes."""
    pytest.importorskip("openvino")
    sizes = []
    for blocks in (1, 3):
        network = build("sa-rcan", scale=2, channels=16, groups=1, blocks=blocks)
        sizes.append(len(translate(for_inference(network), (56, 68)).get_ops()))
    assert (sizes[1] - sizes[0]) / 2 < 350


def test_rounding_that_costs_too_much_is_left_to_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that subtracts large numbers: bfloat16 has too few digits for it."""
    pytest.importorskip("openvino")
    network = tiny_network(2)
    with torch.no_grad():
        tail = network.tail[0]  # type: ignore[index]
        tail.weight.mul_(30)  # type: ignore[union-attr]
    best = choose(network, device="cpu", engine="auto" if openvino_has_bfloat16() else "openvino")
    assert (best.name, best.precision) == ("openvino", "float32")


@pytest.mark.parametrize("engine", ["openvino", "mnn", "onnx"])
def test_what_is_computed_otherwise_goes_to_torch(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    needs(engine)
    monkeypatch.setattr(engines, "_gpu", lambda: False)
    others = {"openvino", "MNN", "onnxruntime"} - {{"mnn": "MNN", "onnx": "onnxruntime"}.get(engine, engine)}
    monkeypatch.setattr(engines, "find_spec", lambda name: None if name in others else find_spec(name))
    network = Strange(scale=2)
    for _ in range(2):  # the second time from the cache
        with pytest.raises(FinescaleError, match="another picture than PyTorch"):
            choose(network, engine=engine, precision="float32")
    assert choose(network).name == "torch"


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"engine": "openvin"}, "did you mean 'openvino'"),
        ({"precision": "float16"}, "is not one of auto, float32"),
        ({"precision": "int8", "device": "cuda"}, "runs on the CPU, not on 'cuda'"),
        ({"engine": "torch", "device": "nowhere"}, "there is no device 'nowhere' here, only cpu"),
        *(
            ({"engine": "torch", "device": name}, f"there is no device '{name}' here, only cpu")
            for name in ("mps", "meta", "privateuseone", "mkldnn", "cpu:7")
        ),
    ],
)
@pytest.mark.filterwarnings("error")
def test_impossible_wishes(wish: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        choose(tiny_network(2), **wish)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the GPU here can be used")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_gpu_that_torch_counts_and_cannot_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    pytorch.cuda_computes.cache_clear()
    with warnings.catch_warnings(record=True, action="always") as told:
        for engine in ("auto", "torch"):
            np.testing.assert_allclose(choose(tiny_network(2), engine=engine).run(noise(9, 9)).mean(), 0.5, atol=0.2)
    (sentence,) = (str(one.message) for one in told if "GPU" in str(one.message))
    assert re.fullmatch(r"the GPU cannot be used \(\w.*\); this is computed on the CPU", sentence)
    assert pytorch.cuda_computes.cache_info().currsize == 1
    if hasattr(os, "fork"):  # what CUDA can do before a fork says nothing of the child
        assert forked(lambda: pytorch.cuda_computes.cache_info().currsize and sys.exit(1)) == 0
    pytorch.cuda_computes.cache_clear()
    for name, message in (("cuda", r"the device 'cuda' cannot be used \(\w.*\)$"), ("cuda:7", "there is no device")):
        with pytest.raises(UsageError, match=message):
            choose(tiny_network(2), device=name)


def test_what_a_gpu_needs_more_than_a_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its memory goes back to other programs, and its kernels count elements with 31 bits."""
    engine, emptied = TorchEngine(for_inference(tiny_network(2)), torch.device("cpu"), "float32"), list[bool]()
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1 << 40, 1 << 40))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(True))
    engine.rest()
    assert not emptied
    engine.device = torch.device("cuda")
    engine.rest()
    assert emptied
    rows, columns = fitting_tile(engine, engine.tile_budget(), 50_000, 50_000)
    pixels = (rows + 2 * engine.margin) * (columns + 2 * engine.margin)
    assert 1 << 30 < pixels * engine.bytes_per_pixel / 4 <= 1 << 31


@pytest.mark.parametrize(
    ("module", "wish", "message"),
    [
        ("MNN", {"engine": "mnn"}, r'pip install "finescale\[fast\]"'),
        ("openvino", {"engine": "openvino"}, r'pip install "finescale\[fast\]"'),
        ("onnxruntime", {"engine": "onnx"}, r'pip install "finescale\[onnx\]"'),
        ("nncf", {"precision": "int8"}, r'int8 needs OpenVINO and NNCF: pip install "finescale\[int8\]"'),
    ],
)
def test_missing_packages_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, module: str, wish: dict[str, Any], message: str
) -> None:
    if module == "nncf":
        pytest.importorskip("openvino")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # nothing is compiled yet
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UsageError, match=message):
        choose(tiny_network(2), **wish)


def trained_like(scale: int) -> Network:
    """Wide enough to be quantised, and small."""
    return tiny_network(scale, channels=24, blocks=1)


@pytest.mark.slow
def test_int8_is_close_cached_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    pytest.importorskip("nncf")
    network = trained_like(2)
    eight = choose(network, precision="int8")
    assert (eight.name, eight.precision) == ("openvino", "int8")
    rest = MEMORY["bfloat16" if openvino_has_bfloat16() else "float32"]  # what is not convolutions has larger features
    assert eight.bytes_per_pixel == rest * choose(network, engine="torch", precision="float32").bytes_per_pixel
    assert eight.closeness is not None
    assert 40 < eight.closeness < 90  # not the float32 model under another name
    x = photograph()
    exact = TorchEngine(for_inference(network), torch.device("cpu"), "float32")
    assert decibels(eight.run(x).clip(0, 1), exact.run(x).clip(0, 1)) == pytest.approx(eight.closeness, abs=0.1)
    for size in SIZES:
        assert decibels(eight.run(noise(*size)), exact.run(noise(*size))) > 30
    monkeypatch.setitem(sys.modules, "nncf", None)  # from the cache: no quantising, and the same picture
    again = choose(network, precision="int8")
    assert again.closeness == eight.closeness
    np.testing.assert_array_equal(again.run(x), eight.run(x))


def test_int8_leaves_the_first_and_the_last_convolution_and_attention_alone() -> None:
    pytest.importorskip("openvino")
    network = trained_like(2)
    wide = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d) and m.kernel_size != (1, 1)]
    assert len(quantise.convolutions(translate(for_inference(network)))) == len(wide) - 2


@pytest.mark.slow
def test_int8_rounds_within_other_operations() -> None:
    """A rounding of its own costs three passes over memory."""
    openvino = pytest.importorskip("openvino")
    pytest.importorskip("nncf")
    model = quantise.quantise(translate(for_inference(trained_like(2)), (56, 68)), 4)
    assert any(node.get_type_name() == "FakeQuantize" for node in model.get_ops())
    ready = openvino.Core().compile_model(model, "CPU")
    kinds = [node.get_rt_info()["layerType"] for node in ready.get_runtime_model().get_ops()]
    assert "Convolution" in kinds
    assert "FakeQuantize" not in kinds


def test_sixteen_bits_are_computed_in_float32() -> None:
    """In bfloat16, with 8 bits of mantissa, a fine ramp would fall into steps."""
    x = picture(40, 50, np.uint16)
    low = Upscaler(tiny_network(2), engine="torch")
    low.engine = TorchEngine(for_inference(tiny_network(2)), torch.device("cpu"), "bfloat16")  # as on a fast CPU
    fine = Upscaler(tiny_network(2), engine="torch", precision="float32")
    asked = Upscaler(tiny_network(2), engine="torch", precision="bfloat16")
    wanted = fine.pixels(x).astype(int)
    assert np.abs(low.pixels(x) - wanted).max() <= 1
    assert np.abs(asked.pixels(x) - wanted).max() > 10  # who asks for bfloat16 gets it


def test_the_self_ensemble_is_computed_in_float32() -> None:
    for ensemble, precision in ((True, "float32"), (False, "bfloat16")):
        up = Upscaler(tiny_network(2), engine="torch", ensemble=ensemble)
        up.engine = TorchEngine(for_inference(tiny_network(2)), torch.device("cpu"), "bfloat16")  # as on a fast CPU
        assert up.engine_for(np.uint8).precision == precision


class Limits(TorchEngine):
    """An engine that notes what it was given."""

    def __init__(self, network: Network) -> None:
        super().__init__(for_inference(network), torch.device("cpu"), "float32")
        self.shapes: list[tuple[int, ...]] = []

    def run(self, x: Array, tick: tiling.Progress | None = None) -> Array:
        self.shapes.append(x.shape)
        return super().run(x, tick)


def test_tiles_follow_the_memory() -> None:
    engine: Engine = Limits(tiny_network(2))
    per_pixel = engine.bytes_per_pixel
    assert fitting_tile(engine, per_pixel * 300.1 * 200, 300, 200) == (300, 200)
    assert fitting_tile(engine, 1.0, 1000, 1000) == (48, 48)
    assert isinstance(engine, Limits)
    for height, width in ((300, 400), (400, 300), (150, 900)):
        engine.shapes.clear()
        tile = fitting_tile(engine, per_pixel * 240.1 * 240.1, height, width)
        enlarge(picture(height, width), engine, tile=tile, margin=engine.margin)
        computed = [shape[2] * shape[3] for shape in engine.shapes]
        assert max(computed) <= 240 * 240
        engine.shapes.clear()
        enlarge(picture(height, width), engine, tile=240 - 2 * engine.margin, margin=engine.margin)
        assert sum(computed) < sum(shape[2] * shape[3] for shape in engine.shapes)  # than with squares


def test_openvino_reads_what_it_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    network, x = tiny_network(2, blocks=1), noise(33, 47)
    first = choose(network, engine="openvino", precision="float32")
    wanted = first.run(x)

    def refuse(*_: object) -> None:
        raise AssertionError("compiled again")

    monkeypatch.setattr(OpenVINOEngine, "_compile", refuse)
    again = choose(network, engine="openvino", precision="float32")
    np.testing.assert_array_equal(again.run(x), wanted)
    with pytest.raises(AssertionError, match="compiled again"):  # other weights are another entry
        choose(tiny_network(2), engine="openvino", precision="float32")


class Own(Network):
    """A network of a program's own, with a number that no state dict holds."""

    strength = 1.0

    def __init__(self, *, scale: int) -> None:
        super().__init__(scale=scale)
        self.layer = nn.Conv2d(3, 3 * scale**2, 3, padding=1)

    def enlarge(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.strength * self.layer(x), self.scale)


def test_windows_are_told_apart(tmp_path: Path) -> None:
    network = tiny_network(2)
    files.save(network, tmp_path / "a.safetensors")
    for given in (network, Own(scale=2), tmp_path / "a.safetensors"):
        assert len({Source(given, window).fingerprint for window in (48, 96, None)}) == 3


def test_a_network_of_other_code_is_compiled_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    x = noise(32, 48)
    own, known = Own(scale=2), tiny_network(2)
    for network, module, name, value in (
        (own, own, "strength", 0.5),
        (known, known.get_submodule("body.0.body.0.body"), "1", nn.Tanh()),
    ):
        before = choose(network, engine="openvino", precision="float32").run(x)
        setattr(module, name, value)
        after = choose(network, engine="openvino", precision="float32")
        assert np.abs(after.run(x) - before).max() > 1e-3
        np.testing.assert_allclose(after.run(x), choose(network, engine="torch", precision="float32").run(x), atol=1e-4)
    margin = choose(own, engine="openvino", precision="float32").margin
    own.context = 2 * margin
    assert choose(own, engine="openvino", precision="float32").margin == 2 * margin
    # and so is a weight file of it
    monkeypatch.setitem(NETWORKS, "own", Entry(Own, "of a program's own"))
    files.save(build("own", scale=2), tmp_path / "own.safetensors")
    before = choose(tmp_path / "own.safetensors", engine="openvino", precision="float32").run(x)
    monkeypatch.setattr(Own, "strength", 0.5)
    after = choose(tmp_path / "own.safetensors", engine="openvino", precision="float32")
    np.testing.assert_allclose(after.run(x), before / 2, atol=1e-4)


def test_what_is_computed_exactly_is_the_network_that_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setattr("finescale.inference.engines.openvino.pick_precision", lambda core, precision="auto": precision)
    monkeypatch.setitem(_HINTS, "bfloat16", "f32")  # also where there is no bfloat16
    network, x = Own(scale=2), noise(32, 48)
    engine = OpenVINOEngine(Source(network, 48), "bfloat16")
    before = engine.run(x)
    nn.init.zeros_(network.layer.weight)  # trained further
    exact = engine.exact()
    assert exact is not None
    np.testing.assert_allclose(exact.run(x), before, atol=1e-4)


@pytest.mark.parametrize("change", ["the folder", "the file"])
def test_a_weight_file_that_is_read_again_is_the_one_that_was_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    pytest.importorskip("openvino")
    low = "finescale.inference.engines.openvino.pick_precision"
    monkeypatch.setattr(low, lambda core, precision="auto": "bfloat16" if precision == "auto" else precision)
    monkeypatch.setitem(_HINTS, "bfloat16", "f32")  # also where there is no bfloat16
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    network, file, small = tiny_network(2), Path("a.safetensors"), picture(24, 32, np.uint16)
    files.save(network, file, dtype=torch.float32)
    up = Upscaler(file, engine="openvino")
    if change == "the folder":
        monkeypatch.chdir(tmp_path.parent)
        wanted = Upscaler(network, engine="torch", precision="float32").pixels(small)
        assert np.abs(up.pixels(small).astype(int) - wanted).max() < 100
        return
    files.save(tiny_network(2, blocks=1), file)
    with pytest.raises(FinescaleError, match=r"a\.safetensors: the weight file has changed since it was loaded$"):
        up.pixels(small)


def test_what_openvino_cannot_take_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    network = tiny_network(2, blocks=1)

    def broken(*_: object) -> None:
        raise RuntimeError("no such operation")

    with monkeypatch.context() as place:
        place.setattr("finescale.inference.engines.openvino.translate", broken)
        with pytest.raises(FinescaleError, match=r"cannot take this network \(no such operation\)"):
            OpenVINOEngine(Source(network, 48), "float32")
    with pytest.raises(FinescaleError, match="no such operation"):  # although it could now
        OpenVINOEngine(Source(network, 48), "float32")


def test_a_passing_shortage_of_memory_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    network = tiny_network(2, blocks=1)
    for error in (MemoryError(), RuntimeError("can't alloc")):

        def short(*_: object, error: Exception = error) -> None:
            raise error

        with monkeypatch.context() as place:
            place.setattr("finescale.inference.engines.openvino.translate", short)
            with pytest.raises(type(error)):
                OpenVINOEngine(Source(network, 48), "float32")
    assert OpenVINOEngine(Source(network, 48), "float32").precision == "float32"


@pytest.mark.parametrize("engine", ["openvino", "mnn", "torch"])
def test_threads_share_an_upscaler(engine: str) -> None:
    needs(engine)
    up = Upscaler(tiny_network(2, blocks=1), engine=engine, precision="float32")
    pictures = [picture(60 + i, 80) for i in range(4)]
    wanted = [up.pixels(x) for x in pictures]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(up.pixels, pictures * 10))
    for i, y in enumerate(found):
        np.testing.assert_array_equal(y, wanted[i % 4])


class Watched:
    """Something of a library's whose calls of one method are noted: what it was given, and what it gave or raised."""

    def __init__(self, what: Any, method: str, calls: list[tuple[Any, Any]]) -> None:
        self._what, self._method, self._calls = what, method, calls

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._what, name)
        return partial(self._noted, found) if name == self._method else found

    def _noted(self, method: Callable[..., Any], *given: Any) -> Any:
        try:
            result = method(*given)
        except BaseException as error:
            self._calls.append((given, error))
            raise
        self._calls.append((given, result))
        return result


def watched(engine: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Any]]:
    """The calls in which an engine that has computed once computes with `tick`, see `Watched`."""
    calls: list[tuple[Any, Any]] = []
    if engine.name == "mnn":
        session = engine._sessions.own
        session._network = Watched(session._network, "runSessionWithCallBack", calls)
    elif engine.name == "openvino":
        engine._requests.own = Watched(engine._requests.own, "wait", calls)
    elif engine.name == "onnx":
        runtime = pytest.importorskip("onnxruntime").InferenceSession
        run, watch = runtime.run, Watched(None, "", calls)
        monkeypatch.setattr(runtime, "run", lambda *given: watch._noted(run, *given))
    else:
        engine.network.forward = partial(Watched(None, "", calls)._noted, engine.network.forward)
    return calls


@pytest.mark.parametrize("engine", ["openvino", "mnn", "onnx", "torch"])
def test_a_tile_tells_how_far_it_is_and_can_be_stopped(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    needs(engine)
    monkeypatch.setattr(tiling, "_PAUSE", 0)
    monkeypatch.setattr(interface, "LOOK", 0.001)
    up = Upscaler(tiny_network(2), device="cpu", engine=engine, precision="float32")
    x = picture(600, 520)  # so large that fast processors, too, are looked at several times
    wanted, seen = up.pixels(x), list[float]()
    for _ in range(2):  # of the first some engines cannot tell how far it is
        seen.clear()
        np.testing.assert_array_equal(up.pixels(x, seen.append), wanted)
        assert seen == sorted(seen)
        assert seen[-1] == 1
        assert sum(share < 1 for share in seen) >= 2
    assert len(set(seen)) >= 3
    for error in (tiling.Cancelled(), KeyboardInterrupt(), StopIteration(), MemoryError()):
        told: list[float] = []

        def stop(share: float, error: BaseException = error, told: list[float] = told) -> None:
            told.append(share)
            raise error

        with monkeypatch.context() as patch:
            calls = watched(up.engine, patch)
            with pytest.raises(type(error)) as caught:
                up.pixels(x, stop)
        assert caught.value is error
        assert len(told) == 1
        assert told[0] < 1
        ((_, result),) = calls
        assert isinstance(result, BaseException) or result == 11, "computed to its end"  # MNN's number for it
        np.testing.assert_array_equal(up.pixels(x), wanted)


@pytest.mark.parametrize("engine", ["openvino", "mnn", "onnx"])
def test_engines_take_as_many_threads_as_asked_for(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of what was compiled for another number."""
    needs(engine)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(machine, "_allowed", lambda: 2)
    monkeypatch.setattr(machine, "_shares", lambda *_: iter(()))
    taken: list[int] = []
    if engine == "onnx":
        runtime = pytest.importorskip("onnxruntime")
        real = runtime.InferenceSession

        def session(data: bytes, settings: Any, **options: Any) -> Any:
            taken.append(settings.intra_op_num_threads)
            return real(data, settings, **options)

        monkeypatch.setattr(runtime, "InferenceSession", session)
    network, x, found = tiny_network(2, blocks=1), noise(20, 24), list[int]()
    for wish in ("1", "", "1"):
        monkeypatch.setenv("OMP_NUM_THREADS", wish)
        ready: Any = choose(network, device="cpu", engine=engine, precision="float32")
        if engine == "mnn":
            calls: list[tuple[Any, Any]] = []
            library = Library(mnn.load_library(), calls)
            with monkeypatch.context() as patch:
                patch.setattr(mnn, "load_library", lambda library=library: library)
                ready.run(x)
            taken.append(calls[0][0][0]["numThread"])
        elif engine == "openvino":
            taken.append(ready._model.get_property("INFERENCE_NUM_THREADS"))
        found.append(taken[-1])
    assert found[0] == found[2] == 1
    own = os.cpu_count() if engine == "openvino" else 2
    assert (found[1] > 1) == (own != 1)


class Library:
    """MNN, with the calls noted by which its sessions are made."""

    def __init__(self, what: Any, calls: list[tuple[Any, Any]]) -> None:
        self._what, self._calls = what, calls

    def __getattr__(self, name: str) -> Any:
        return getattr(self._what, name)

    def Interpreter(self, path: str) -> Watched:
        return Watched(self._what.Interpreter(path), "createSession", self._calls)


def test_an_onnx_file_says_that_it_gives_three_channels() -> None:
    package = pytest.importorskip("onnx")
    graph = package.load_from_string(onnx.translate(for_inference(tiny_network(2, blocks=1)))).graph
    for given in (graph.input[0], graph.output[0]):
        sizes = given.type.tensor_type.shape.dim
        assert [size.dim_value for size in sizes] == [0, 3, 0, 0]
        assert all(sizes[i].dim_param for i in (0, 2, 3))


@pytest.mark.parametrize("engine", ["openvino", "mnn", "onnx", "torch"])
def test_an_upscaler_goes_to_another_process(engine: str) -> None:
    needs(engine)
    up = Upscaler(tiny_network(2), device="cpu", engine=engine, precision="float32", tile=48, window=24)
    x = picture(60, 80)
    wanted = up.pixels(x)
    other = pickle.loads(pickle.dumps(up))  # noqa: S301
    assert (other.engine.name, other.engine.precision, other.tile, other.window) == (engine, "float32", 48, 24)
    np.testing.assert_array_equal(other.pixels(x), wanted)


def test_pictures_are_mirrored_to_whole_cells() -> None:
    """The same picture as from the larger one whose last rows and columns are mirrored, cut to size."""
    network, x = for_inference(tiny_network(2)), torch.from_numpy(noise(9, 14))
    assert network.multiple == 4
    larger = torch.cat([x, x[:, :, [7, 6, 5]]], 2)
    larger = torch.cat([larger, larger[..., [12, 11]]], 3)
    with torch.inference_mode():
        torch.testing.assert_close(network(x), network(larger)[..., :18, :28], atol=0, rtol=0)
    assert for_inference(tiny_network(2), None).multiple == 1  # global statistics are the picture's own


def test_alignment_covers_every_layer() -> None:
    assert alignment(for_inference(tiny_network(2))) == 4  # cells of 4 pixels, queries of 4 x 4
    assert alignment(for_inference(tiny_network(2), None)) == 4
    assert alignment(for_inference(build("edsr-baseline", scale=2))) == 1


class Shuffling(Network):
    """Pixel shuffle of five dimensions, which none of the catalogue's networks has."""

    def enlarge(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.pixel_shuffle(
            x.repeat_interleave(4, 1).reshape(1, *x.shape[:1], 12, *x.shape[2:]), 2
        )[0]


def test_openvino_takes_pixel_shuffles_of_any_dimensions() -> None:
    pytest.importorskip("openvino")
    network = Shuffling(scale=2).eval()
    x = noise(20, 30)
    np.testing.assert_allclose(
        choose(network, engine="openvino", precision="float32").run(x), x.repeat(2, 2).repeat(2, 3)
    )


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="this system does not tell what a process takes")
def test_openvino_does_not_keep_what_it_compiled_for_every_size() -> None:
    pytest.importorskip("openvino")

    def taken() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20

    engine = OpenVINOEngine(Source(tiny_network(2), 48))
    marks = []
    for i in range(300):  # the largest first, whose features need most
        engine.run(noise(72 - 4 * (i % 18), 72 - 4 * (i // 18)))
        if i % 150 == 99:
            marks.append(taken())
    assert marks[1] - marks[0] < 20, f"{marks} MiB"


@pytest.mark.parametrize(
    ("engine", "setting"),
    [("torch", "float64"), ("torch", "device"), ("openvino", "autocast"), ("onnx", "float64"), ("onnx", "logger")],
)
def test_what_the_program_around_asks_of_torch_changes_nothing(
    engine: str, setting: str, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs(engine)
    logger = logging.getLogger("torch.onnx")
    monkeypatch.setattr(logger, "level", logging.INFO)
    x, path = picture(20, 24), tiny_weights / f"{DEFAULT}-x2.safetensors"
    wanted = Upscaler(path, device="cpu", engine=engine, precision="float32").pixels(x)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # nothing is prepared yet
    before = torch.get_rng_state()
    asked: dict[str, Any] = {"device": torch.device("meta"), "autocast": torch.autocast("cpu", torch.bfloat16)}
    with asked.get(setting) or nullcontext():
        if setting == "float64":
            torch.set_default_dtype(torch.float64)
        try:
            found = Upscaler(path, device="cpu", engine=engine, precision="float32").pixels(x)
        finally:
            torch.set_default_dtype(torch.float32)
    np.testing.assert_array_equal(found, wanted)
    assert logger.level == logging.INFO
    assert torch.equal(torch.get_rng_state(), before)  # a seeded program goes on as it would have


def forked(work: Callable[[], object], patience: float = 30) -> int | None:
    """What a forked process that does some work ends with; None if it does not end."""
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(patience)
    code = process.exitcode
    process.kill()
    return code


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_goes_on_with_an_upscaler() -> None:
    up, x = Upscaler(tiny_network(2), device="cpu", engine="torch", precision="float32"), picture(96, 96)
    wanted = up.pixels(x)
    assert forked(lambda: np.testing.assert_array_equal(up.pixels(x), wanted)) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("engine", ["torch", "openvino", "mnn", "onnx"])
def test_a_forked_process_goes_on_after_a_call(
    engine: str, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs(engine)
    monkeypatch.setenv("FINESCALE_WEIGHTS", str(tiny_weights))
    x = picture(48, 48)
    wanted = finescale.upscale(x, 2, engine=engine)  # which keeps its network ready, with threads that do not go along

    def grandchild() -> None:  # MNN rounds otherwise with one thread
        found = finescale.upscale(x, 2, engine=engine)
        np.testing.assert_allclose(found.astype(int), wanted, rtol=0, atol=engine == "mnn")

    def child() -> None:
        grandchild()
        os._exit(forked(grandchild, 20) != 0)

    assert forked(child) == 0


@pytest.mark.parametrize("engine", ["openvino", "onnx"])
def test_threads_that_begin_together_translate_once(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs(engine)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(warnings, "filters", [*warnings.filters])
    before, traced = [*warnings.filters], []
    place, name = (torch.jit, "trace") if engine == "openvino" else (torch.onnx, "export")
    real = getattr(place, name)

    def counted(*args: Any, **options: Any) -> Any:
        traced.append(name)
        return real(*args, **options)

    monkeypatch.setattr(place, name, counted)
    network = tiny_network(2, blocks=1)
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(lambda _: choose(network, device="cpu", engine=engine, precision="float32"), range(3)))
    assert len(traced) == 1
    assert [*warnings.filters] == before  # silenced only meanwhile


def test_what_is_exact_is_made_once_and_by_pytorch_where_openvino_is_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    openvino = pytest.importorskip("finescale.inference.engines.openvino")
    pytest.importorskip("openvino")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(openvino, "pick_precision", lambda core, precision="auto": "bfloat16")
    monkeypatch.setitem(openvino.TOLERANCE, "bfloat16", 0.0)
    up = Upscaler(tiny_network(2), device="cpu", engine="openvino")
    assert up.engine.precision == "bfloat16"
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setitem(openvino.TOLERANCE, "float32", 1e9)  # it refuses
    exact = up.engine.exact()
    assert exact is not None
    assert (exact.name, exact.precision) == ("torch", "float32")
    assert up.engine.exact() is exact
    assert up.engine_for(np.uint16) is exact
    assert exact.exact() is None


BACKENDS: Any = torch.backends


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize(
    "change",
    [
        lambda: None,
        partial(setattr, BACKENDS, "fp32_precision", "tf32"),
        partial(setattr, BACKENDS.cudnn.conv, "fp32_precision", "ieee"),
        partial(torch.set_float32_matmul_precision, "medium"),
        partial(setattr, BACKENDS.cudnn, "allow_tf32", False),
    ],
)
def test_float32_keeps_all_its_digits(change: Callable[[], object]) -> None:
    """Of the settings, which are left as they were however the program made them; a GPU is not needed."""

    def look(device: torch.device, *parts: Any) -> None:
        def now() -> list[str]:
            return [part.fp32_precision for part in parts]

        def other() -> None:
            with full_float32(device):
                there.set()
                go.wait()

        before, there, go = now(), threading.Event(), threading.Event()
        thread = threading.Thread(target=other, daemon=True)
        with full_float32(device):
            assert now() == ["ieee", "ieee"]
            thread.start()
            there.wait()
        assert now() == ["ieee", "ieee"]  # the other thread still wants it
        go.set()
        thread.join()
        assert now() == before

    def child() -> None:
        change()
        look(torch.device("cuda"), BACKENDS.cudnn.conv, BACKENDS.cuda.matmul)
        look(torch.device("cpu"), BACKENDS.mkldnn.conv, BACKENDS.mkldnn.matmul)

    assert forked(child) == 0


@pytest.mark.parametrize(("precision", "asked"), [("float32", 1), ("bfloat16", 0)])
@pytest.mark.filterwarnings("ignore:bfloat16 is much slower")
def test_the_torch_engine_asks_for_all_digits(precision: str, asked: int, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, devices = TorchEngine(for_inference(tiny_network(2)), torch.device("cpu"), precision), list[torch.device]()

    def note(device: torch.device) -> AbstractContextManager[None]:
        devices.append(device)
        return nullcontext()

    monkeypatch.setattr(pytorch, "full_float32", note)
    engine.run(np.zeros((1, 3, 8, 8), np.float32))
    assert devices == [torch.device("cpu")] * asked
