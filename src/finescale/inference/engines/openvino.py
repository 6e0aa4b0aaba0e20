"""OpenVINO: the fastest way on Intel and AMD processors; compiled once for a network and processor, then cached."""

import math
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from finescale.errors import FinescaleError, UsageError
from finescale.inference.engines import compiled
from finescale.inference.engines.source import Source
from finescale.inference.tiling import Array

if TYPE_CHECKING:
    from finescale.networks.base import Network

# dB to PyTorch's float32 below which a translation is refused: of noise in float32, else of a photograph; 60 dB cost an
# enlargement of 33 dB less than 0.01
TOLERANCE = {"float32": 80.0, "bfloat16": 60.0, "int8": 40.0}
MEMORY = {"float32": 1.7, "bfloat16": 1.4, "int8": 1.4}  # as much as PyTorch's features need in float32, measured
_HINTS = {"float32": "f32", "bfloat16": "bf16"}


class OpenVINOEngine:
    """A network run by OpenVINO on the CPU.

    Args:
        source: the network.
        precision: "float32", "bfloat16", "int8" (convolutions only, see `quantise`; the rest as "auto"), or "auto"
            (bfloat16 where the processor has it).

    Raises:
        UsageError: OpenVINO is not installed or cannot compute so.
        FinescaleError: OpenVINO cannot take this network.
    """

    name = "openvino"

    def __init__(self, source: Source, precision: str = "auto") -> None:
        core, version = load_core()
        best = "bfloat16" if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "float32"
        if precision == "auto":
            precision = best
        if precision not in TOLERANCE:
            raise UsageError(f"the openvino engine computes in {', '.join(TOLERANCE)}, not in {precision}")
        self.source, self.precision = source, precision
        self._core = core
        self._config = {
            "INFERENCE_PRECISION_HINT": _HINTS[best if precision == "int8" else precision],
            "PERFORMANCE_HINT": "LATENCY",
        }
        self._key = {"weights": source.fingerprint(), "engine": f"openvino {version}", "precision": precision}
        self._runs: dict[bool, Callable[[Array], Array]] = {}
        self._last = True  # whether the last picture was aligned
        entry = compiled.read(self._name(True))
        if entry is None:
            notes, model = self._compile(True)
            self._runs[True] = _Run(model)
        else:
            notes = entry[0]
            if "refused" in notes:
                raise FinescaleError(notes["refused"])
        self._alignment: int = notes["alignment"]
        self.scale, self.bytes_per_pixel, self.margin = (notes[k] for k in ("scale", "bytes_per_pixel", "margin"))
        self.closeness: float | None = notes["agreement"] if precision == "int8" else None

    def run(self, x: Array) -> Array:
        """See `Engine`."""
        aligned = not (x.shape[2] % self._alignment or x.shape[3] % self._alignment)
        if aligned not in self._runs:
            self._runs[aligned] = self._load(aligned)
        if aligned != self._last:
            other, self._last = self._runs.get(self._last), aligned
            if isinstance(other, _Run):
                other.release()
        return self._runs[aligned](x)

    def exact(self) -> "OpenVINOEngine | None":
        """The same network in float32."""
        return None if self.precision == "float32" else OpenVINOEngine(self.source, "float32")

    def _name(self, aligned: bool) -> str:
        """Of the cache's entry: pictures whose sides are multiples of the alignment have a model of their own."""
        return compiled.key(**self._key, aligned=aligned)

    def _load(self, aligned: bool) -> Callable[[Array], Array]:
        """What was compiled before, or is now; PyTorch where OpenVINO takes the network at aligned sizes only."""
        entry = compiled.read(self._name(aligned))
        if entry is not None and "refused" not in entry[0]:
            try:
                return _Run(self._core.import_model(entry[1], "CPU", self._config))
            except RuntimeError:
                compiled.remove(self._name(aligned))
                entry = None
        try:
            if entry is not None:
                raise FinescaleError(entry[0]["refused"])
            return _Run(self._compile(aligned)[1])
        except UsageError:
            raise
        except FinescaleError:
            import torch

            from finescale.inference.engines.pytorch import TorchEngine

            return TorchEngine(self.source.prepared(), torch.device("cpu"), "float32").run

    def _compile(self, aligned: bool) -> tuple[dict[str, Any], Any]:
        """Translates, compiles, compares with PyTorch, and stores."""
        from finescale.inference.prepare import bytes_per_pixel
        from finescale.layers.statistics import alignment

        network = self.source.prepared()
        multiple = math.lcm(alignment(network), network.multiple)
        name = self._name(aligned)

        def sides(*size: int) -> tuple[int, ...]:
            return tuple(-(-side // multiple) * multiple for side in size) if aligned else size

        try:
            from finescale.inference.engines.quantise import photograph, quantise

            side = multiple if aligned else 1
            translated = translate(network, sides(53, 67))
            if self.precision == "int8":
                translated = quantise(translated, side)
            model = self._core.compile_model(translated, "CPU", self._config)
            if self.precision == "float32":
                agreement = min(_agreement(network, model, _noise(sides(*size))) for size in ((53, 67), (96, 50)))
            else:  # rounding grows with the features, and what noise does to those no photograph does
                agreement = _agreement(network, model, photograph(side), limits=(0, 1))
        except UsageError:
            raise
        except Exception as error:  # whatever a translator meets in somebody's network
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise self._refuse(name, f"OpenVINO cannot take this network ({lines[-1]})") from error
        if agreement < TOLERANCE[self.precision]:
            raise self._refuse(
                name, f"OpenVINO gives another picture than PyTorch for this network ({agreement:.1f} dB)"
            )
        notes = {
            "scale": network.scale,
            "bytes_per_pixel": MEMORY[self.precision] * bytes_per_pixel(network),
            "margin": network.context,
            "alignment": multiple,
            "agreement": agreement,
        }
        compiled.write(name, notes, model.export_model().getvalue())
        return notes, model

    def _refuse(self, name: str, reason: str) -> FinescaleError:
        """Remembers that it does not work, so that it is not tried every time."""
        compiled.write(name, {"refused": reason}, b"")
        return FinescaleError(reason)


class _Run:
    """A compiled model as a function. It keeps the memory of its last picture until it is told to release it."""

    def __init__(self, model: Any) -> None:
        self._model, self._request = model, model.create_infer_request()

    def __call__(self, x: Array) -> Array:
        found = self._request.infer([np.ascontiguousarray(x, np.float32)], share_inputs=True, share_outputs=True)
        return np.asarray(found[0])

    def release(self) -> None:
        self._model.release_memory()


def translate(network: "Network", size: tuple[int, ...] = (53, 67)) -> Any:
    """The network as an OpenVINO model with free batch, height and width.

    Of a (height, width) that needs no padding the model is right for such sizes only, and faster.

    By the frontend itself: `openvino.convert_model` around it is slower, and reports its use to its makers.
    """
    import torch
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(network, torch.zeros(1, 3, *size), check_trace=False)
    manager = FrontEndManager()
    frontend = manager.load_by_framework("pytorch")
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


def load_core() -> tuple[Any, str]:
    """OpenVINO and its version; UsageError where it is not installed."""
    try:
        import openvino
    except ImportError as error:
        raise UsageError("the openvino engine needs OpenVINO: pip install 'finescale[fast]'") from error
    return openvino.Core(), openvino.get_version()


def _noise(size: tuple[int, ...]) -> Array:
    """(1, 3, height, width) in [0, 1], always the same."""
    return np.random.default_rng(0).random((1, 3, *size), np.float32)


def _agreement(network: "Network", model: Any, x: Array, limits: tuple[float, float] | None = None) -> float:
    """dB between OpenVINO's and PyTorch's picture of (1, 3, H, W), relative to its range, or clipped to `limits`."""
    import torch

    with torch.inference_mode():
        wanted, found = network(torch.from_numpy(x)).numpy(), model([x])[0]
    if limits:
        wanted, found = wanted.clip(*limits), found.clip(*limits)
    error = float(np.square(found - wanted).mean()) ** 0.5
    return float(20 * np.log10(max(1.0, float(np.abs(wanted).max())) / max(error, 1e-12)))
