"""Every network by name: a plain table from a name to a class and its arguments.

A program puts a network of its own into `NETWORKS`, before it builds or loads one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from finescale.errors import UsageError, check_known
from finescale.networks import SHORT
from finescale.networks.arguments import checked
from finescale.networks.base import Config, Network
from finescale.networks.baselines import EDSR, SRCNN, Bicubic
from finescale.networks.esrgan import RRDBNet, SRVGGNet
from finescale.networks.rcan import RCAN
from finescale.networks.unet import UNet


@dataclass(frozen=True)
class Entry:
    """A network of the catalogue: its class, the arguments that differ from the class's defaults, and a sentence."""

    architecture: type[Network]
    summary: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    trained: bool = True  # False: has no weights to train (bicubic)


_LIGHT = {
    "channels": 64,
    "groups": 2,
    "blocks": 5,
    "reduction": 8,
    "activation": "relu",
    "attention": "group",
    "attention_every": 1,
    "attention_reduction": 4,
    "attention_value_reduction": 2,
    "attention_pool": 1,
    "attention_query_pool": 4,
    "tail": "direct",
}

NETWORKS: dict[str, Entry] = {
    "bicubic": Entry(Bicubic, "bicubic enlargement, nothing learned", trained=False),
    "srcnn": Entry(SRCNN, "three convolutions on the luma of a bicubic enlargement"),
    "edsr-baseline": Entry(EDSR, "16 residual blocks of 64 channels"),
    "edsr": Entry(EDSR, "32 residual blocks of 256 channels", {"channels": 256, "blocks": 32, "residual_factor": 0.1}),
    "rrdbnet": Entry(RRDBNet, "ESRGAN's and Real-ESRGAN's network, for weights made with them"),
    "srvgg": Entry(SRVGGNet, "Real-ESRGAN's small network, for weights made with it"),
    "unet": Entry(
        UNet,
        "the classical U-Net",
        {"encoder": "plain", "decoder": "plain", "widths": (1024, 512, 256, 128, 64), "upsampling": "transposed"},
    ),
    "unet-1": Entry(UNet, "ResNet-34 encoder, residual decoder", {"encoder": "resnet34", "decoder": "residual"}),
    "unet-2": Entry(UNet, "ResNet-34 encoder, dense decoder", {"encoder": "resnet34", "decoder": "dense"}),
    "unet-3": Entry(UNet, "ResNet-50 encoder, residual decoder", {"encoder": "resnet50", "decoder": "residual"}),
    "unet-4": Entry(UNet, "ResNet-50 encoder, dense decoder", {"encoder": "resnet50", "decoder": "dense"}),
    "unet-5": Entry(
        UNet, "ResNeXt-50 encoder, residual decoder", {"encoder": "resnext50_32x4d", "decoder": "residual"}
    ),
    "unet-6": Entry(UNet, "ResNeXt-50 encoder, dense decoder", {"encoder": "resnext50_32x4d", "decoder": "dense"}),
    "unet-7": Entry(UNet, "unet-2 with channel attention", {"encoder": "resnet34", "attention": "channel"}),
    "unet-8": Entry(UNet, "unet-2 with self-attention", {"encoder": "resnet34", "attention": "spatial"}),
    "unet-9": Entry(UNet, "unet-2 with channel and self-attention", {"encoder": "resnet34", "attention": "both"}),
    "unet-10": Entry(UNet, "ResNeSt-50 encoder, residual decoder", {"encoder": "resnest50", "decoder": "residual"}),
    "unet-11": Entry(UNet, "ResNeSt-50 encoder, dense decoder", {"encoder": "resnest50", "decoder": "dense"}),
    "rcan": Entry(RCAN, "residual channel attention network"),
    "sa-rcan": Entry(
        RCAN,
        "at x4 a little better on photographs, far slower: six groups, self-attention in every block",
        {"groups": 6, "attention": "block"},
    ),
    "sa-rcan-group": Entry(
        RCAN, "RCAN of six groups with self-attention after every second group", {"groups": 6, "attention": "group"}
    ),
    "sa-rcan-light": Entry(RCAN, "for photographs; small and fast, the default", _LIGHT),
    "sa-rcan-light-jpeg": Entry(RCAN, "for JPEGs below quality 92: removes blocks and ringing", _LIGHT),
    "sa-rcan-light-noise": Entry(RCAN, "for noisy, grainy or slightly blurred photographs", _LIGHT),
    "sa-rcan-light-perceptual": Entry(RCAN, "for photographs that shall look sharp rather than be exact", _LIGHT),
    "sa-rcan-light-graphics": Entry(RCAN, "for text, charts, screenshots and pixel art", _LIGHT),
}

ALIASES: dict[str, str] = {
    **{"sr-resunet": "unet-2", "attentive-sr-resunet": "unet-9"},  # as their authors call them
    **SHORT,
}


def resolve(name: str) -> str:
    """The catalogue's own name of a network.

    Raises:
        UsageError: there is none, naming the nearest one.
    """
    name = ALIASES.get(name, name)
    check_known("network", name, [*NETWORKS, *ALIASES])
    return name


def build(name: str, /, *, scale: int, **overrides: Any) -> Network:
    """Builds a network of the catalogue with fresh weights.

    Args:
        name: a name of `NETWORKS`.
        scale: 2, 3 or 4.
        overrides: arguments of the class that replace those of the catalogue.

    Raises:
        UsageError: unknown name or argument, naming the nearest one; a wrong type or an impossible value, naming the
            argument; a scale other than 2, 3 or 4.
    """
    name = resolve(name)
    entry = NETWORKS[name]
    return construct(name, entry.architecture, {**entry.arguments, **overrides, "scale": scale})


def construct(name: str, architecture: type[Network], arguments: Mapping[str, Any]) -> Network:
    """Builds a network from its class and arguments, and records them in `network.config`.

    Raises:
        UsageError: an unknown argument, a wrong type or an impossible value, naming `arguments.KEY` and, of names, the
            nearest one.
    """
    try:
        complete = checked(architecture, arguments)
        network = architecture(**complete)
    except ValueError as error:
        raise UsageError(f"{name}: {error}") from error
    # values that do not go together, or need more memory than there is
    except (TypeError, RuntimeError, ArithmeticError, LookupError) as error:
        raise UsageError(f"{name}: cannot be built with these arguments ({str(error).splitlines()[0]})") from error
    if any(parameter.numel() == 0 for parameter in network.parameters()):
        raise UsageError(f"{name}: cannot be built with these arguments (a layer would have no channels)")
    network.config = Config(name, architecture.__name__, complete)
    return network


def architecture(name: str, title: str) -> type[Network] | None:
    """The class called `title` of the network called `name`, or else of any network; None where there is none."""
    entries = [*([NETWORKS[name]] if name in NETWORKS else []), *NETWORKS.values()]
    return next((entry.architecture for entry in entries if entry.architecture.__name__ == title), None)
