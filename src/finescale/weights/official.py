"""Weights as the authors of RCAN and EDSR publish them."""

import os
from collections.abc import Mapping

import torch
from torch import Tensor

from finescale.backbones.catalogue import read_state
from finescale.errors import FinescaleError, UsageError, nearest
from finescale.networks.base import DIV2K_MEAN, Network
from finescale.networks.catalogue import build, resolve

OFFICIAL = ("rcan", "edsr", "edsr-baseline")


def load_official(source: str | os.PathLike[str] | Mapping[str, Tensor], name: str, scale: int) -> Network:
    """Builds RCAN or EDSR and fills it from an official file, strictly: in evaluation mode.

    The range of values inside the network (255 in the published files) is read from the file's own mean shift, which is
    DIV2K's mean times it; the shifts' weights are the identity, which `MeanShift` takes for granted.

    Args:
        source: a `.pt` file (read with `weights_only`), or its state dict.
        name: "rcan", "edsr" or "edsr-baseline".
        scale: the file's.

    Raises:
        UsageError: another network or scale.
        FinescaleError: the file cannot be read or does not fit, or shifts or scales colours in another way.
    """
    name = resolve(name)
    if name not in OFFICIAL:
        raise UsageError(f"there are no official files for '{name}'{nearest(name, OFFICIAL)}")
    if isinstance(source, str | os.PathLike):
        label, state = os.fspath(source), read_state(source)
    else:
        label, state = "these weights", dict(source)
    shift = state.get("sub_mean.bias")
    if shift is None or shift.shape != (3,):
        raise FinescaleError(f"{label}: not an official {name} file (it has no mean shift)")
    value_range = float(round(-float(shift[0]) / DIV2K_MEAN[0], 3))
    wanted = -value_range * torch.tensor(DIV2K_MEAN)
    if not value_range > 0 or not torch.allclose(shift.to(wanted), wanted, rtol=1e-3, atol=0):
        told = ", ".join(f"{float(value):g}" for value in shift)
        raise FinescaleError(f"{label}: its mean shift ({told}) is not DIV2K's mean in any range of values")
    network = build(name, scale=scale, value_range=value_range)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip()
        raise FinescaleError(f"{label}: the weights do not fit {name} x{scale} ({reason[:160]})") from error
    for part in ("sub_mean", "add_mean"):
        weight = network.get_buffer(f"{part}.weight")
        if not torch.equal(weight, torch.eye(3).to(weight).reshape(weight.shape)):
            raise FinescaleError(f"{label}: {part}.weight scales or mixes colours, which this {name} does not")
    return network.eval()
