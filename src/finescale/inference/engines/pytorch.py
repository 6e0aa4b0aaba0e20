"""PyTorch: every device, float32 and bfloat16."""

import warnings
from contextlib import nullcontext

import numpy as np
import torch

from finescale.errors import FinescaleWarning, UsageError
from finescale.inference.engines.interface import Engine
from finescale.inference.machine import tile_budget
from finescale.inference.prepare import bytes_per_pixel, full_float32
from finescale.inference.tiling import Array
from finescale.networks.base import Network


def pick_device(name: str = "auto") -> torch.device:
    """The device of that name; "auto" takes CUDA where there is one, else the CPU.

    Raises:
        UsageError: there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        with warnings.catch_warnings(action="ignore"):  # of names that torch no longer uses
            device = torch.device(name)
        torch.zeros(1, device=device).cpu()  # "meta" holds no numbers
        if device.type == "cpu" and device.index:
            raise RuntimeError("torch takes any number")
    except (RuntimeError, AssertionError, ImportError) as error:
        raise UsageError(f"there is no device '{name}' here, only {', '.join(_devices())}") from error
    return device


def _devices() -> list[str]:
    return ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]


def device_name(device: torch.device) -> str:
    """What kind of device it is; of a CPU `finescale.inference.engines.compiled.abilities` tells more."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def fast_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 faster than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


class TorchEngine(Engine):
    """A network run by PyTorch, eagerly, in channels-last layout.

    bfloat16 goes through autocast: convolutions and products are bfloat16, sums with the input picture float32.

    Args:
        network: prepared by `for_inference`; it is moved to the device.
        device: where to compute.
        precision: "float32" or "bfloat16"; "auto" takes bfloat16 where the device is fast at it.
    """

    name = "torch"

    def __init__(self, network: Network, device: torch.device, precision: str = "auto") -> None:
        if precision == "auto":
            precision = "bfloat16" if fast_bfloat16(device) else "float32"
        if precision == "bfloat16" and not fast_bfloat16(device):
            warnings.warn("bfloat16 is much slower than float32 on this machine", FinescaleWarning, stacklevel=2)
        self.bytes_per_pixel, self.margin = bytes_per_pixel(network), network.context
        self.network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.scale, self.device, self.precision = network.scale, device, precision

    def run(self, x: Array) -> Array:
        """See `Engine`."""
        batch = torch.from_numpy(np.ascontiguousarray(x)).to(self.device).contiguous(memory_format=torch.channels_last)
        low = self.precision == "bfloat16"
        exactness = nullcontext() if low else full_float32(self.device)
        with torch.inference_mode(), exactness, torch.autocast(self.device.type, torch.bfloat16, enabled=low):
            y: torch.Tensor = self.network(batch)
            return y.float().cpu().numpy()

    def make_exact(self) -> "TorchEngine":
        """See `Engine`."""
        return TorchEngine(self.network, self.device, "float32")

    def tile_budget(self) -> float:
        """See `Engine`."""
        return tile_budget(self.device)
