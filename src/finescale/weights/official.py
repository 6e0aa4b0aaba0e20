"""Weights as the authors of RCAN and EDSR publish them, and as BasicSR trains the two."""

import os
from collections.abc import Mapping
from contextlib import suppress

import torch
from torch import Tensor

from finescale.backbones.catalogue import read_state
from finescale.errors import FinescaleError, UsageError, misfit, nearest
from finescale.networks.base import DIV2K_MEAN, Network
from finescale.networks.catalogue import build, resolve

OFFICIAL = ("rcan", "edsr", "edsr-baseline")
RANGES = (1.0, 255.0)  # of values inside the network, in the authors' code
# Parts of names in BasicSR's edsr_arch.py and rcan_arch.py, and what the authors call them.
_BASICSR = {
    "conv_first.": "head.0.",
    ".conv1.": ".body.0.",
    ".conv2.": ".body.2.",
    ".residual_group.": ".body.",
    ".rcab.": ".body.",
    ".attention.1.": ".conv_du.0.",
    ".attention.3.": ".conv_du.2.",
    "upsample.": "tail.0.",
    "conv_last.": "tail.1.",
}
SHIFT_TOLERANCE = 0.25  # how far from DIV2K's mean, as a share of it, a shift still tells its range


def load_official(source: str | os.PathLike[str] | Mapping[str, Tensor], name: str, scale: int) -> Network:
    """Builds RCAN or EDSR and fills it from an official file, or one of BasicSR, strictly: in evaluation mode.

    The range of values inside the network (255 in the published files) is read from the file's own mean shift, which is
    about DIV2K's mean times it. The rest of the shifts is kept, see `folded`. BasicSR's files have no shift: its
    networks take DIV2K's mean from pictures in a range of 255, unless somebody set `img_range` or `rgb_mean` otherwise.

    Args:
        source: a `.pt` or `.pth` file (read with `weights_only`), or its state dict; of BasicSR's two in one file the
            averaged weights (`params_ema`).
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
        label, state = os.fspath(source), _read(source)
    else:
        label, state = "these weights", dict(source)
    state = folded(_renamed(state))
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


def _read(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """As `read_state`; of averaged weights and the last ones in one file, which that refuses, the averaged ones."""
    try:
        return read_state(path)
    except FinescaleError:
        with suppress(Exception):  # whatever else is wrong with the file has been said
            both = torch.load(path, map_location="cpu", weights_only=True)
            if both.keys() == {"params", "params_ema"}:
                return dict(both["params_ema"])
        raise


def _renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """BasicSR's weights by the authors' names, with the mean shifts of its code; others as they are."""
    if "conv_first.weight" not in state:
        return dict(state)

    def count(inside: str) -> int:
        return len({key.removeprefix(inside).partition(".")[0] for key in state if key.startswith(inside)})

    parts, blocks = dict(_BASICSR), count("body.")
    parts["conv_after_body."] = f"body.{blocks}."  # the authors' convolutions behind blocks are counted with them
    parts |= {f"body.{i}.conv.": f"body.{i}.body.{count(f'body.{i}.residual_group.')}." for i in range(blocks)}
    named = {}
    for key, value in state.items():
        for theirs, name in parts.items():
            key = key.replace(theirs, name)
        named[key] = value
    eye, mean = torch.eye(3).reshape(3, 3, 1, 1), RANGES[1] * torch.tensor(DIV2K_MEAN)
    return {**named, "sub_mean.weight": eye, "sub_mean.bias": -mean, "add_mean.weight": eye, "add_mean.bias": mean}


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
