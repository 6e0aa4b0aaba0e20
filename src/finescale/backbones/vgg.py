"""VGG-16 and VGG-19, with torchvision's parameter names and shapes, for perceptual losses."""

from collections.abc import Mapping, Sequence
from typing import Literal

from torch import Tensor, nn

from finescale.backbones.features import ImageNetNormalisation, check_classifier, taps
from finescale.errors import UsageError, nearest

Depth = Literal[16, 19]
_CONVOLUTIONS: Mapping[int, Sequence[int]] = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
_WIDTHS = (64, 128, 256, 512, 512)


class VGG(nn.Module):
    """VGG without batch norm: (B, 3, H, W), normalised as ImageNet's -> class scores (B, 1000).

    Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition" (arXiv 1409.1556),
    table 1, columns D and E.

    Args:
        depth: 16 or 19.
        classifier: with the three linear layers (124 M parameters), which features do not need.

    Raises:
        UsageError: `forward` without them.
    """

    def __init__(self, depth: Depth, *, classifier: bool = True) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        self.names: dict[str, int] = {}  # "relu3_3" -> its index in `features`
        channels = 3
        for stage, (count, width) in enumerate(zip(_CONVOLUTIONS[depth], _WIDTHS), start=1):
            for number in range(1, count + 1):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                self.names[f"relu{stage}_{number}"] = len(layers) - 1
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        if classifier:
            self.avgpool = nn.AdaptiveAvgPool2d(7)
            self.classifier = nn.Sequential(
                nn.Linear(512 * 7 * 7, 4096),
                nn.ReLU(),
                nn.Dropout(),
                nn.Linear(4096, 4096),
                nn.ReLU(),
                nn.Dropout(),
                nn.Linear(4096, 1000),
            )

    def forward(self, x: Tensor) -> Tensor:
        check_classifier(self, "classifier")
        return self.classifier(self.avgpool(self.features(x)).flatten(1))

    def maps(self, x: Tensor, names: Sequence[str] | None = None) -> list[Tensor]:
        """Feature maps by the usual names ("relu1_2", "relu3_3", ...), in order of depth; None: the last of each stage.

        Raises:
            UsageError: there is no such layer.
        """
        return taps(self.features, x, _indices(self.names, names))


class NormalisedVGG(nn.Module):
    """VGG-19 up to relu3_1 with its weights rescaled so that every feature has mean activation 1 (arXiv 1508.06576).

    The form of the public `vgg19_normalised` files: a 1x1 convolution takes RGB in [0, 1] to the network's own colours,
    convolutions are padded by reflection, max-pools round sizes up. The state dict is that of the `nn.Sequential`, so
    `layers.load_state_dict(file)` loads one strictly. Pictures are at least 8 pixels high and wide.
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, 3, 1)]
        self.names: dict[str, int] = {}
        channels = 3
        for stage, (count, width) in enumerate(((2, 64), (2, 128), (1, 256)), start=1):
            if stage > 1:
                layers.append(nn.MaxPool2d(2, ceil_mode=True))
            for number in range(1, count + 1):
                layers += [nn.ReflectionPad2d(1), nn.Conv2d(channels, width, 3), nn.ReLU()]
                self.names[f"relu{stage}_{number}"] = len(layers) - 1
                channels = width
        self.layers = nn.Sequential(*layers)

    def maps(self, x: Tensor, names: Sequence[str] | None = None) -> list[Tensor]:
        """As `VGG.maps`, but of a picture (B, 3, H, W) in [0, 1]."""
        return taps(self.layers, x, _indices(self.names, names))


class PictureVGG(nn.Module):
    """VGG features of a picture in [0, 1]: `VGG.maps` after ImageNet's normalisation."""

    def __init__(self, network: VGG) -> None:
        super().__init__()
        self.normalise = ImageNetNormalisation()
        self.network = network

    def maps(self, x: Tensor, names: Sequence[str] | None = None) -> list[Tensor]:
        """As `VGG.maps`, but of a picture (B, 3, H, W) in [0, 1]."""
        return self.network.maps(self.normalise(x), names)


def _indices(known: Mapping[str, int], names: Sequence[str] | None) -> list[int]:
    if names is None:
        return list({name.partition("_")[0]: index for name, index in known.items()}.values())
    for name in names:
        if name not in known:
            raise UsageError(f"this VGG has no layer '{name}'{nearest(name, known)}")
    return sorted(known[name] for name in names)
