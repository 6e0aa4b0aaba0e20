"""What every super-resolution network here has in common: its contract, its padding, its record of itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from finescale.errors import UsageError
from finescale.layers.statistics import crop, sharing

DIV2K_MEAN = (0.4488, 0.4371, 0.4040)  # RGB mean of the DIV2K training pictures


@dataclass(frozen=True)
class Config:
    """How a network was built; enough to build it again.

    Attributes:
        name: its name in the catalogue.
        architecture: the class name.
        arguments: every argument of the constructor, defaults included; plain JSON values.
    """

    name: str
    architecture: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


class Network(nn.Module):
    """A super-resolution network.

    `forward` takes (B, 3, H, W) in [0, 1], any H, W >= 1, and gives (B, 3, scale H, scale W), about [0, 1] but not
    clipped. It never changes its input. Subclasses implement `enlarge` for sizes that are multiples of `multiple`.

    Attributes:
        multiple: what the sides of the pictures that `enlarge` is given are multiples of; a divisor of 48, where tiles
            begin.
        context: input pixels around a tile that can change it visibly, with local windows; tiles take the next multiple
            of 48. Stacked layers reach much further than one sees: it is measured, by comparing tiles with the whole.
        config: how the catalogue built it.
        notes: what the weight file that it was loaded from says of data, budget, licence and figures; else empty.

    Raises:
        ValueError: the scale is not 2, 3 or 4; `forward` is given something other than a batch of RGB pictures, or
            `enlarge` gives pictures of another size.
    """

    multiple: int = 1
    context: int = 48
    config: Config | None = None
    notes: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, *, scale: int) -> None:
        super().__init__()
        if scale not in (2, 3, 4):
            raise ValueError(f"scale must be 2, 3 or 4, not {scale!r}")
        self.scale = scale

    if TYPE_CHECKING:  # PyTorch says that a module's call gives anything

        def __call__(self, x: Tensor) -> Tensor: ...

    def enlarge(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3, scale H, scale W), H and W multiples of `self.multiple`."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[1] != 3:
            raise ValueError(f"expected a batch of RGB pictures (B, 3, H, W), got shape {tuple(x.shape)}")
        if not x.is_floating_point():  # 0 to 255 would go through, and come out as noise
            raise ValueError(f"expected floats in [0, 1], got {x.dtype}; divide pictures of 8 bits by 255")
        height, width = x.shape[2:]
        if self.multiple > 1:
            x = pad_to_multiple(x, self.multiple)
        with sharing():
            y = self.enlarge(x)
        tracing: bool = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        if not tracing and not torch.compiler.is_compiling():
            wanted = (len(x), 3, x.shape[2] * self.scale, x.shape[3] * self.scale)
            if y.shape != wanted:  # tiles would be cut out of it at wrong places
                raise ValueError(f"{type(self).__name__}.enlarge should give {wanted}, not {tuple(y.shape)}")
        return y if self.multiple == 1 else crop(y, height * self.scale, width * self.scale)


def check_network(network: object) -> None:
    """Refuses what is no `Network`.

    Raises:
        UsageError: it is not.
    """
    if not isinstance(network, Network):
        raise UsageError(f"a network is needed, such as finescale.load gives, not {type(network).__name__}")


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Grows (B, C, H, W) at the bottom and right to multiples of `multiple`: mirrored as far as it goes, then edge."""
    for axis, size in ((2, x.shape[2]), (3, x.shape[3])):
        missing = -size % multiple
        if missing:  # by index: `F.pad` mirrors no side of one pixel, nor does ONNX
            places = torch.arange(size + missing, device=x.device)
            x = x.index_select(axis, torch.where(places < size, places, (2 * size - 2 - places).clamp(min=0)))
    return x


class MeanShift(nn.Module):
    """Adds or takes away the mean colour of a training set; (B, 3, H, W) -> same.

    The weight and bias are those of the 1x1 convolution of the EDSR and RCAN files, kept under the same names as
    buffers: they are part of a file and are never trained.

    Args:
        mean: RGB mean in [0, 1].
        value_range: the network's inner range, 1 or 255.
        sign: -1 takes the mean away, +1 adds it.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, mean: tuple[float, float, float], value_range: float, sign: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.eye(3).reshape(3, 3, 1, 1))
        self.register_buffer("bias", sign * value_range * torch.tensor(mean))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias.reshape(1, 3, 1, 1)  # float32 where autocast made x bfloat16
