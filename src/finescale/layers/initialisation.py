"""How weights start."""

import math
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from finescale.errors import check_known
from finescale.layers.spectral import settle

Initialisation = Literal["kaiming-uniform", "kaiming-normal", "xavier-uniform", "xavier-normal", "normal", "default"]
INITIALISATIONS = get_args(Initialisation)
_NORMAL_STD = 0.02  # of "normal", as in arXiv 1511.06434


@torch.no_grad()
def icnr_(weight: Tensor, scale: int) -> Tensor:
    """Makes the scale^2 sub-kernels of each output channel equal (ICNR, arXiv 1707.02937); changes `weight` in place.

    `weight` is (C scale^2, C_in, k, k), followed by a pixel shuffle; each group of sub-kernels takes its first member.
    A bias (C scale^2,) is treated alike.
    """
    groups = weight.unflatten(0, (-1, scale**2))
    groups.copy_(groups[:, :1].expand_as(groups).clone())
    return weight


class PlainPixelShuffle(nn.PixelShuffle):
    """A pixel shuffle whose convolution starts without ICNR; (B, C s^2, H, W) -> (B, C, sH, sW)."""


@torch.no_grad()
def initialise(module: nn.Module, name: Initialisation, *, slope: float = 0.0) -> None:
    """Starts the weights of all convolutions and linear layers in `module` anew, and their biases at 0.

    Of a transposed convolution the fans are what meets in one output and what one input reaches, as of any other: the
    kernel counts only every stride-th time.

    Spectral norms of `finescale.layers.spectral` are found anew.

    A convolution that a pixel shuffle follows in an `nn.Sequential` is started by ICNR on top of it, unless that is a
    `PlainPixelShuffle`.

    Args:
        module: changed in place.
        name: "kaiming-uniform", "kaiming-normal" (arXiv 1502.01852, equation 15, fan-in), "xavier-uniform",
            "xavier-normal" (Glorot and Bengio 2010, equation 16), "normal" (deviation 0.02) or "default" (PyTorch's
            own: nothing is changed).
        slope: of the activation for negative values, which Kaiming's gain takes into account.

    Raises:
        UsageError: unknown name.
    """
    check_known("initialisation", name, INITIALISATIONS)
    if name == "default":
        return
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            _start(layer, name, slope)
    for sequence in module.modules():
        if isinstance(sequence, nn.Sequential):
            for layer, after in pairwise(sequence):
                if isinstance(after, PlainPixelShuffle):
                    continue
                if isinstance(layer, nn.Conv2d) and isinstance(after, nn.PixelShuffle):
                    icnr_(layer.weight, after.upscale_factor)


def _start(layer: nn.Conv2d | nn.ConvTranspose2d | nn.Linear, name: Initialisation, slope: float) -> None:
    constrained = parametrize.is_parametrized(layer, "weight")
    weight = layer.parametrizations.weight.original if constrained else layer.weight  # type: ignore[union-attr]
    assert isinstance(weight, Tensor)
    if isinstance(layer, nn.ConvTranspose2d) and name != "normal":
        _start_transposed(layer, weight, name, slope)
    elif name == "kaiming-uniform":
        nn.init.kaiming_uniform_(weight, a=slope)
    elif name == "kaiming-normal":
        nn.init.kaiming_normal_(weight, a=slope)
    elif name == "xavier-uniform":
        nn.init.xavier_uniform_(weight)
    elif name == "xavier-normal":
        nn.init.xavier_normal_(weight)
    else:
        nn.init.normal_(weight, std=_NORMAL_STD)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    settle(layer)


def _start_transposed(layer: nn.ConvTranspose2d, weight: Tensor, name: Initialisation, slope: float) -> None:
    """PyTorch takes the outputs of a transposed convolution for its inputs, and its kernel as if the stride were 1."""
    c_in, c_out, *kernel = weight.shape
    fan_in = c_in * math.prod(kernel) / math.prod(layer.stride) / layer.groups
    fan_out = c_out * math.prod(kernel)
    variance = 2 / ((1 + slope**2) * fan_in) if name.startswith("kaiming") else 2 / (fan_in + fan_out)
    if name.endswith("uniform"):
        bound = math.sqrt(3 * variance)
        nn.init.uniform_(weight, -bound, bound)
    else:
        nn.init.normal_(weight, std=math.sqrt(variance))
