"""Starting from the weights of another scale, another size of network, or a half-precision file."""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from finescale.backbones.catalogue import read_state
from finescale.errors import FinescaleError
from finescale.layers.spectral import SpectralNorm
from finescale.training import checkpoints
from finescale.weights.header import read_header, sha256, told


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
    return read_state(path)


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
    has its sub-kernels interpolated over the finer or coarser grid. Otherwise the part that both have is taken, from
    the first channels on. Names that the network lacks are ignored; spectral norm's vectors are taken only unchanged,
    and found anew for weights that were resized.

    Raises:
        FinescaleError: less than a twentieth fits, or pictures have another range inside the other network.
    """
    own = network.state_dict()
    taken = Taken([], [], [])
    shift, theirs = own.get("sub_mean.bias"), state.get("sub_mean.bias")
    if shift is not None and theirs is not None and not torch.allclose(shift, theirs.to(shift), rtol=0.01):
        values = round(float(theirs[0]) / float(shift[0]), 3)
        raise FinescaleError(
            f"{source}: was trained on pictures of another range (its value_range, one of the arguments, is {values:g} "
            "times as large)"
        )
    for name, mine in own.items():
        theirs = state.get(name)
        if theirs is not None and theirs.shape == mine.shape:
            mine.copy_(theirs)
            taken.same.append(name)
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


def _fit(mine: Tensor, theirs: Tensor) -> bool:
    """Fills `mine` from a tensor of another shape; False if nothing of it makes sense."""
    if mine.ndim != theirs.ndim or not mine.is_floating_point():
        return False
    theirs = theirs.to(mine)
    shuffled = _reshuffle(theirs, mine.shape[0]) if mine.shape[1:] == theirs.shape[1:] else None
    if shuffled is not None:
        mine.copy_(shuffled)
        return True
    if mine.shape[2:] != theirs.shape[2:]:
        return False
    common = tuple(slice(0, min(a, b)) for a, b in zip(mine.shape, theirs.shape))
    mine[common] = theirs[common]
    return True


def _reshuffle(theirs: Tensor, channels: int) -> Tensor | None:
    """Weights (C s^2, ...) of a convolution before a pixel shuffle by s as (C S^2, ...) for S; None if they are not.

    Either pictures leave the network by it, so that C is 3; or it is the one that a tail of x2 and of x3 have, known by
    the ratio of 4 to 9.
    """
    count = theirs.shape[0]
    old, new = (round((n / 3) ** 0.5) for n in (count, channels))
    if 3 * old**2 != count or 3 * new**2 != channels or not {old, new} <= {2, 3, 4}:
        old, new = (2, 3) if channels > count else (3, 2)
        if count % old**2 or count // old**2 * new**2 != channels:
            return None
    grid = theirs.reshape(count // old**2, old, old, -1).permute(0, 3, 1, 2)
    resized = F.interpolate(grid, size=(new, new), mode="bilinear", align_corners=False)
    return resized.permute(0, 2, 3, 1).reshape(channels, *theirs.shape[1:])
