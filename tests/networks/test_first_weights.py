"""How built networks start."""

from collections.abc import Iterator
from itertools import pairwise

import pytest
from torch import nn

from finescale.networks.catalogue import build
from finescale.networks.rcan import RCAN

SMALL_UNET = {"encoder": "plain", "widths": (32, 16, 16, 8, 8), "blocks": (1, 1, 1, 1), "head": 8}
SMALL_RCAN = {"channels": 8, "groups": 1, "blocks": 1, "reduction": 4}


def shuffled(network: nn.Module) -> Iterator[tuple[nn.Conv2d, int]]:
    """The convolutions that pixel shuffles follow, and by how much these enlarge."""
    for sequence in network.modules():
        if isinstance(sequence, nn.Sequential):
            for layer, after in pairwise(sequence):
                if isinstance(after, nn.PixelShuffle):
                    assert isinstance(layer, nn.Conv2d)
                    yield layer, after.upscale_factor
    if isinstance(network, RCAN) and network.direct:
        (tail,) = network.tail
        assert isinstance(tail, nn.Conv2d)
        yield tail, network.scale


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize(
    ("name", "options", "steps"),
    [
        ("unet-2", SMALL_UNET, [2, 2, 2, 2]),
        ("rcan", SMALL_RCAN, []),
        ("edsr-baseline", {"channels": 8, "blocks": 1}, []),
        ("sa-rcan-light", SMALL_RCAN, None),
    ],
)
def test_pixels_start_in_equal_squares(
    name: str, options: dict[str, object], steps: list[int] | None, scale: int
) -> None:
    """ICNR: all sub-kernels of a channel are equal, whatever else starts the weights; those of two channels are not."""
    found = list(shuffled(build(name, scale=scale, **options)))
    climb = {2: [2], 3: [3], 4: [2, 2]}[scale]
    assert [factor for _, factor in found] == ([scale] if steps is None else [*steps, *climb])
    for layer, factor in found:
        assert layer.bias is not None
        for values in (layer.weight.detach(), layer.bias.detach()):
            groups = values.unflatten(0, (-1, factor**2))
            assert (groups == groups[:, :1]).all()
        kernels = layer.weight.detach().unflatten(0, (-1, factor**2))[:, 0]
        assert (kernels[0] - kernels[1]).abs().max() > 0
