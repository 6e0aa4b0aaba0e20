"""AlexNet, with torchvision's parameter names and shapes."""

from torch import Tensor, nn

from finescale.backbones.features import check_classifier, taps

LPIPS_TAPS = (1, 4, 7, 9, 11)  # layers of `features` that LPIPS compares


class AlexNet(nn.Module):
    """AlexNet: (B, 3, H, W), normalised as ImageNet's -> class scores (B, 1000).

    Krizhevsky, "One weird trick for parallelizing convolutional neural networks" (arXiv 1404.5997), in one column.

    Args:
        classifier: with the three linear layers, which features do not need.

    Raises:
        UsageError: `forward` without them.
    """

    def __init__(self, *, classifier: bool = True) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, stride=4, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2),
            nn.Conv2d(64, 192, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2),
            nn.Conv2d(192, 384, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2),
        )
        if classifier:
            self.avgpool = nn.AdaptiveAvgPool2d(6)
            self.classifier = nn.Sequential(
                nn.Dropout(),
                nn.Linear(256 * 6 * 6, 4096),
                nn.ReLU(),
                nn.Dropout(),
                nn.Linear(4096, 4096),
                nn.ReLU(),
                nn.Linear(4096, 1000),
            )

    def forward(self, x: Tensor) -> Tensor:
        check_classifier(self, "classifier")
        return self.classifier(self.avgpool(self.features(x)).flatten(1))

    def maps(self, x: Tensor) -> list[Tensor]:
        """The five feature maps that LPIPS compares: 64, 192, 384, 256, 256 channels."""
        return taps(self.features, x, LPIPS_TAPS)
