"""What training makes small: pixel, perceptual and smoothness losses, and weighted mixes of them by name.

Every loss takes two batches of pictures (B, 3, H, W) in [0, 1], the network's and the true one, and gives a scalar; a
`Mix` of them computes in float32 whatever the pictures' type.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from finescale.backbones import catalogue as backbones
from finescale.backbones.lpips import LPIPS, SMALLEST
from finescale.backbones.vgg import VGG, NormalisedVGG, PictureVGG
from finescale.errors import FinescaleError, UsageError, check_known

M = TypeVar("M", bound=nn.Module)


def charbonnier(output: Tensor, target: Tensor, eps: float = 1e-3) -> Tensor:
    """Mean of sqrt(difference^2 + eps^2) (Lai et al., LapSRN, arXiv 1704.03915, section 3.2)."""
    return torch.sqrt((output - target).square() + eps**2).mean()


def total_variation(output: Tensor, target: Tensor | None = None) -> Tensor:
    """Sum of the absolute differences of neighbours across and down, a mean over the batch; the target plays no part.

    Johnson et al., arXiv 1603.08155, section 3.2. A sum over the picture, so its weight is small (1e-6).
    """
    across, down = output[..., :, 1:] - output[..., :, :-1], output[..., 1:, :] - output[..., :-1, :]
    return (across.abs().sum() + down.abs().sum()) / output.shape[0]


def gram(x: Tensor) -> Tensor:
    """Products of all pairs of channels, divided by C H W; (B, C, H, W) -> (B, C, C).

    Johnson et al., arXiv 1603.08155, equation 3.
    """
    flat = x.flatten(2)
    return flat @ flat.transpose(1, 2) / (flat.shape[1] * flat.shape[2])


class Features(Protocol):
    """Feature maps of a picture (B, 3, H, W) in [0, 1] by layer name, in order of depth."""

    def maps(self, x: Tensor, names: Sequence[str]) -> list[Tensor]:
        """As `finescale.backbones.vgg.PictureVGG.maps`."""
        ...


@dataclass(frozen=True)
class Perception:
    """A VGG and the layers that the two perceptual losses look at."""

    features: Features
    content: Sequence[str]
    style: Sequence[str]


CONTENT_LAYERS = ("relu3_3", "relu4_3")
STYLE_LAYERS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")


def perception(
    network: str = "vgg16", path: str | os.PathLike[str] | None = None, *, download: bool = False
) -> Perception:
    """The VGG of the perceptual losses, frozen.

    Args:
        network: "vgg16" or "vgg19" (content at relu3_3 and relu4_3, style at relu1_2, relu2_2, relu3_3, relu4_3), or
            "vgg19-normalised" (a rescaled VGG-19 that ends at relu3_1: content there, style at relu1_1, relu2_1,
            relu3_1; for this a path is needed).
        path: a weight file; otherwise as `finescale.backbones.catalogue.find`.
        download: fetch the published file if there is none here.

    Raises:
        UsageError: unknown network.
        FinescaleError: there are no weights, or they do not fit.
    """
    check_known("perceptual network", network, ("vgg16", "vgg19", "vgg19-normalised"))
    if network == "vgg19-normalised":
        if path is None:
            raise FinescaleError("vgg19-normalised has no known address: name its weight file")
        normalised = NormalisedVGG()
        try:
            normalised.layers.load_state_dict(backbones.read_state(path))
        except RuntimeError as error:
            raise FinescaleError(f"{path}: not the normalised VGG-19 up to relu3_1") from error
        return Perception(_frozen(normalised), ("relu3_1",), ("relu1_1", "relu2_1", "relu3_1"))
    vgg = backbones.load(network, path, classifier=False, download=download)
    assert isinstance(vgg, VGG)
    return Perception(_frozen(PictureVGG(vgg)), CONTENT_LAYERS, STYLE_LAYERS)


def _frozen(module: M) -> M:
    return module.eval().requires_grad_(False)


# by name; a program may add its own, functions or modules with weights, which recipes then know
PIXEL: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l1": F.l1_loss,
    "l2": F.mse_loss,
    "charbonnier": charbonnier,
    "tv": total_variation,
}
VGGS = ("content", "style")  # what looks through a VGG
PERCEPTUAL = (*VGGS, "lpips")
_SHIFTS = 4  # pixels: the first two strides of the classifiers of LPIPS
LEAST_FOR_LPIPS = SMALLEST + _SHIFTS - 1  # pixels of each side


def _shifted(output: Tensor, target: Tensor) -> Iterator[Tensor]:
    """Both without some first rows and columns, chosen by the target's content and on its device."""
    by = (target * 255).round().long().sum()
    for x in (output, target):
        for axis, start in ((-2, by % _SHIFTS), (-1, by // _SHIFTS % _SHIFTS)):
            x = x.index_select(axis, start + torch.arange(x.shape[axis] - _SHIFTS + 1, device=x.device))
        yield x


class Mix(nn.Module):
    """A weighted sum of losses: (output, target) -> scalar, float32.

    "content" is the mean squared difference of VGG features (arXiv 1603.08155, equation 2), "style" that of their Gram
    matrices (equation 4: squared Frobenius norm, a mean over the batch), each summed over its layers. The mix of
    the first U-Nets (Sabharwal and Makwana) stands in `bases/original-unet.toml`. "lpips" is the mean distance by
    `finescale.backbones.lpips`, of pictures without up to three rows and columns: as many as their content says, so
    that a network cannot fit the grid on which the classifier looks at them. They are at least 35 pixels high and wide.

    Args:
        weights: name of a loss -> its weight; names of `PIXEL` and `PERCEPTUAL`.
        perception: the VGG, needed for "content" and "style".
        distance: needed for "lpips".

    Raises:
        UsageError: an unknown or no name, "content" or "style" without a VGG, or "lpips" without its network.
    """

    if TYPE_CHECKING:

        def __call__(self, output: Tensor, target: Tensor) -> Tensor: ...

    def __init__(
        self, weights: Mapping[str, float], perception: Perception | None = None, distance: LPIPS | None = None
    ) -> None:
        super().__init__()
        for name in weights:
            check_known("loss", name, [*PIXEL, *PERCEPTUAL])
        self.weights = weights = {name: weight for name, weight in weights.items() if weight}
        if not weights:
            raise UsageError("a mix of losses needs at least one of them")
        self.perception = perception if any(name in VGGS for name in weights) else None
        if self.perception is None and any(name in VGGS for name in weights):
            raise UsageError("the content and style losses need a VGG")
        self.distance = distance if "lpips" in weights else None
        if self.distance is None and "lpips" in weights:
            raise UsageError("the lpips loss needs its network")
        # submodules, so that they move along
        self.network = self.perception.features if self.perception else None
        own = [PIXEL[name] for name in weights if name in PIXEL]
        self.own = nn.ModuleList(loss for loss in own if isinstance(loss, nn.Module))

    def terms(self, output: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Every loss by its name, unweighted."""
        with torch.autocast(output.device.type, enabled=False):
            output, target = output.float(), target.float()
            found = {name: PIXEL[name](output, target) for name in self.weights if name in PIXEL}
            if self.perception is not None:
                found |= self._perceptual(self.perception, output, target)
            if self.distance is not None:
                found["lpips"] = self.distance(*(2 * x - 1 for x in _shifted(output, target))).mean()
        for name, loss in found.items():
            if loss.ndim:
                raise UsageError(
                    f"the loss '{name}' gives {tuple(loss.shape)} numbers where one is needed (their mean?)"
                )
        return {name: found[name] for name in self.weights}

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return self.total(self.terms(output, target))

    def total(self, terms: Mapping[str, Tensor]) -> Tensor:
        """The weighted sum of what `terms` gives."""
        return torch.stack([weight * terms[name] for name, weight in self.weights.items()]).sum()

    def _perceptual(self, perception: Perception, output: Tensor, target: Tensor) -> dict[str, Tensor]:
        layers = {"content": perception.content, "style": perception.style}
        names = sorted({layer for name in VGGS if name in self.weights for layer in layers[name]})
        with torch.no_grad():
            wanted = dict(zip(names, perception.features.maps(target, names)))
        given = dict(zip(names, perception.features.maps(output, names)))
        found = {}
        if "content" in self.weights:
            found["content"] = torch.stack([F.mse_loss(given[k], wanted[k]) for k in perception.content]).sum()
        if "style" in self.weights:
            differences = [gram(given[k]) - gram(wanted[k]) for k in perception.style]
            found["style"] = torch.stack([d.square().sum((1, 2)).mean() for d in differences]).sum()
        return found
