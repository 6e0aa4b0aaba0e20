"""Starting from the weights of another scale, another size of network, or a half-precision file."""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from finescale.atomic import sha256
from finescale.backbones.catalogue import read_state
from finescale.backbones.resnet import ResNetEncoder
from finescale.errors import FinescaleError
from finescale.layers.spectral import SpectralNorm
from finescale.training import checkpoints
from finescale.weights import store
from finescale.weights.header import read_header, told
from finescale.weights.official import SHIFT_TOLERANCE, folded

ENCODER = "encoder."  # where the names of a U-Net's encoder begin


@dataclass(frozen=True)
class Taken:
    """What a warm start did: names of tensors taken as they are, taken after resizing, and left as they were."""

    same: list[str]
    resized: list[str]
    left: list[str]

    def __str__(self) -> str:
        parts = [f"{len(self.same)} tensors taken"]
        for word, names in (("resized", self.resized), ("left", self.left)):
            if names:
                more = f" and {len(names) - 3} more" if len(names) > 3 else ""
                parts.append(f"{len(names)} {word} ({', '.join(names[:3])}{more})")
        return ", ".join(parts)


def find(named: str, scale: int) -> Path | None:
    """The file that a recipe's `warm_start` names, or None where there is none.

    Args:
        named: a file, or else the name of weights (see `finescale.weights.store.find`), as in "sa-rcan-light", or
            "sa-rcan-light-x2" for those of another scale.
        scale: the recipe's.

    Raises:
        FinescaleError: weights of that name are damaged.
    """
    if os.path.isfile(named):  # noqa: PTH113 (Path's fails over a name that is too long)
        return Path(named)
    name, _, other = named.rpartition("-x")
    return store.find(named, scale) or (store.find(name, int(other)) if name and other in ("2", "3", "4") else None)


def read(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The weights in a weight file, a checkpoint (its averaged weights) or a foreign `.pth` file.

    Raises:
        FinescaleError: it cannot be read, or holds something else.
    """
    path = Path(path)
    if path.suffix == ".ckpt":
        state = checkpoints.read(path).get("average")
        if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
            raise FinescaleError(f"{path}: a checkpoint without averaged weights")
        return state
    return folded(read_state(path))


def origin(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What weights that start from a file tell of it: its name, SHA-256, and if it says so licence and own start.

    Raises:
        FinescaleError: it is a damaged checkpoint.
    """
    path = Path(path)
    notes: Mapping[str, Any] = {}  # a foreign file says nothing
    if path.suffix == ".ckpt":
        notes = checkpoints.read(path).get("notes", {})
    else:
        with suppress(FinescaleError):
            notes = read_header(path).notes
    return {"file": path.name, "sha256": sha256(path), **told(notes)}


@torch.no_grad()
def apply(network: nn.Module, state: Mapping[str, Tensor], source: str = "the file") -> Taken:
    """Takes what fits of `state` into a network, in place.

    A tensor of the same name and shape is taken (any precision). A convolution before a pixel shuffle of another factor
    has its sub-kernels interpolated over the finer or coarser grid. Of another width the part that both have is taken,
    from the first channels on. Names that the network lacks are ignored; spectral norm's vectors are taken only
    unchanged, and found anew for weights that were resized. A ResNet encoder is taken whole or left as it is.

    Raises:
        FinescaleError: less than a twentieth fits, or pictures have another range inside the other network.
    """
    own = network.state_dict()
    taken = Taken([], [], [])
    shift, theirs = own.get("sub_mean.bias"), state.get("sub_mean.bias")
    if shift is not None and theirs is not None and not torch.allclose(shift, theirs.to(shift), rtol=SHIFT_TOLERANCE):
        values = round(float(theirs[0]) / float(shift[0]), 3)
        own_range = float(getattr(network, "value_range", 1.0))
        raise FinescaleError(
            f"{source}: was trained on pictures of another range (its value_range, one of the arguments, is {values:g} "
            f"times as large: --set arguments.value_range={own_range * values:g})"
        )
    if not _has_encoder(network, state):
        state = {name: value for name, value in state.items() if not name.startswith(ENCODER)}
    shuffled = _shuffled(network, state)
    for name, mine in own.items():
        theirs = shuffled.get(name, state.get(name))
        if theirs is not None and theirs.shape == mine.shape:
            mine.copy_(theirs)
            (taken.resized if name in shuffled else taken.same).append(name)
        elif theirs is not None and name.rpartition(".")[2] not in ("_u", "_v") and _fit(mine, theirs):
            taken.resized.append(name)
        else:
            taken.left.append(name)
    for name, norm in network.named_modules():
        weight = f"{name.rpartition('.')[0]}.original"
        if isinstance(norm, SpectralNorm) and weight in taken.resized:
            norm.settle(own[weight])
    weights = {name for name, _ in network.named_parameters()}
    fitting = len(weights.intersection([*taken.same, *taken.resized]))
    if fitting < len(weights) / 20:
        raise FinescaleError(
            f"{source}: {fitting} of the {len(weights)} weights of this network could start from it; is it another "
            "network's?"
        )
    return taken


def _has_encoder(network: nn.Module, state: Mapping[str, Tensor]) -> bool:
    """Whether `state` has all of a ResNet encoder: another's layers among its own would spoil the features of both."""
    encoder = getattr(network, "encoder", None)
    own = encoder.state_dict(prefix=ENCODER) if isinstance(encoder, ResNetEncoder) else {}
    return all(name in state and state[name].shape == value.shape for name, value in own.items())


def _fit(mine: Tensor, theirs: Tensor) -> bool:
    """Fills the part of `mine` that a tensor of another shape has; False if nothing of it makes sense."""
    if mine.ndim != theirs.ndim or not mine.is_floating_point() or mine.shape[2:] != theirs.shape[2:]:
        return False
    common = tuple(slice(0, min(a, b)) for a, b in zip(mine.shape, theirs.shape))
    mine[common] = theirs[common].to(mine)
    return True


def _shuffled(network: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights and biases of `state` before a pixel shuffle that has another factor in the network, brought to that."""
    names = {module: name for name, module in network.named_modules()}
    result: dict[str, Tensor] = {}
    for layer, factor in _before_shuffles(network).items():
        bias = f"{names[layer]}.bias"
        inner = "parametrizations.weight.original" if parametrize.is_parametrized(layer, "weight") else "weight"
        weight = f"{names[layer]}.{inner}"
        old = _factor(layer, factor, state[weight]) if weight in state and state[weight].ndim == 4 else factor
        if old != factor:
            result |= {name: _reshuffle(state[name].float(), old, factor) for name in (weight, bias) if name in state}
    return result


def _before_shuffles(network: nn.Module) -> dict[nn.Conv2d, int]:
    """The convolutions before a pixel shuffle with its factor: in sequences, and the last if pictures leave by it."""
    found = {}
    for sequence in network.modules():
        if isinstance(sequence, nn.Sequential):
            for layer, after in pairwise(sequence):
                if isinstance(layer, nn.Conv2d) and isinstance(after, nn.PixelShuffle):
                    found[layer] = after.upscale_factor
    last = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)][-1:]
    scale = getattr(network, "scale", 0)
    return found | {layer: scale for layer in last if layer.out_channels == 3 * scale**2}  # a direct tail


def _factor(layer: nn.Conv2d, factor: int, theirs: Tensor) -> int:
    """The other network's factor after its weights (C s^2, C_in, ...) for a layer that has a factor of its own.

    Pictures, so that C is 3, leave that too; or its C is its C_in, as this one's; else its factor is this one's, if it
    can be.
    """
    count, channels = len(theirs), layer.out_channels // factor**2
    wanted = 3 if channels == 3 else theirs.shape[1] if channels == layer.in_channels else 0
    alike = [s for s in (2, 3, 4) if wanted * s**2 == count]
    return next(iter([*alike, *(s for s in (factor, 2, 3) if count % s**2 == 0)]), factor)


def _reshuffle(theirs: Tensor, old: int, new: int) -> Tensor:
    """(C old^2, ...) before a pixel shuffle as (C new^2, ...) before one by another factor."""
    grid = theirs.reshape(-1, old, old, theirs[0].numel()).permute(0, 3, 1, 2)
    resized = F.interpolate(grid, size=(new, new), mode="bilinear", align_corners=False)
    return resized.permute(0, 2, 3, 1).reshape(-1, *theirs.shape[1:])
