"""SqueezeNet 1.1, with torchvision's parameter names and shapes."""

import torch
from torch import Tensor, nn

from finescale.backbones.features import check_classifier, taps

LPIPS_TAPS = (1, 4, 7, 9, 10, 11, 12)  # layers of `features` that LPIPS compares


class Fire(nn.Module):
    """1x1 squeeze, then 1x1 and 3x3 expand side by side; (B, C, H, W) -> (B, 2 `expand`, H, W).

    arXiv 1602.07360, section 3.2.
    """

    def __init__(self, channels: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze(x).relu()
        return torch.cat([self.expand1x1(x).relu(), self.expand3x3(x).relu()], dim=1)


class SqueezeNet(nn.Module):
    """SqueezeNet 1.1: (B, 3, H, W), normalised as ImageNet's -> class scores (B, 1000).

    Iandola et al., "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and <0.5MB model size" (arXiv
    1602.07360); 1.1 is its authors' later form with fewer multiplications.

    Args:
        classifier: with the last convolution and the mean over its maps, which features do not need.

    Raises:
        UsageError: `forward` without them.
    """

    def __init__(self, *, classifier: bool = True) -> None:
        super().__init__()

        def pool() -> nn.Module:
            return nn.MaxPool2d(3, stride=2, ceil_mode=True)

        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 3, stride=2),
            nn.ReLU(),
            pool(),
            Fire(64, 16, 64),
            Fire(128, 16, 64),
            pool(),
            Fire(128, 32, 128),
            Fire(256, 32, 128),
            pool(),
            Fire(256, 48, 192),
            Fire(384, 48, 192),
            Fire(384, 64, 256),
            Fire(512, 64, 256),
        )
        if classifier:
            self.classifier = nn.Sequential(nn.Dropout(), nn.Conv2d(512, 1000, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1))

    def forward(self, x: Tensor) -> Tensor:
        check_classifier(self, "classifier")
        return self.classifier(self.features(x)).flatten(1)

    def maps(self, x: Tensor) -> list[Tensor]:
        """The seven feature maps that LPIPS compares: 64, 128, 256, 384, 384, 512, 512 channels."""
        return taps(self.features, x, LPIPS_TAPS)
