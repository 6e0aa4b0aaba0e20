"""OpenVINO: the fastest way on processors with bfloat16; compiled once for a network and processor, then cached."""

import copy
import threading
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from finescale.errors import FinescaleError, UsageError, is_out_of_memory, missing
from finescale.inference.engines import compiled
from finescale.inference.engines.agreement import BFLOAT16, FLOAT32, SIZES, agreement, least_agreement
from finescale.inference.engines.interface import Engine, Pace, grown
from finescale.inference.engines.source import Source
from finescale.inference.engines.unreported import unreported
from finescale.inference.machine import limited, threads
from finescale.inference.tiling import Array, Progress

if TYPE_CHECKING:
    from finescale.networks.base import Network

TOLERANCE = {"float32": FLOAT32, "bfloat16": BFLOAT16, "int8": 40.0}  # dB, see `finescale.inference.engines.agreement`
# as much as PyTorch's features need in float32: the most of three networks, by benchmarks/memory.py
MEMORY = {"float32": 1.8, "bfloat16": 1.1}
_HINTS = {"float32": "f32", "bfloat16": "bf16"}
KERNELS = 256  # that are kept of those compiled for sizes met before, of four sizes or so; OpenVINO's 5000 fill GiB


class OpenVINOEngine(Engine):
    """A network run by OpenVINO on the CPU.

    Args:
        source: the network.
        precision: "float32", "bfloat16", "int8" (convolutions only, see `quantise`; the rest as "auto"), or "auto"
            (bfloat16 where the processor has it).

    Raises:
        UsageError: OpenVINO is not installed or cannot compute so here.
        FinescaleError: OpenVINO cannot take this network.
    """

    name = "openvino"

    def __init__(self, source: Source, precision: str = "auto") -> None:
        core, version = load_core()
        precision = pick_precision(core, precision)
        # for `exact`, a network as it is now: it may be trained further meanwhile
        self.source, self.precision = source if precision == "float32" else copy.deepcopy(source), precision
        self._core = core
        self._features = pick_precision(core) if precision == "int8" else precision
        self._config = {
            "INFERENCE_PRECISION_HINT": _HINTS[self._features],
            "PERFORMANCE_HINT": "LATENCY",
            "CPU_RUNTIME_CACHE_CAPACITY": KERNELS,
        }
        if limited():  # else it knows best which cores to take; what is stored does not depend on it
            self._config["INFERENCE_NUM_THREADS"] = threads()
        name = compiled.key(weights=source.fingerprint, engine=f"openvino {version}", precision=precision)
        notes, model = compiled.once(lambda: self._stored(name), lambda: self._compile(name))
        self.scale, self.bytes_per_pixel, self.margin = (notes[k] for k in ("scale", "bytes_per_pixel", "margin"))
        self.closeness = notes["agreement"] if precision == "int8" else None
        self.multiple: int = notes["multiple"]
        self._model = model
        self._requests, self._pace = threading.local(), Pace()

    def run(self, x: Array, tick: Progress | None = None) -> Array:
        """See `Engine`; how far it is, it tells by the clock."""
        height, width = x.shape[2:]
        if not hasattr(self._requests, "own"):  # a request holds its results, which a second thread would overwrite
            self._requests.own = self._model.create_infer_request()
        whole = np.ascontiguousarray(grown(x, self.multiple), np.float32)
        request = self._requests.own
        if tick is None:
            request.infer([whole], share_inputs=True, share_outputs=True)
        else:
            self._follow(request, whole, tick)
        found = np.asarray(request.get_output_tensor(0).data)
        return found[..., : height * self.scale, : width * self.scale]

    def _follow(self, request: Any, x: Array, tick: Progress) -> None:
        request.start_async([x], share_inputs=True)
        try:
            self._pace.follow(lambda seconds: request.wait_for(round(1000 * seconds)), tick, x[:, 0].size)
            request.wait()
        except BaseException:
            request.cancel()
            with suppress(RuntimeError):  # that it was cancelled
                request.wait()
            raise

    def make_exact(self) -> Engine:
        """See `Engine`; by PyTorch where OpenVINO does not take the network in float32."""
        try:
            return OpenVINOEngine(self.source, "float32")
        except UsageError:
            raise
        except FinescaleError:
            from finescale.inference.engines.pytorch import TorchEngine, pick_device

            return TorchEngine(self.source.prepared(), pick_device("cpu"), "float32")

    def rest(self) -> None:
        """See `Engine`: OpenVINO keeps all that its largest tile needed."""
        self._model.release_memory()
        if self._exact is not None:
            self._exact.rest()

    def _stored(self, name: str) -> tuple[dict[str, Any], Any] | None:
        """The notes and the model that were compiled before; None where there are none, or they cannot be read."""
        entry = compiled.read(name)
        if entry is None:
            return None
        try:
            return entry[0], self._core.import_model(entry[1], "CPU", self._config)
        except RuntimeError:
            compiled.remove(name)
            return None

    def _compile(self, name: str) -> tuple[dict[str, Any], Any]:
        """Translates, compiles, compares with PyTorch, and stores."""
        network = self.source.prepared().cpu()  # wherever it was trained
        multiple = network.multiple
        try:
            from finescale.inference.engines.quantise import quantise
            from finescale.inference.photograph import photograph

            translated = translate(network, tuple(-(-side // multiple) * multiple for side in SIZES[0]))
            if self.precision == "int8":
                translated = quantise(translated, multiple)
            model = self._core.compile_model(translated, "CPU", self._config)
            if self.precision == "float32":
                decibels = least_agreement(network, lambda x: model([x])[0], multiple)
            else:  # rounding grows with the features, and what noise does to those no photograph does
                decibels = agreement(network, lambda x: model([x])[0], photograph(multiple), limits=(0, 1))
        except UsageError:
            raise
        except (ImportError, OSError) as error:  # a part of OpenVINO's is missing or broken
            raise not_taken(error) from error
        except Exception as error:  # whatever a translator meets in somebody's network
            if is_out_of_memory(error):
                raise
            raise compiled.refuse(name, str(not_taken(error))) from error
        limit, memory = TOLERANCE[self.precision], MEMORY[self._features]
        data = model.export_model().getvalue()
        return compiled.accept(name, "OpenVINO", network, data, decibels=decibels, limit=limit, memory=memory), model


def not_taken(error: Exception) -> FinescaleError:
    """What OpenVINO says against a network, in one sentence."""
    return _told("cannot take this network", error)


def _told(what: str, error: Exception) -> FinescaleError:
    """With the last line of what it says, which is where the reason stands."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return FinescaleError(f"OpenVINO {what} ({lines[-1]})")


def translate(network: "Network", size: tuple[int, ...] = (53, 67)) -> Any:
    """The network as an OpenVINO model with free batch, height and width.

    Of a (height, width) that needs no padding the model is right for such sizes only, and leaves the padding out.

    By the frontend itself: `openvino.convert_model` around it is slower, and reports its use to its makers.

    Raises:
        Exception: of several kinds: the network cannot be traced, or OpenVINO does not know what it does.
    """
    import torch
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch import ConversionExtension
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    from finescale.inference.prepare import exactly

    x = torch.zeros(1, 3, *size, dtype=torch.float32, device="cpu")
    with exactly(x.device):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # a function: of a module the tracer keeps the scopes of a hundred layers apart, which takes minutes
            traced = torch.jit.trace(lambda x: network(x), x, check_trace=False)
        manager = FrontEndManager()
        frontend = manager.load_by_framework("pytorch")
        graph = traced.graph  # its nodes do not outlive it
        if all(next(node.inputs()).type().dim() == 4 for node in graph.findAllNodes("aten::pixel_shuffle")):
            frontend.add_extension(ConversionExtension("aten::pixel_shuffle", _depth_to_space))
        decoder = TorchScriptPythonDecoder(traced)  # the frontend does not keep it alive
        model = frontend.convert(frontend.load(decoder))
    model.reshape([-1, 3, -1, -1])
    # a compiled model lists the names of all that went into a node: six times its size, and slow to read
    for i, node in enumerate(model.get_ops()):
        node.set_friendly_name(f"{i:x}")
        notes = node.get_rt_info()
        for key in list(notes):
            del notes[key]
        for output in node.outputs():
            output.get_tensor().set_names(set())
    return model


def _depth_to_space(node: Any) -> Any:
    """Pixel shuffle of (B, C, H, W) as one operation: for the frontend's three the features are copied, slowly."""
    from openvino import opset13

    factor = int(node.get_values_from_const_input(1))
    return opset13.depth_to_space(node.get_input(0), "depth_first", factor).outputs()


def pick_precision(core: Any, precision: str = "auto") -> str:
    """The precision, for "auto" bfloat16 where the processor has it.

    Raises:
        UsageError: the processor has not what is asked for.
        FinescaleError: OpenVINO is broken.
    """
    try:
        abilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    except RuntimeError as error:
        raise _broken(error) from error
    best = "bfloat16" if "BF16" in abilities else "float32"
    if precision == "bfloat16" != best:
        raise UsageError("this processor has no bfloat16, and OpenVINO would compute in float32 instead")
    return best if precision == "auto" else precision


def load_core() -> tuple[Any, str]:
    """OpenVINO and its version; UsageError where it is not installed, FinescaleError where it is broken."""
    try:
        with unreported():
            import openvino
    except (ImportError, OSError) as error:
        raise missing("openvino", "the openvino engine needs OpenVINO", "fast", error) from error
    try:
        return openvino.Core(), openvino.get_version()
    except RuntimeError as error:
        raise _broken(error) from error


def _broken(error: RuntimeError) -> FinescaleError:
    """That OpenVINO does not work at all, as in a program that was packed without its plugins."""
    return _told("is installed and does not work", error)
