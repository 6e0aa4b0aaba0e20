"""What a run costs and how fast it goes: operations, the device's measured peak, memory, seconds per step."""

import copy
import time

import torch
from torch import Tensor, nn

from finescale.inference.engines.pytorch import SLOW, fast_bfloat16
from finescale.networks.base import Network
from finescale.networks.complexity import count


def step_flops(network: Network, patch: int) -> float:
    """Floating-point operations of one crop's forward and backward pass (three times the forward pass's)."""
    return 6.0 * count(copy.deepcopy(network).to("meta"), (patch, patch)).macs


def measured_peak(device: torch.device, precision: str) -> float:
    """FLOP/s of large matrix products on a device, the best of a few; takes about a second.

    Smaller ones do not reach it: on one CPU with matrix units 1024 gave 1,440 GFLOP/s in bfloat16, 2048 gave 2,430.
    Larger ones are left out where small ones are slow: a CPU without bfloat16 gave 0.3 GFLOP/s.
    """
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    generator = torch.Generator(device).manual_seed(0)
    best = 0.0
    for size in (256, 1024, 8192 if device.type == "cuda" else 2048):
        if best and 2 * size**3 / best > 1:  # seconds for one
            break
        a, b = (torch.randn(size, size, generator=generator, device=device).to(dtype) for _ in range(2))
        begun, count = _now(device), 0
        while count < 4 or _now(device) - begun < 0.1:  # few of the small ones say little on a busy machine
            started = _now(device)
            a @ b
            best, count = max(best, 2 * size**3 / (_now(device) - started)), count + 1
    return best


def slow_bfloat16(device: torch.device, precision: str) -> str | None:
    """What there is to say against a precision on a device; None: nothing."""
    if precision != "bfloat16" or fast_bfloat16(device):
        return None
    return SLOW


def activation_bytes(network: Network, batch: int, patch: int) -> int:
    """Bytes of what one step keeps for its backward pass in float32; bfloat16 needs about half. Nothing is computed."""
    ghost = copy.deepcopy(network).to("meta").train()
    kept: dict[int, int] = {}
    holders: list[Tensor] = []  # keeps the tensors alive, so that no address is used twice

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if not isinstance(tensor, nn.Parameter):
            kept[storage._cdata] = storage.nbytes()
            holders.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        ghost(torch.zeros(batch, 3, patch, patch, device="meta"))
    return sum(kept.values())


def seconds_per_step(network: Network, batch: int, patch: int, device: torch.device, precision: str) -> float:
    """Measured on random pictures; on the CPU with two crops (batch norms take no single one), times half the batch.

    The network's buffers and gradients are left as they were.
    """
    probe = copy.deepcopy(network).to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    crops = batch if device.type == "cuda" else min(batch, 2)
    x = torch.rand(crops, 3, patch, patch, device=device).contiguous(memory_format=torch.channels_last)
    times = []
    for _ in range(4 if device.type == "cuda" else 2):
        started = _now(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            y = probe(x)
        y.float().abs().mean().backward()
        times.append(_now(device) - started)
    return min(times) * batch / crops


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
