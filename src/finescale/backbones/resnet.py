"""ResNet-18, -34, -50 and ResNeXt-50 32x4d, with torchvision's parameter names and shapes."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

from torch import Tensor, nn

from finescale.backbones.features import Encoder, check_classifier
from finescale.layers.statistics import StatisticsLayer

Block = Callable[[int, int, int, nn.Module | None], nn.Module]


def convolution(c_in: int, c_out: int, kernel: int, *, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution of ResNets: no bias, padded to keep the size (before `stride`)."""
    return nn.Conv2d(c_in, c_out, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (arXiv 1512.03385, figure 5 left); (B, C, H, W) -> (B, `width`, H/s, W/s)."""

    expansion = 1

    def __init__(self, c_in: int, width: int, stride: int, downsample: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = convolution(c_in, width, 3, stride=stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = convolution(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu(y + shortcut)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 and a shortcut (arXiv 1512.03385, figure 5 right); (B, C, H, W) -> (B, 4 `width`, H/s, W/s).

    The stride is in the 3x3 convolution, as in torchvision. With `groups` it is ResNeXt's block (arXiv 1611.05431).
    """

    expansion = 4

    def __init__(
        self,
        c_in: int,
        width: int,
        stride: int,
        downsample: nn.Module | None,
        *,
        groups: int = 1,
        group_width: int = 64,
    ) -> None:
        super().__init__()
        inner = width * group_width // 64 * groups
        self.conv1 = convolution(c_in, inner, 1)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = convolution(inner, inner, 3, stride=stride, groups=groups)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = convolution(inner, width * self.expansion, 1)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y + shortcut)


def strided_downsample(c_in: int, c_out: int, stride: int) -> nn.Sequential:
    """Shortcut of a block that changes size: 1x1 convolution with the stride, norm."""
    return nn.Sequential(convolution(c_in, c_out, 1, stride=stride), nn.BatchNorm2d(c_out))


class ResNet(nn.Module):
    """A residual network: (B, 3, H, W), normalised as ImageNet's -> class scores (B, 1000).

    Args:
        block: makes a block from its input channels, width, stride and shortcut.
        expansion: output channels of a block / its width.
        blocks: in each of the four layers.
        stem: the first convolution, which halves the size, and its output channels; None is the 7x7 of the paper.
        downsample: makes the shortcut of a block that changes size or channels.
        classifier: with pooling and the linear layer, which features do not need.

    Raises:
        UsageError: `forward` without them.
    """

    def __init__(
        self,
        block: Block,
        expansion: int,
        blocks: Sequence[int],
        *,
        stem: tuple[nn.Module, int] | None = None,
        downsample: Callable[[int, int, int], nn.Module] = strided_downsample,
        classifier: bool = True,
    ) -> None:
        super().__init__()
        conv1, channels = stem or (nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False), 64)
        self.conv1 = conv1
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.channels = [channels]
        for number, (count, width) in enumerate(zip(blocks, (64, 128, 256, 512)), start=1):
            out, stride = width * expansion, 1 if number == 1 else 2
            shortcut = downsample(channels, out, stride) if stride > 1 or channels != out else None
            layers = [block(channels, width, stride, shortcut)]
            layers += [block(out, width, 1, None) for _ in range(count - 1)]
            self.add_module(f"layer{number}", nn.Sequential(*layers))
            channels = out
            self.channels.append(out)
        if classifier:
            self.avgpool = nn.AdaptiveAvgPool2d(1)
            self.fc = nn.Linear(channels, 1000)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        check_classifier(self, "fc")
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for layer in self._layers():
            x = layer(x)
        return self.fc(self.avgpool(x).flatten(1))

    def maps(self, x: Tensor) -> list[Tensor]:
        """Outputs of the stem and the four layers, without the max-pool: at H/2, H/2, H/4, H/8, H/16."""
        found = [self.relu(self.bn1(self.conv1(x)))]
        for layer in self._layers():
            found.append(layer(found[-1]))
        return found

    def _layers(self) -> list[nn.Module]:
        return [self.get_submodule(f"layer{i}") for i in (1, 2, 3, 4)]


class ResNetEncoder(Encoder):
    """The feature maps of a ResNet without max-pool, average pool and classifier: stem and layer1 to layer4.

    Input (B, 3, H, W) normalised as ImageNet's; H and W multiples of 16 keep every stride exact.
    """

    def __init__(self, network: ResNet) -> None:
        super().__init__()
        self.network = network
        self.channels = tuple(network.channels)
        self.strides = (2, 2, 4, 8, 16)
        for number, stride in enumerate(self.strides):
            for index, block in enumerate(network.get_submodule(f"layer{number}").children() if number else ()):
                for layer in block.modules():
                    if isinstance(layer, StatisticsLayer):  # a layer's first block shrinks its maps behind them
                        layer.stride = stride if index else self.strides[number - 1]

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.network.maps(x)


Kind = Literal["resnet18", "resnet34", "resnet50", "resnext50_32x4d"]


def resnet(kind: Kind, *, classifier: bool = True) -> ResNet:
    """Builds a ResNet by torchvision's name (arXiv 1512.03385; ResNeXt: arXiv 1611.05431)."""
    if kind == "resnet18":
        return ResNet(BasicBlock, 1, (2, 2, 2, 2), classifier=classifier)
    if kind == "resnet34":
        return ResNet(BasicBlock, 1, (3, 4, 6, 3), classifier=classifier)
    if kind == "resnet50":
        return ResNet(Bottleneck, 4, (3, 4, 6, 3), classifier=classifier)
    return ResNet(partial(Bottleneck, groups=32, group_width=4), 4, (3, 4, 6, 3), classifier=classifier)
