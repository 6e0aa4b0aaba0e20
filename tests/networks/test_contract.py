"""What every network keeps to, on small variants."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from tests.networks import test_rcan, test_unet
from torch import nn

from finescale.layers.attention import SelfAttention
from finescale.layers.statistics import localise
from finescale.networks.base import Network
from finescale.networks.catalogue import build

_EDSR = {"channels": 16, "blocks": 2}
_UNET = {"encoder": "plain", **test_unet.TINY}
TINY: Mapping[str, Mapping[str, Any]] = {
    "bicubic": {},
    "srcnn": {},
    "edsr-baseline": _EDSR,
    "rrdbnet": {"channels": 8, "blocks": 1, "growth": 4},
    "srvgg": {"channels": 8, "convolutions": 2},
    "unet": {**_UNET, "upsampling": "sub-pixel"},
    "unet-1": _UNET,
    "unet-9": _UNET,
    "rcan": test_rcan.TINY,
    "sa-rcan": test_rcan.TINY,
    "sa-rcan-group": test_rcan.TINY,
    "sa-rcan-light": test_rcan.TINY,
}


def tiny(name: str, scale: int = 2) -> Network:
    torch.manual_seed(0)
    network = build(name, scale=scale, **TINY[name])
    for module in network.modules():
        if isinstance(module, SelfAttention):
            module.gamma.data.fill_(0.3)
    return network


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("size", [(1, 1), (3, 50), (17, 33)])
def test_any_size(name: str, scale: int, size: tuple[int, int]) -> None:
    network = tiny(name, scale).eval()
    x = torch.rand(2, 3, *size)
    before = x.clone()
    with torch.no_grad():
        for window in (None, 48):
            localise(network, window)
            y = network(x)
            assert y.shape == (2, 3, scale * size[0], scale * size[1])
            assert y.isfinite().all()
        low = network.to(torch.bfloat16)(x.bfloat16())
    assert low.dtype == torch.bfloat16
    assert low.isfinite().all()
    assert torch.equal(x, before)


@pytest.mark.parametrize(
    ("name", "ratio"),
    [
        ("edsr-baseline", 2),
        ("rrdbnet", 2),
        ("srvgg", 2),
        ("unet-9", 4),
        ("rcan", 2),
        ("sa-rcan", 2),
        ("sa-rcan-group", 2),
        ("sa-rcan-light", 2),
    ],
)
def test_learns_one_picture_by_heart(name: str, ratio: int) -> None:
    network = tiny(name)
    rows, columns = torch.meshgrid(torch.linspace(0, 6, 32), torch.linspace(0, 6, 32), indexing="ij")
    high = torch.stack([rows.sin(), columns.cos(), (rows * columns).sin()])[None] * 0.4 + 0.5
    low = nn.functional.avg_pool2d(high, 2)
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        loss = (network(low) - high).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / ratio
