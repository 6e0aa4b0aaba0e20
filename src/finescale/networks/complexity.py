"""What a network costs: its parameters, and the multiplications of one forward pass."""

import json
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from finescale.layers.attention import SelfAttention
from finescale.networks.base import Network
from finescale.networks.catalogue import NETWORKS, build, resolve

_TABLE = Path(__file__).with_name("costs.json")


@dataclass(frozen=True)
class Cost:
    """Of one network at one scale.

    Attributes:
        parameters: that are trained.
        macs: multiply-accumulates of convolutions, linear layers and attention products for one picture; norms,
            activations and the fixed bicubic enlargement are not counted, as is usual. Of a class that is not
            Finescale's, of all convolutions and products of matrices that are computed.
    """

    parameters: int
    macs: int


def count(network: Network, size: tuple[int, int] = (48, 48)) -> Cost:
    """Counts from the shapes met in one forward pass of a picture of `size` (height, width).

    On the meta device nothing is computed.
    """
    total = 0

    def add(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        nonlocal total
        total += _macs(module, inputs[0], output)

    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear, SelfAttention)
    handles = [module.register_forward_hook(add) for module in network.modules() if isinstance(module, kinds)]
    training = {module: module.training for module in network.modules()}
    like = next(network.parameters(), torch.empty(0, device="meta"))
    ours, fast = type(network).__module__.startswith("finescale."), torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)  # in its parts, as PyTorch does not count attention as a whole
        counter = nullcontext() if ours else FlopCounterMode(display=False)
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter as products:
            network.eval()(torch.zeros(1, 3, *size, device=like.device, dtype=like.dtype))
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for module, mode in training.items():
            module.training = mode
        for handle in handles:
            handle.remove()
    return Cost(sum(p.numel() for p in network.parameters()), products.get_total_flops() // 2 if products else total)


def _macs(module: nn.Module, x: Tensor, output: Tensor) -> int:
    """Multiply-accumulates of a layer; of self-attention, those of its products alone."""
    if isinstance(module, nn.Linear):
        return output.numel() * module.in_features
    if isinstance(module, SelfAttention):
        height, width = (-(-side // module.query_pool) for side in x.shape[2:])
        keys = -(-height // module.pool) * -(-width // module.pool)
        return height * width * keys * (module.hidden + module.inner)
    positions = x if isinstance(module, nn.ConvTranspose2d) else output
    assert isinstance(module.weight, Tensor)
    return positions.numel() // positions.shape[1] * module.weight.numel()


def measured(name: str, *, scale: int = 4) -> Cost:
    """The cost of a network of the catalogue for a picture of 48 x 48, counted anew; nothing is computed.

    Raises:
        UsageError: unknown name or scale.
    """
    # built on the CPU and emptied: on the meta device the 15 power iterations of every spectral norm take a minute
    with torch.random.fork_rng(devices=[]):
        return count(build(name, scale=scale).to("meta"))


def cost(name: str, *, scale: int = 4) -> Cost:
    """The cost of a network of the catalogue for a picture of 48 x 48, as counted when the catalogue was last changed.

    Building all networks to count them takes many seconds, so the counts are kept beside this file (`write_table`
    renews them; a test holds them to `measured`).

    Raises:
        UsageError: unknown name or scale.
    """
    entry = _table().get(f"{resolve(name)}-x{scale}")
    return Cost(*entry) if entry else measured(name, scale=scale)


@cache
def _table() -> dict[str, list[int]]:
    return dict(json.loads(_TABLE.read_text())) if _TABLE.is_file() else {}


def write_table() -> None:
    """Counts every network of the catalogue at every scale and writes the table that `cost` reads."""
    costs = {f"{name}-x{scale}": measured(name, scale=scale) for name in NETWORKS for scale in (2, 3, 4)}
    lines = (f'"{name}": [{one.parameters}, {one.macs}]' for name, one in costs.items())
    _TABLE.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    write_table()
