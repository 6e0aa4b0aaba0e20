"""PyTorch: every device, float32 and bfloat16."""

import math
import os
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from finescale.errors import FinescaleWarning, UsageError, is_out_of_memory
from finescale.inference.engines.interface import Engine
from finescale.inference.machine import tile_budget
from finescale.inference.prepare import bytes_per_pixel, full_float32
from finescale.inference.tiling import Array, Progress
from finescale.networks.base import Network

LARGEST_TENSOR = 4 << 31
"""Bytes of all features of a tile on a GPU, so that none has more numbers (float32) than some kernels can count."""
SLOW = "bfloat16 is much slower than float32 on this machine"
UNUSABLE = (RuntimeError, AssertionError, ImportError)


def pick_device(name: str = "auto") -> torch.device:
    """The device of that name; "auto" takes CUDA where it computes, else the CPU.

    Raises:
        UsageError: there is no such device here, or it does not compute.
    """
    if name == "auto":
        return torch.device("cuda" if cuda_computes() else "cpu")
    try:
        with warnings.catch_warnings(action="ignore"):  # of names that torch no longer uses
            device = torch.device(name)
        try_out(device)
        if device.type == "cpu" and device.index:
            raise RuntimeError("torch takes any number")
    except UNUSABLE as error:
        here = _devices()
        if name in here or (name == "cuda" and torch.cuda.is_available()):
            raise UsageError(f"the device '{name}' cannot be used ({reason(error)})") from error
        raise UsageError(f"there is no device '{name}' here, only {', '.join(here)}") from error
    return device


@cache
def cuda_computes() -> bool:
    """Whether there is a GPU that computes; of one that torch counts and that does not, a warning gives the reason.

    It may be too old for this torch, or another process may have it for itself.
    """
    if not torch.cuda.is_available():
        return False
    try:
        try_out(torch.device("cuda"))
    except UNUSABLE as error:
        if is_out_of_memory(error):  # it computes, and is full at the moment
            return True
        warning = f"the GPU cannot be used ({reason(error)}); this is computed on the CPU"
        warnings.warn(warning, FinescaleWarning, stacklevel=2)
        return False
    return True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=cuda_computes.cache_clear)  # CUDA does not go on in a forked process


def try_out(device: torch.device) -> None:
    """Computes a little there and brings it back; fails with one of `UNUSABLE` ("meta" holds no numbers)."""
    torch.zeros(2, device=device).add(1).cpu()


def reason(error: Exception) -> str:
    """The first line of what torch says: after it come hints for those who look for faults of their own kernels."""
    return str(error).partition("\n")[0]


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


class _Steps(TorchFunctionMode):
    """Counts torch's functions that this thread calls.

    Args:
        tell: told the count before each of them; what it raises, the call raises.

    Attributes:
        done: the count.
    """

    def __init__(self, tell: Callable[[int], None] | None = None) -> None:
        super().__init__()
        self.done, self._tell = 0, tell

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self._tell:
            self._tell(self.done)
        self.done += 1
        return function(*args, **(kwargs or {}))


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
            warnings.warn(SLOW, FinescaleWarning, stacklevel=2)
        with _Steps() as steps:
            self.bytes_per_pixel = bytes_per_pixel(network)
        self._steps, self.margin = steps.done, network.context
        self.network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.scale, self.multiple = network.scale, network.multiple
        self.device, self.precision = device, precision

    def run(self, x: Array, tick: Progress | None = None) -> Array:
        """See `Engine`; of a GPU it tells how much it has been given to do, which is a little more than it has done."""
        batch = torch.from_numpy(np.ascontiguousarray(x)).to(self.device).contiguous(memory_format=torch.channels_last)
        low = self.precision == "bfloat16"
        exactness = nullcontext() if low else full_float32(self.device)
        with torch.inference_mode(), exactness, torch.autocast(self.device.type, torch.bfloat16, enabled=low):
            with nullcontext() if tick is None else _Steps(lambda done: tick(done / self._steps)):
                y: torch.Tensor = self.network(batch)
            return y.float().cpu().numpy()

    def make_exact(self) -> "TorchEngine":
        """See `Engine`."""
        return TorchEngine(self.network, self.device, "float32")

    def rest(self) -> None:
        """See `Engine`: torch keeps what tensors on a GPU took, out of other programs' reach."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def tile_budget(self) -> float:
        """See `Engine`."""
        return min(tile_budget(self.device), LARGEST_TENSOR if self.device.type == "cuda" else math.inf)
