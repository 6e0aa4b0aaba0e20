"""LPIPS v0.1 (Zhang et al., arXiv 1801.03924): a learned perceptual distance of two pictures.

Both pictures go through a classifier; at several depths the features of every position are scaled to unit length,
their squared differences are weighted per channel by the published linear layers, averaged over the picture and added
up (equation 1 of the paper, variant "lin", version 0.1).

The linear layers and the classifiers' weights are files: found in `$FINESCALE_WEIGHTS`, in the `weights` folder of
`$FINESCALE_DATA`, in Finescale's cache, and for the classifiers wherever `finescale.backbones` finds them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from finescale.backbones import catalogue, metric_files
from finescale.backbones.alexnet import AlexNet
from finescale.backbones.squeezenet import SqueezeNet
from finescale.backbones.vgg import VGG
from finescale.errors import FinescaleError, UsageError, check_known

SMALLEST = 32  # pixels of each side of a picture
_LINEAR_LAYERS = "https://github.com/richzhang/PerceptualSimilarity/tree/master/lpips/weights/v0.1"


@dataclass(frozen=True)
class _Variant:
    """The classifier that one of the three published variants looks through, and the widths of its features."""

    backbone: str
    channels: Sequence[int]


_VARIANTS = {
    "alex": _Variant("alexnet", (64, 192, 384, 256, 256)),
    "vgg": _Variant("vgg16", (64, 128, 256, 512, 512)),
    "squeeze": _Variant("squeezenet1_1", (64, 128, 256, 384, 384, 512, 512)),
}


class LPIPS(nn.Module):
    """The distance: two batches (B, 3, H, W) in [-1, 1] -> (B,) float32, 0 for identical pictures.

    Pictures are at least 32 pixels high and wide.

    Args:
        variant: "alex", "vgg" or "squeeze".
        backbone: that classifier with its published ImageNet weights.

    Raises:
        UsageError: there is no such variant; `forward` is given smaller pictures, or other shapes.
    """

    shift: Tensor
    spread: Tensor

    def __init__(self, variant: str, backbone: nn.Module) -> None:
        super().__init__()
        check_known("LPIPS variant", variant, _VARIANTS)
        assert isinstance(backbone, AlexNet | SqueezeNet | VGG)
        self.variant = variant
        self.backbone = backbone
        self.linear = nn.ParameterList(torch.zeros(1, c, 1, 1) for c in _VARIANTS[variant].channels)
        # the authors' rounding of ImageNet's mean and deviation, for pictures in [-1, 1]
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).reshape(1, 3, 1, 1))
        self.register_buffer("spread", torch.tensor([0.458, 0.448, 0.450]).reshape(1, 3, 1, 1))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """See the class."""
        if a.ndim != 4 or a.shape[1] != 3 or a.shape != b.shape:  # one plane would be taken for three
            raise UsageError(
                f"expected two batches (B, 3, H, W) alike, got shapes {tuple(a.shape)} and {tuple(b.shape)}"
            )
        if min(a.shape[-2:]) < SMALLEST:
            raise UsageError(f"a picture of {a.shape[-1]} x {a.shape[-2]} is too small for LPIPS, which needs 32 x 32")
        # not in one batch: as a loss, gradients of the target would be computed, too
        features = (self.backbone.maps((x - self.shift) / self.spread) for x in (a, b))
        total = torch.zeros(len(a), device=a.device)
        for of_a, of_b, weight in zip(*features, self.linear, strict=True):
            total += ((_unit(of_a) - _unit(of_b)).square() * weight).sum(1).mean((1, 2))
        return total


def _unit(feature: Tensor) -> Tensor:
    """Every position's features at length 1."""
    return feature / (feature.norm(dim=1, keepdim=True) + 1e-10)


def load(variant: str = "auto") -> LPIPS:
    """The distance with its published weights, frozen, on the CPU.

    Args:
        variant: "alex", "vgg", "squeeze", or "auto": the first of these whose weights are here.

    Raises:
        UsageError: there is no such variant.
        FinescaleError: weights are not here; the message says which files and where they come from.
    """
    if variant == "auto":
        variant = next((name for name in _VARIANTS if _linear_file(name) and _backbone_file(name)), "squeeze")
    check_known("LPIPS variant", variant, _VARIANTS)
    file = _linear_file(variant)
    if file is None:
        raise FinescaleError(
            f"LPIPS ({variant}) needs its linear layers: put {variant}.pth from {_LINEAR_LAYERS} "
            f"as {_linear_name(variant)} into {metric_files.places()}"
        )
    backbone = catalogue.load(_VARIANTS[variant].backbone, _backbone_file(variant), classifier=False)
    with torch.device("cpu"):  # whatever the program has set
        network = LPIPS(variant, backbone)
    state = catalogue.read_state(file)
    for i, parameter in enumerate(network.linear):
        weight = state.get(f"lin{i}.model.1.weight")
        if weight is None or weight.shape != parameter.shape:
            raise FinescaleError(f"{file}: not the linear layers of LPIPS v0.1 ({variant})")
        parameter.data = weight.float()
    return network.float().requires_grad_(False).eval()


def _linear_name(variant: str) -> str:
    return f"lpips_v0.1_{variant}.pth"


def _linear_file(variant: str) -> Path | None:
    return metric_files.find(_linear_name(variant))


def _backbone_file(variant: str) -> Path | None:
    """Under a plain name in our folders, else where the backbones' own search finds it."""
    name = _VARIANTS[variant].backbone
    return metric_files.find(f"{name}.pth") or catalogue.find(name)
