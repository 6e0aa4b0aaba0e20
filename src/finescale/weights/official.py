"""Weights as the authors of RCAN and EDSR publish them."""

import os
from collections.abc import Mapping

import torch
from torch import Tensor

from finescale.backbones.catalogue import read_state
from finescale.errors import FinescaleError, UsageError, misfit, nearest
from finescale.networks.base import DIV2K_MEAN, Network
from finescale.networks.catalogue import build, resolve

OFFICIAL = ("rcan", "edsr", "edsr-baseline")
RANGES = (1.0, 255.0)  # of values inside the network, in the authors' code
SHIFT_TOLERANCE = 0.25  # how far from DIV2K's mean, as a share of it, a shift still tells its range


def load_official(source: str | os.PathLike[str] | Mapping[str, Tensor], name: str, scale: int) -> Network:
    """Builds RCAN or EDSR and fills it from an official file, strictly: in evaluation mode.

    The range of values inside the network (255 in the published files) is read from the file's own mean shift, which is
    about DIV2K's mean times it. The rest of the shifts is kept, see `folded`.

    Args:
        source: a `.pt` file (read with `weights_only`), or its state dict.
        name: "rcan", "edsr" or "edsr-baseline".
        scale: the file's.

    Raises:
        UsageError: another network or scale.
        FinescaleError: the file cannot be read or does not fit, or shifts colours in another way.
    """
    name = resolve(name)
    if name not in OFFICIAL:
        raise UsageError(f"there are no official files for '{name}'{nearest(name, OFFICIAL)}")
    if isinstance(source, str | os.PathLike):
        label, state = os.fspath(source), read_state(source)
    else:
        label, state = "these weights", dict(source)
    state = folded(state)
    shift = state.get("sub_mean.bias")
    if shift is None or shift.shape != (3,):
        raise FinescaleError(f"{label}: not an official {name} file (it has no mean shift)")
    mean = torch.tensor(DIV2K_MEAN)
    ranges = [value for value in RANGES if torch.allclose(shift.float(), -value * mean, rtol=SHIFT_TOLERANCE, atol=0)]
    if not ranges:
        told = ", ".join(f"{float(value):g}" for value in shift)
        raise FinescaleError(f"{label}: its mean shift ({told}) is not about DIV2K's mean in a range of 1 or 255")
    network = build(name, scale=scale, value_range=ranges[0])
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise FinescaleError(f"{label}: the weights do not fit {name} x{scale} ({misfit(error)})") from error
    for part in ("sub_mean", "add_mean"):
        weight = network.get_buffer(f"{part}.weight")
        if not torch.equal(weight, torch.eye(3).to(weight).reshape(weight.shape)):
            raise FinescaleError(f"{label}: {part}.weight mixes colours in a way that cannot be undone")
    return network.eval()


def folded(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same weights with mean shifts that only shift, as `MeanShift` takes for granted.

    RCAN's own code trains its shifts, which are convolutions of 1 x 1, so a file's may have drifted from the identity.
    What they do to colours is taken into the convolutions beside them, which pad with zeros: those stay zeros. A state
    without such shifts, or with one that cannot be undone, is given as it is.
    """
    state = dict(state)
    identity = torch.eye(3, dtype=torch.float64)
    try:
        first, last = (state[f"{part}.weight"].double().reshape(3, 3) for part in ("sub_mean", "add_mean"))
        if torch.equal(first, identity) and torch.equal(last, identity):
            return state
        changed = {
            "sub_mean.bias": torch.linalg.solve(first, state["sub_mean.bias"].double()),
            "head.0.weight": torch.einsum("ojhw,ji->oihw", state["head.0.weight"].double(), first),
            "tail.1.weight": torch.einsum("oj,jihw->oihw", last, state["tail.1.weight"].double()),
            "tail.1.bias": last @ state["tail.1.bias"].double(),
            **{f"{part}.weight": identity.reshape(3, 3, 1, 1) for part in ("sub_mean", "add_mean")},
        }
    except (KeyError, RuntimeError):
        return state
    return state | {name: value.float() for name, value in changed.items()}
