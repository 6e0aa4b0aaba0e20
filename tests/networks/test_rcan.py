"""RCAN and SA-RCAN: behaviour, on small variants."""

import io
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from finescale.errors import UsageError
from finescale.layers.attention import SelfAttention
from finescale.layers.statistics import localise
from finescale.networks.catalogue import build
from finescale.networks.rcan import RCAN

TINY = {
    "channels": 16,
    "groups": 2,
    "blocks": 2,
    "reduction": 4,
    "attention_reduction": 4,
    "attention_value_reduction": 2,
}


def tiny(name: str, *, scale: int = 2, **options: object) -> RCAN:
    torch.manual_seed(0)
    network = build(name, scale=scale, **{**TINY, **options})
    assert isinstance(network, RCAN)
    for module in network.modules():
        if isinstance(module, SelfAttention):
            module.gamma.data.fill_(0.3)
    return network


@pytest.mark.parametrize(
    ("name", "layers"), [("rcan", 0), ("sa-rcan", 120), ("sa-rcan-group", 3), ("sa-rcan-light", 2)]
)
def test_self_attention_stands_where_it_should(name: str, layers: int) -> None:
    network = build(name, scale=2)
    assert sum(isinstance(m, SelfAttention) for m in network.modules()) == layers


def test_self_attention_leaves_the_query_without_spectral_norm() -> None:
    for layer in (m for m in tiny("sa-rcan").modules() if isinstance(m, SelfAttention)):
        assert not parametrize.is_parametrized(layer.query)
        for convolution in (layer.key, layer.value, layer.output):
            assert parametrize.is_parametrized(convolution, "weight")


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_direct_tail_starts_from_nearest_neighbour_enlargement(scale: int) -> None:
    network = tiny("sa-rcan-light", scale=scale)
    nn.init.zeros_(network.tail[0].get_parameter("weight"))
    nn.init.zeros_(network.tail[0].get_parameter("bias"))
    x = torch.rand(1, 3, 5, 4)
    torch.testing.assert_close(network(x), x.repeat_interleave(scale, 2).repeat_interleave(scale, 3))


@pytest.mark.parametrize("value_range", [1, 255])
@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("tail", ["classic", "direct"])
def test_it_equals_its_convolutions_one_after_the_other(tail: str, scale: int, value_range: int) -> None:
    network = tiny("rcan", scale=scale, tail=tail, value_range=value_range).double()
    weights = network.state_dict()

    def conv(name: str, x: Tensor) -> Tensor:
        kernel = weights[f"{name}.weight"]
        return F.conv2d(x, kernel, weights[f"{name}.bias"], padding=kernel.shape[2] // 2)

    def block(name: str, x: Tensor) -> Tensor:
        y = conv(f"{name}.2", conv(f"{name}.0", x).relu())
        gate = conv(f"{name}.3.conv_du.2", conv(f"{name}.3.conv_du.0", y.mean((2, 3), keepdim=True)).relu()).sigmoid()
        return x + gate * y

    x = torch.rand(1, 3, 5, 6, dtype=torch.float64)
    mean = value_range * torch.tensor([0.4488, 0.4371, 0.4040], dtype=torch.float64)[:, None, None]
    head = conv("head.0", value_range * x - mean)
    y = head
    for group in ("body.0.body", "body.1.body"):
        y = y + conv(f"{group}.2", block(f"{group}.1.body", block(f"{group}.0.body", y)))
    y = head + conv("body.2", y)
    if tail == "direct":
        nearest = x.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
        expected = F.pixel_shuffle(conv("tail.0", y), scale) / value_range + nearest
    else:
        for index, step in {2: ((0, 2),), 3: ((0, 3),), 4: ((0, 2), (2, 2))}[scale]:
            y = F.pixel_shuffle(conv(f"tail.0.{index}", y), step)
        expected = (conv("tail.1", y) + mean) / value_range
    with torch.no_grad():
        torch.testing.assert_close(network(x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["maxout", "prelu", "apl", "mish"])
def test_any_activation(name: str) -> None:
    network = tiny("rcan", activation=name)
    network(torch.rand(1, 3, 8, 8)).mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_other_scales_are_refused() -> None:
    with pytest.raises(UsageError, match="scale must be 2, 3 or 4"):
        build("rcan", scale=8)


def test_it_can_be_sent_to_another_process() -> None:
    network = tiny("sa-rcan").eval()
    localise(network, 48)
    state = torch.get_rng_state()
    again = pickle.loads(pickle.dumps(network))  # noqa: S301
    assert torch.equal(torch.get_rng_state(), state)
    x = torch.rand(1, 3, 12, 16)
    assert torch.equal(again(x), network(x))
    twice = pickle.loads(pickle.dumps(again.train()))  # noqa: S301
    twice(x).sum().backward()
    assert [p.grad is None for p in twice.parameters()] == [False] * len(list(network.parameters()))
    file = io.BytesIO()
    torch.save(network, file)
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=False)(x), network(x))


def test_unknown_network() -> None:
    with pytest.raises(UsageError, match="did you mean 'sa-rcan'"):
        build("sa_rcan", scale=2)


def test_only_pictures_are_taken() -> None:
    with pytest.raises(ValueError, match="batch of RGB pictures"):
        tiny("rcan")(torch.rand(1, 1, 4, 4))
    with pytest.raises(ValueError, match=r"floats in \[0, 1\], got torch.uint8"):
        tiny("rcan")(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
