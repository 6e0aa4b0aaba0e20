"""Counts of parameters and multiplications."""

from itertools import pairwise, product

import pytest
import torch
from torch import nn

from finescale.layers.attention import SelfAttention
from finescale.networks.base import Network
from finescale.networks.catalogue import NETWORKS, build
from finescale.networks.complexity import cost, count, measured


class Small(Network):
    __module__ = "finescale.networks.small"  # so it is counted as the catalogue's are

    def __init__(self) -> None:
        super().__init__(scale=2)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, stride=2),  # 24 x 24
            nn.Conv2d(8, 8, 3, padding=1, groups=4),
            SelfAttention(8, reduction=4, value_reduction=2, pool=2),
            nn.ConvTranspose2d(8, 3, 4, stride=4),
        )

    def enlarge(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def test_every_kind_of_layer_by_hand() -> None:
    positions, keys = 24 * 24, 12 * 12
    attention = positions * (8 * 2 + 8 * 2 + 8 * 4 + 4 * 8) + positions * keys * (2 + 4)
    expected = positions * (3 * 8 * 9 + 8 * 2 * 9) + attention + positions * 8 * 3 * 16
    network = Small().train()
    found = count(network)
    assert found.macs == expected
    assert found.parameters == sum(p.numel() for p in network.parameters())
    assert network.training


class Own(Network):
    """What other people's networks compute with beside the layers of ours."""

    def __init__(self) -> None:
        super().__init__(scale=2)
        self.first, self.attention = nn.Conv2d(3, 8, 3, padding=1), nn.MultiheadAttention(8, 2, batch_first=True)
        self.mix, self.last = nn.Parameter(torch.ones(8, 8)), nn.Parameter(torch.ones(12, 8, 1, 1))

    def enlarge(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x).flatten(2).transpose(1, 2)
        y = self.attention(y, y, y, need_weights=False)[0] @ self.mix
        y = nn.functional.scaled_dot_product_attention(y, y, y).transpose(1, 2).unflatten(2, x.shape[2:])
        return nn.functional.pixel_shuffle(nn.functional.conv2d(y, self.last), 2)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_network_of_somebodys_own_by_hand(device: str) -> None:
    positions = 16 * 12
    attentions = positions * 4 * 8 * 8 + 2 * 2 * positions * positions * 8
    found = count(Own().to(device), (16, 12))
    assert found.macs == positions * 3 * 8 * 9 + attentions + positions * 8 * 8 + positions * 8 * 12
    assert torch.backends.mha.get_fastpath_enabled()


def test_counting_leaves_the_random_numbers_alone() -> None:
    before = torch.random.get_rng_state()
    measured("sa-rcan-light", scale=2)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_counting_leaves_a_network_as_it_is() -> None:
    network = build("rcan", scale=2, channels=8, groups=1, blocks=1, reduction=2).bfloat16()
    part = network.get_submodule("head").eval()
    found = count(network, (8, 8))
    assert network.training
    assert not part.training
    assert found == count(network.double(), (8, 8))


@pytest.mark.parametrize(
    ("name", "parameters", "gmacs"),
    [
        ("rcan", 15_592_355, 36.7),
        ("edsr", 43_089_923, 115.8),
        ("edsr-baseline", 1_517_571, 4.6),
        ("rrdbnet", 16_697_987, 41.3),
        ("bicubic", 0, 0.0),
    ],
)
def test_published_figures_of_four_times(name: str, parameters: int, gmacs: float) -> None:
    found = measured(name, scale=4)
    assert found.parameters == parameters
    assert round(found.macs / 1e9, 1) == gmacs


def test_sa_rcan_is_forty_percent_smaller_than_rcan() -> None:
    assert 0.36 < 1 - cost("sa-rcan").parameters / cost("rcan").parameters < 0.42
    assert cost("sa-rcan-light").parameters < 1_000_000


@pytest.mark.parametrize("norm", ["batch", "instance", "spectral", "none"])
def test_norms_in_attention_cost_nothing(norm: str) -> None:
    layer = SelfAttention(8, norm=norm)  # type: ignore[arg-type]
    network = Small()
    network.layers = nn.Sequential(nn.Conv2d(3, 8, 1), layer, nn.Upsample(scale_factor=2), nn.Conv2d(8, 3, 1))
    assert count(network).macs == 2304 * (24 + 8 * (1 + 1 + 4) + 4 * 8 + 576 * (1 + 4) + 4 * 24)


# networks that end alike, so that one scale costs as much more than another for all of them
LIKE = {
    "unet-1": [f"unet-{n}" for n in range(2, 12)],
    "rcan": ["sa-rcan", "sa-rcan-group"],
    "sa-rcan-light": [
        "sa-rcan-light-jpeg",
        "sa-rcan-light-noise",
        "sa-rcan-light-perceptual",
        "sa-rcan-light-graphics",
    ],
}
ALONE = ("bicubic", "srcnn", "edsr-baseline", "edsr", "rrdbnet", "srvgg", "unet")


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("name", [*ALONE, *LIKE])
def test_the_table_of_costs_at_every_scale(name: str, scale: int) -> None:
    with torch.device("cpu" if name == "sa-rcan-light" else "meta"):  # where spectral norms take long
        network = build(name, scale=scale)
    assert cost(name, scale=scale) == count(network.to("meta")), "run python -m finescale.networks.complexity"


@pytest.mark.parametrize("name", LIKE)
def test_networks_that_end_alike_cost_as_much_more_at_another_scale(name: str) -> None:
    assert {*ALONE, *LIKE, *(other for others in LIKE.values() for other in others)} == set(NETWORKS)

    def steps(name: str) -> list[tuple[int, int]]:
        costs = [cost(name, scale=scale) for scale in (2, 3, 4)]
        return [(b.parameters - a.parameters, b.macs - a.macs) for a, b in pairwise(costs)]

    assert {other: steps(other) for other in LIKE[name]} == dict.fromkeys(LIKE[name], steps(name))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "scale"),
    [*((name, 4) for names in LIKE.values() for name in names), *product(("sa-rcan", "unet-9"), (2, 3))],
)
def test_the_table_of_costs_is_of_this_catalogue(name: str, scale: int) -> None:
    assert cost(name, scale=scale) == measured(name, scale=scale), "run python -m finescale.networks.complexity"
