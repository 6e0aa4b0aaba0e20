"""ResNeSt-50, with the parameter names and shapes of the authors' release."""

from torch import Tensor, nn

from finescale.backbones.resnet import ResNet, convolution
from finescale.layers.statistics import StatisticsLayer, upsample_cells, window_means

RADIX = 2


class SplitAttention(StatisticsLayer):
    """A 3x3 convolution to two groups of features, mixed by weights from their mean (arXiv 2004.08955, section 3.1).

    (B, C, H, W) -> (B, C, H, W).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(channels * RADIX // 4, 32)
        self.conv = convolution(channels, channels * RADIX, 3, groups=RADIX)
        self.bn0 = nn.BatchNorm2d(channels * RADIX)
        self.relu = nn.ReLU(inplace=True)
        self.fc1 = nn.Conv2d(channels, hidden, 1)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.fc2 = nn.Conv2d(hidden, channels * RADIX, 1)

    def forward(self, x: Tensor) -> Tensor:
        splits = self.relu(self.bn0(self.conv(x))).unflatten(1, (RADIX, -1))  # B radix C H W
        total = splits.sum(1)
        means = total.mean((2, 3), keepdim=True) if self.window is None else window_means(total, self.window)
        shares = self.fc2(self.relu(self.bn1(self.fc1(means))))
        shares = shares.unflatten(1, (RADIX, -1)).softmax(1)
        if self.window is not None:
            shares = upsample_cells(shares.flatten(1, 2), self.window, *x.shape[2:]).unflatten(1, (RADIX, -1))
        return (splits * shares).sum(1)


class Bottleneck(nn.Module):
    """ResNeSt's bottleneck: 1x1, split attention, average pool where the size changes, 1x1, + shortcut.

    Zhang et al., "ResNeSt: Split-Attention Networks" (arXiv 2004.08955). (B, C, H, W) -> (B, 4 `width`, H/s, W/s).
    """

    expansion = 4

    def __init__(self, c_in: int, width: int, stride: int, downsample: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = convolution(c_in, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = SplitAttention(width)
        self.avd_layer = nn.AvgPool2d(3, stride, padding=1) if stride > 1 else None
        self.conv3 = convolution(width, width * self.expansion, 1)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.conv2(self.relu(self.bn1(self.conv1(x))))
        if self.avd_layer is not None:
            y = self.avd_layer(y)
        return self.relu(self.bn3(self.conv3(y)) + shortcut)


def _averaged_downsample(c_in: int, c_out: int, stride: int) -> nn.Sequential:
    # the last row and column of an odd size are averages of what is there
    pool = nn.AvgPool2d(stride, ceil_mode=True, count_include_pad=False) if stride > 1 else nn.Identity()
    return nn.Sequential(pool, convolution(c_in, c_out, 1), nn.BatchNorm2d(c_out))


def resnest50(*, classifier: bool = True) -> ResNet:
    """Builds ResNeSt-50: radix 2, deep stem, average downsampling."""
    stem = nn.Sequential(
        convolution(3, 32, 3, stride=2),
        nn.BatchNorm2d(32),
        nn.ReLU(inplace=True),
        convolution(32, 32, 3),
        nn.BatchNorm2d(32),
        nn.ReLU(inplace=True),
        convolution(32, 64, 3),
    )
    return ResNet(Bottleneck, 4, (3, 4, 6, 3), stem=(stem, 64), downsample=_averaged_downsample, classifier=classifier)
