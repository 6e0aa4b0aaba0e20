"""What computes the network: PyTorch everywhere; OpenVINO, MNN and ONNX Runtime where they are installed."""

import logging
import os
import platform
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from finescale.errors import FinescaleError, UsageError, install, is_out_of_memory, nearest
from finescale.inference import ENGINES, PRECISIONS
from finescale.inference.engines import compiled
from finescale.inference.engines.interface import Engine
from finescale.inference.engines.source import Source
from finescale.inference.machine import NoPythonError

if TYPE_CHECKING:
    import torch

    from finescale.networks.base import Network

log = logging.getLogger("finescale")

_TRANSLATORS = ("openvino", "mnn", "onnx")  # which run on CPUs alone


def choose(
    network: "Network | Path | Source",
    *,
    device: "str | torch.device" = "auto",
    engine: str = "auto",
    precision: str = "auto",
    window: int | None = 48,
) -> Engine:
    """The engine for a network.

    "auto" takes the fastest that is installed, runs here and loses less than 0.01 dB: on a GPU PyTorch, in bfloat16; on
    a CPU with bfloat16 OpenVINO, in that, and on others of the kind x86-64 MNN; without them OpenVINO or ONNX Runtime
    for float32, else PyTorch. Torch is not imported if it is not needed. "int8" is for those who ask: it loses more,
    and OpenVINO alone computes it.

    Args:
        network: a network or a weight file, or one that is a source already, with its window.
        device: "auto", "cpu", "cuda", ...
        engine: one of `ENGINES`.
        precision: one of `PRECISIONS`.
        window: of the local statistics.

    Raises:
        UsageError: unknown or impossible engine, precision or device.
    """
    device = _name(device)
    engine = _possible(device, engine, precision)
    source = network if isinstance(network, Source) else Source(network, window)
    if engine in _TRANSLATORS:
        return _make(engine, source, precision)
    if engine == "auto" and _on_cpu(device):
        for name, exactness in _fastest(precision):
            try:
                return _make(name, source, exactness)
            except UsageError:
                raise
            except NoPythonError as error:
                log.warning("the %s engine, the fastest here, is left out: %s", name, error)
            except FinescaleError:
                pass  # it cannot take this network so
    return _torch(source, device, precision)


def _torch(source: Source, device: str, precision: str) -> Engine:
    """PyTorch; for "auto" in bfloat16 where that loses little, which is looked at once for a network and device."""
    import torch

    from finescale.inference.engines.agreement import BFLOAT16, closeness
    from finescale.inference.engines.pytorch import TorchEngine, device_name, pick_device
    from finescale.inference.photograph import photograph

    chosen = pick_device(device)
    engine = TorchEngine(source.prepared(), chosen, precision)
    if precision != "auto" or engine.precision == "float32":
        return engine
    what = f"torch {torch.__version__} {device_name(chosen)}"
    name = compiled.key(weights=source.fingerprint, engine=what, precision=engine.precision)
    stored = compiled.read(name)
    if stored and stored[0]["agreement"] >= BFLOAT16:
        return engine
    exact: Engine = engine.exact() or engine
    if stored is None:
        x = photograph(engine.multiple)
        try:
            decibels = closeness(exact.run(x), engine.run(x), limits=(0, 1))
        except Exception as error:
            if is_out_of_memory(error):  # for all of the photograph: tiles may be smaller
                return exact
            raise
        compiled.write(name, {"agreement": decibels}, b"")
        if decibels >= BFLOAT16:
            return engine
    return exact


def check(device: "str | torch.device" = "auto", engine: str = "auto", precision: str = "auto") -> None:
    """Refuses what `choose` would for every network; imports torch or OpenVINO only where nothing else knows.

    Raises:
        UsageError: unknown or impossible engine, precision or device.
    """
    device = _name(device)
    engine = _possible(device, engine, precision)
    if engine == "auto" and precision == "bfloat16" and find_spec("openvino") and _on_cpu(device):
        engine = "openvino"
    if engine == "openvino" and (precision == "bfloat16" or not find_spec("openvino")):
        from finescale.inference.engines.openvino import load_core, pick_precision

        pick_precision(load_core()[0], precision)
    elif engine == "mnn" and not find_spec("MNN"):
        from finescale.inference.engines.mnn import load_library

        load_library()
    elif engine == "onnx" and not find_spec("onnxruntime"):
        from finescale.inference.engines.onnx import load_runtime

        load_runtime()
    elif device not in ("auto", "cpu"):
        from finescale.inference.engines.pytorch import pick_device

        pick_device(device)


def _name(device: object) -> str:
    """What a device is called; one of torch's is told by its module, as torch is not imported to know it."""
    if type(device).__module__ == "torch":
        return str(device)
    if not isinstance(device, str):
        raise UsageError(f"a device is named, such as 'cpu', and not {device!r}")
    return device


def _possible(device: str, engine: str, precision: str) -> str:
    """The engine, or the only one that has the precision; refuses what is impossible on every machine."""
    for value, known in ((engine, ENGINES), (precision, PRECISIONS)):
        if value not in known:
            raise UsageError(f"'{value}' is not one of {', '.join(known)}{nearest(value, known)}")
    if precision == "int8" and engine == "auto":
        if not find_spec("openvino"):
            raise UsageError(f"int8 needs OpenVINO and NNCF: {install('int8')}")
        engine = "openvino"
    if engine in _TRANSLATORS and device not in ("auto", "cpu"):
        raise UsageError(f"the {engine} engine runs on the CPU, not on '{device}'")
    exact = {"torch": ("float32", "bfloat16"), "mnn": ("float32",), "onnx": ("float32",)}.get(engine, PRECISIONS)
    if precision not in ("auto", *exact):
        raise UsageError(f"the {engine} engine computes in {' and '.join(exact)}, not in {precision}")
    return engine


def _on_cpu(device: str) -> bool:
    return device == "cpu" or (device == "auto" and not _gpu())


def _fastest(precision: str) -> list[tuple[str, str]]:
    """The installed engines that are faster than PyTorch on this CPU, and in which precision, fastest first."""
    exact, low = precision != "bfloat16", _bfloat16()
    found = []
    if exact and not low and find_spec("MNN") and find_spec("onnx") and _measured_for_mnn():
        found.append(("mnn", "float32"))
    if find_spec("openvino"):
        return found + [("openvino", p) for p in (("auto", "float32") if precision == "auto" else (precision,))]
    # PyTorch in bfloat16 is faster than ONNX Runtime in float32
    if exact and not (low and precision == "auto") and find_spec("onnxruntime") and find_spec("onnx"):
        found.append(("onnx", "float32"))
    return found


def _measured_for_mnn() -> bool:
    """Whether MNN was measured on processors of this kind."""
    return platform.machine().lower() in ("x86_64", "amd64")


def _bfloat16() -> bool:
    """Whether this CPU computes in bfloat16; where the system does not tell its abilities, OpenVINO does."""
    abilities = compiled.abilities()
    if "flags" in abilities or not find_spec("openvino"):
        return "bf16" in abilities
    from finescale.inference.engines.openvino import load_core, pick_precision

    try:
        return pick_precision(load_core()[0]) == "bfloat16"
    except FinescaleError:  # it is installed and broken: the other engines go on
        return "bf16" in abilities


def _make(engine: str, source: Source, precision: str) -> Engine:
    if engine == "onnx":
        from finescale.inference.engines.onnx import ONNXEngine

        return ONNXEngine(source)
    if engine == "mnn":
        from finescale.inference.engines.mnn import MNNEngine

        return MNNEngine(source)
    from finescale.inference.engines.openvino import OpenVINOEngine

    return OpenVINOEngine(source, precision)


def _gpu() -> bool:
    """Whether there is a GPU that torch can use; asks torch only where a driver is installed."""
    driver = shutil.which("nvidia-smi") or any(
        Path(path).exists()
        for path in ("/dev/nvidiactl", "/dev/kfd", f"{os.environ.get('SYSTEMROOT', '')}/System32/nvcuda.dll")
    )
    if not driver and "torch" not in sys.modules:
        return False
    from finescale.inference.engines.pytorch import cuda_computes

    return cuda_computes()
