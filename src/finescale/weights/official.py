"""Weights as the authors of RCAN, EDSR, ESRGAN and Real-ESRGAN publish them, and as BasicSR trains these networks."""

import math
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from finescale.backbones.catalogue import read_state
from finescale.errors import FinescaleError, UsageError, misfit, nearest
from finescale.networks.base import DIV2K_MEAN, Network
from finescale.networks.catalogue import build, resolve

OFFICIAL = ("rcan", "edsr", "edsr-baseline", "rrdbnet", "srvgg")
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
# ESRGAN's names, of its later code and of its first one, and what BasicSR calls them. In the first one the layers
# behind the blocks are counted: see `_renamed_rrdb`.
_RRDB = {
    r"^RRDB_trunk\.(\d+)\.RDB(\d)\.": r"body.\1.rdb\2.",
    r"^trunk_conv\.": "conv_body.",
    r"^upconv(\d)\.": r"conv_up\1.",
    r"^HRconv\.": "conv_hr.",
    r"^model\.0\.": "conv_first.",
    r"^model\.1\.sub\.(\d+)\.RDB(\d)\.(conv\d)\.0\.": r"body.\1.rdb\2.\3.",
    r"^model\.1\.sub\.\d+\.(weight|bias)$": r"conv_body.\1",
}
SHIFT_TOLERANCE = 0.25  # how far from DIV2K's mean, as a share of it, a shift still tells its range


@dataclass(frozen=True)
class _Kind:
    """Which network weights are of: its name, the scales that are possible, the arguments they show."""

    name: str
    scales: tuple[int, ...]
    arguments: Mapping[str, Any] = field(default_factory=dict)


def load_official(
    source: str | os.PathLike[str] | Mapping[str, Tensor], name: str | None = None, scale: int | None = None
) -> Network:
    """Builds the network of an official file, or one of BasicSR, and fills it, strictly: in evaluation mode.

    Of RCAN and EDSR the range of values inside the network (255 in the published files) is read from the file's own
    mean shift, which is about DIV2K's mean times it. The rest of the shifts is kept, see `folded`. BasicSR's files have
    no shift: its networks take DIV2K's mean from pictures in a range of 255, unless somebody set `img_range` or
    `rgb_mean` otherwise.

    Args:
        source: a `.pt`, `.pth` or `.safetensors` file (never unpickled), or its state dict; of BasicSR's two in one
            file the averaged weights (`params_ema`).
        name: "rcan", "edsr", "edsr-baseline", "rrdbnet" or "srvgg"; None: what the names of the weights tell.
        scale: the file's; None: what the shapes of the weights tell.

    Raises:
        UsageError: another network or scale, or one that the file does not tell.
        FinescaleError: the file cannot be read or does not fit, is for another scale than 2, 3 and 4, or shifts
            colours in another way.
    """
    if name is not None and resolve(name) not in OFFICIAL:
        raise UsageError(f"there are no official files for '{name}'{nearest(name, OFFICIAL)}")
    if isinstance(source, str | os.PathLike):
        label, state = os.fspath(source), _read(source)
    else:
        label, state = "these weights", dict(source)
    state = folded(_renamed(_renamed_rrdb(state)))
    kind = _kind(state)
    if kind is None and (name is None or scale is None):
        raise FinescaleError(f"{label}: not the weights of a network that is known ({', '.join(OFFICIAL)})")
    if kind is not None and not set(kind.scales) & {2, 3, 4}:
        raise FinescaleError(f"{label}: enlarges x{kind.scales[0]}; networks here are for x2, x3 and x4")
    if scale is None and kind is not None:
        if len(kind.scales) > 1:
            either = " or ".join(f"x{one}" for one in kind.scales)
            raise UsageError(f"{label}: does not tell whether it is for {either}; name its scale")
        scale = kind.scales[0]
    name = resolve(name) if name else kind.name if kind else ""
    arguments = dict(kind.arguments) if kind and kind.name == name else {}
    if name.startswith(("rcan", "edsr")):
        arguments["value_range"] = _value_range(label, name, state)
    try:
        network = build(name, scale=int(scale or 0), **arguments)
        network.load_state_dict(state)
    except (RuntimeError, UsageError) as error:
        reason = misfit(error) if isinstance(error, RuntimeError) else str(error)
        raise FinescaleError(f"{label}: the weights do not fit {name} x{scale} ({reason})") from error
    for part in ("sub_mean", "add_mean") if "value_range" in arguments else ():
        weight = network.get_buffer(f"{part}.weight")
        if not torch.equal(weight, torch.eye(3).to(weight).reshape(weight.shape)):
            raise FinescaleError(f"{label}: {part}.weight mixes colours in a way that cannot be undone")
    return network.eval()


def _value_range(label: str, name: str, state: Mapping[str, Tensor]) -> float:
    shift = state.get("sub_mean.bias")
    if shift is None or shift.shape != (3,):
        raise FinescaleError(f"{label}: not an official {name} file (it has no mean shift)")
    mean = torch.tensor(DIV2K_MEAN)
    ranges = [value for value in RANGES if torch.allclose(shift.float(), -value * mean, rtol=SHIFT_TOLERANCE, atol=0)]
    if not ranges:
        told = ", ".join(f"{float(value):g}" for value in shift)
        raise FinescaleError(f"{label}: its mean shift ({told}) is not about DIV2K's mean in a range of 1 or 255")
    return ranges[0]


def _kind(state: Mapping[str, Tensor]) -> _Kind | None:
    """What names and shapes of weights tell, by the names that our networks have for them."""
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    if "body.0.rdb1.conv1.weight" in shapes and len(shapes.get("conv_first.weight", ())) == 4:
        channels, inputs, *_ = shapes["conv_first.weight"]
        ups = sum(re.fullmatch(r"conv_up\d\.weight", key) is not None for key in shapes)
        unshuffle = math.isqrt(inputs // 3) or 1
        scales = (2, 3) if ups == 1 else (2**ups // unshuffle,)
        growth = shapes["body.0.rdb1.conv1.weight"][0]
        arguments = {"channels": channels, "blocks": _count(state, "body."), "growth": growth, "unshuffle": unshuffle}
        return _Kind("rrdbnet", scales, arguments)
    if len(shapes.get("body.0.weight", ())) == 4 and len(shapes.get("body.1.weight", ())) == 1:
        last = max(int(key.split(".")[1]) for key in shapes if re.fullmatch(r"body\.\d+\.weight", key))
        arguments = {"channels": shapes["body.0.weight"][0], "convolutions": last // 2 - 1}
        return _Kind("srvgg", (math.isqrt(shapes[f"body.{last}.weight"][0] // 3),), arguments)
    if "tail.0.0.weight" in shapes:
        outputs, channels, *_ = shapes["tail.0.0.weight"]
        scale = 4 if "tail.0.2.weight" in shapes else math.isqrt(outputs // channels)
        if "body.0.body.0.body.0.weight" in shapes:
            return _Kind("rcan", (scale,))
        return _Kind("edsr-baseline" if channels == 64 else "edsr", (scale,))
    return None


def _count(state: Mapping[str, Tensor], inside: str) -> int:
    return len({key.removeprefix(inside).partition(".")[0] for key in state if key.startswith(inside)})


def _renamed_rrdb(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """ESRGAN's weights by BasicSR's names; others as they are."""
    named = {}
    behind = sorted({int(match[1]) for key in state if (match := re.fullmatch(r"model\.(\d+)\.weight", key))})[1:]
    counted = {f"model.{place}.": f"conv_up{number + 1}." for number, place in enumerate(behind[:-2])}
    counted |= {f"model.{place}.": name for place, name in zip(behind[-2:], ("conv_hr.", "conv_last."))}
    for key, value in state.items():
        for theirs, name in _RRDB.items():
            key = re.sub(theirs, name, key)
        for theirs, name in counted.items():
            key = name + key.removeprefix(theirs) if key.startswith(theirs) else key
        named[key] = value
    return named


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
    """BasicSR's RCAN and EDSR by the authors' names, with the mean shifts of its code; others as they are."""
    if "conv_first.weight" not in state or "conv_hr.weight" in state:
        return dict(state)
    parts, blocks = dict(_BASICSR), _count(state, "body.")
    parts["conv_after_body."] = f"body.{blocks}."  # the authors' convolutions behind blocks are counted with them
    parts |= {f"body.{i}.conv.": f"body.{i}.body.{_count(state, f'body.{i}.residual_group.')}." for i in range(blocks)}
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
