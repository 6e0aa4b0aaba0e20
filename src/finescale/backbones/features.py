"""What all backbones have in common: the colours they expect, and their feature maps."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from finescale.errors import UsageError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Encoder(nn.Module):
    """Turns a picture into a list of feature maps, largest first.

    `forward` takes (B, 3, H, W) and gives one (B, channels[i], ceil(H / strides[i]), ceil(W / strides[i])) for each i.
    A decoder is given this list, `channels` and `strides`, and nothing else.

    Attributes:
        channels: of every map.
        strides: input pixels per position of every map, never falling.
    """

    channels: Sequence[int]
    strides: Sequence[int]

    def forward(self, x: Tensor) -> list[Tensor]:
        raise NotImplementedError


class ImageNetNormalisation(nn.Module):
    """(B, 3, H, W) in [0, 1] -> the same with ImageNet's mean 0 and standard deviation 1; `inverse` undoes it."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            self.register_buffer(name, torch.tensor(values).reshape(1, 3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean.to(x.dtype)) / self.std.to(x.dtype)

    def inverse(self, x: Tensor) -> Tensor:
        return x * self.std + self.mean  # float32 where autocast made x bfloat16


def check_classifier(network: nn.Module, head: str) -> None:
    """Refuses a classifier that was built without its head.

    Raises:
        UsageError: it was.
    """
    if not hasattr(network, head):
        raise UsageError(f"this {type(network).__name__} was built without its classifier; maps(x) gives features")


def taps(layers: nn.Sequential, x: Tensor, indices: Sequence[int]) -> list[Tensor]:
    """Outputs of the layers at `indices` (rising), computing nothing after the last."""
    found = []
    for index in range(max(indices) + 1):
        x = layers[index](x)
        if index in indices:
            found.append(x)
    return found
