"""A network made ready to compute with."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from finescale.layers.statistics import localise
from finescale.networks.base import Network

WINDOW = 48  # side of the training crops, in input pixels


def for_inference(network: Network, window: int | None = WINDOW) -> Network:
    """A copy in evaluation mode, without gradients, with spectral norms folded into the weights.

    Args:
        network: left as it is.
        window: statistics are taken over squares of this many input pixels (see `finescale.layers.statistics`); None:
            over the whole picture, and then a tile is not equal to the whole.
    """
    clone = copy.deepcopy(network).eval().requires_grad_(False)
    for module in clone.modules():
        if parametrize.is_parametrized(module):
            _fold(module)
    localise(clone, window)
    return clone


def _fold(module: nn.Module) -> None:
    """Turns parametrised tensors into plain ones.

    Not `remove_parametrizations`: a copy shares its class with the original, which that function would spoil.
    """
    names = list(module.parametrizations)  # type: ignore[arg-type]
    values = {name: getattr(module, name).detach().clone() for name in names}
    module.__class__ = type(module).__bases__[0]
    del module.parametrizations
    for name, value in values.items():
        module.register_parameter(name, nn.Parameter(value, requires_grad=False))


def bytes_per_pixel(network: Network) -> float:
    """Memory that the features need for every input pixel, about: three maps of the widest layer in float32.

    Found by passing shapes without values through a copy of the network.
    """
    shapes = copy.deepcopy(network).to("meta").eval()
    widest = 0

    def measure(module: nn.Module, inputs: object, output: object) -> None:
        nonlocal widest
        if isinstance(output, Tensor):
            widest = max(widest, output.numel())

    for module in shapes.modules():
        module.register_forward_hook(measure)
    with torch.inference_mode():
        shapes(torch.empty(1, 3, 96, 96, device="meta"))
    return 3 * 4 * widest / 96**2
