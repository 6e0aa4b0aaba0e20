"""ONNX Runtime: float32 on any CPU; the same translation is what `finescale export` writes."""

import io
import logging
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from finescale.errors import FinescaleError, is_out_of_memory, missing
from finescale.inference.engines import compiled
from finescale.inference.engines.agreement import FLOAT32, least_agreement
from finescale.inference.engines.interface import Engine, Pace
from finescale.inference.engines.source import Source
from finescale.inference.engines.unreported import unreported
from finescale.inference.machine import threads
from finescale.inference.tiling import Array, Progress

if TYPE_CHECKING:
    from finescale.networks.base import Network

OPSET = 18
MEMORY = 2.5  # as much as PyTorch's features need: the most of three networks, by benchmarks/memory.py


class ONNXEngine(Engine):
    """A network run by ONNX Runtime on the CPU, in float32.

    Args:
        source: the network.

    Raises:
        UsageError: ONNX Runtime is not installed.
        FinescaleError: ONNX Runtime gives another picture than PyTorch, or ONNX cannot take this network.
    """

    name = "onnx"
    precision = "float32"

    def __init__(self, source: Source) -> None:
        name = compiled.key(weights=source.fingerprint, engine=f"onnx {load_runtime().__version__} {translator()}")
        notes, data = compiled.once(lambda: compiled.read(name), lambda: self._translate(source, name))
        self.scale, self.bytes_per_pixel, self.margin = (notes[k] for k in ("scale", "bytes_per_pixel", "margin"))
        self.multiple: int = notes["multiple"]
        self._run = runner(data)

    def run(self, x: Array, tick: Progress | None = None) -> Array:
        """See `Engine`; how far it is, it tells by the clock."""
        return self._run(x, tick)

    @staticmethod
    def _translate(source: Source, name: str) -> tuple[dict[str, Any], bytes]:
        """Translates, compares with PyTorch, and stores."""
        network = source.prepared().cpu()
        data = translated(network, name)
        try:
            decibels = least_agreement(network, runner(data))
        except FinescaleError as error:
            raise compiled.refuse(name, str(error)) from error
        accepted = compiled.accept(name, "ONNX Runtime", network, data, decibels=decibels, limit=FLOAT32, memory=MEMORY)
        return accepted, data


@contextmanager
def _refusing(who: str) -> Iterator[None]:
    """Turns all errors, but for want of memory, into one sentence."""
    try:
        yield
    except Exception as error:  # ONNX Runtime's are of classes of its own; a translator meets all kinds
        if is_out_of_memory(error):
            raise
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise FinescaleError(f"{who} cannot take this network ({lines[0]})") from error


def load_runtime() -> Any:
    """ONNX Runtime; UsageError where it is not installed, FinescaleError where it is broken."""
    try:
        with unreported():
            import onnxruntime
    except (ImportError, OSError) as error:
        raise missing("onnxruntime", "the onnx engine needs ONNX Runtime", "onnx", error) from error
    return onnxruntime


class _Run(Protocol):
    def __call__(self, x: Array, tick: Progress | None = None, /) -> Array: ...


def runner(data: bytes) -> _Run:
    """What computes the enlarged (B, 3, sH, sW) of a (B, 3, H, W) by an ONNX file that `translate` made.

    For `tick`, which it may be given too, see `Engine.run`.

    Raises:
        FinescaleError: ONNX Runtime does not take the file, or (what is returned) fails at it.
    """
    onnxruntime = load_runtime()
    with _refusing("ONNX Runtime"):
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads()  # by itself it takes all that the machine has
        session = onnxruntime.InferenceSession(data, settings, providers=["CPUExecutionProvider"])
    pace = Pace()

    def run(x: Array, tick: Progress | None = None, /) -> Array:
        options = onnxruntime.RunOptions()  # else it keeps all that its largest tile needed
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        given = {"picture": np.ascontiguousarray(x, np.float32)}
        if tick is None:
            with _refusing("ONNX Runtime"):
                found: Array = session.run(None, given, options)[0]
            return found
        with ThreadPoolExecutor(1) as apart:
            computing = apart.submit(session.run, None, given, options)
            try:
                pace.follow(lambda seconds: bool(wait([computing], seconds).done), tick, x[:, 0].size)
            except BaseException:
                options.terminate = True
                raise
            with _refusing("ONNX Runtime"):
                found = computing.result()[0]
        return found

    return run


def translated(network: "Network", name: str, size: tuple[int, ...] = (53, 67)) -> bytes:
    """As `translate`; that it cannot be is remembered under a name of the cache."""
    _load_package()
    try:
        return translate(network, size)
    except FinescaleError as error:
        raise compiled.refuse(name, str(error)) from error


def translator() -> str:
    """What makes ONNX files here: other versions may take what these refuse."""
    return f"{OPSET} {' '.join(_version(package) for package in ('torch', 'onnx') if find_spec(package))}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # a frozen program may leave out what says it
        return "unknown"


def _load_package() -> None:
    """The package onnx, which torch needs when all the work is done."""
    try:
        import onnx  # noqa: F401
    except (ImportError, OSError) as error:
        raise missing("onnx", "ONNX files need the package onnx", "onnx", error) from error


def translate(network: "Network", size: tuple[int, ...] = (53, 67)) -> bytes:
    """The network as an ONNX file: "picture" (B, 3, H, W) to "enlarged" (B, 3, sH, sW), all three sizes free.

    Of a (height, width) that needs no padding the file is right for such sizes only, and leaves the padding out.

    Raises:
        UsageError: the package onnx is not installed.
        FinescaleError: that package is broken, or the network cannot be traced, or does what ONNX has no operation for.
    """
    _load_package()
    import torch

    from finescale.inference.prepare import exactly

    x = torch.zeros(1, 3, *size, dtype=torch.float32, device="cpu")
    buffer = io.BytesIO()
    free = {
        "picture": {0: "batch", 2: "height", 3: "width"},
        "enlarged": {0: "batch", 2: "enlarged_height", 3: "enlarged_width"},
    }
    logger, default = logging.getLogger("torch.onnx"), torch.get_default_dtype()
    level, told, fast = logger.level, torch._C._jit_onnx_log, torch.backends.mha.get_fastpath_enabled()
    try:
        logger.setLevel(logging.ERROR)
        torch._C._jit_onnx_log = lambda *_: None  # prints whole graphs that it could not translate, and has no switch
        torch.backends.mha.set_fastpath_enabled(False)  # attention in one operation, which ONNX lacks
        torch.set_default_dtype(torch.float32)  # of the constants that it writes down
        with _refusing("ONNX"), exactly(x.device), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # by tracing: twenty times faster here than by torch.export, and the graph is smaller
            torch.onnx.export(
                network,
                (x,),
                buffer,  # type: ignore[arg-type]
                dynamo=False,
                opset_version=OPSET,
                input_names=["picture"],
                output_names=["enlarged"],
                dynamic_axes=free,
            )
    finally:
        logger.setLevel(level)
        torch._C._jit_onnx_log = told
        torch.backends.mha.set_fastpath_enabled(fast)
        torch.set_default_dtype(default)
    return _with_colours(buffer.getvalue())


def _with_colours(data: bytes) -> bytes:
    """An ONNX file that says how many channels its output has, which some converters ask about."""
    import onnx

    model = onnx.load_from_string(data)
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 3
    return model.SerializeToString()
