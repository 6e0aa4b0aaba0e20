"""Channel attention in training, where its convolutions of single pixels are computed as products of matrices."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from finescale.layers import attention
from finescale.layers.attention import ChannelAttention


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None: ...


def made(layer: ChannelAttention, x: Tensor) -> list[Tensor]:
    """The output, and the gradients of the input and of all parameters."""
    y = layer(x)
    return [y, *torch.autograd.grad(y.float().square().sum(), [x, *layer.parameters()])]


def pair(channels: int, reduction: int) -> tuple[ChannelAttention, ChannelAttention]:
    """A layer, and the same with a hook, with which its convolutions are called as they are."""
    torch.manual_seed(0)
    layer = ChannelAttention(channels, reduction=reduction).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    convolutions = copy.deepcopy(layer)
    convolutions.conv_du[0].register_forward_hook(lambda *_: None)
    return layer, convolutions


@pytest.mark.parametrize(("channels", "reduction"), [(64, 16), (8, 4), (5, 16)])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_products_are_the_convolutions(channels: int, reduction: int, layout: torch.memory_format) -> None:
    layer, convolutions = pair(channels, reduction)
    x = torch.randn(3, channels, 7, 6).contiguous(memory_format=layout).requires_grad_()
    results = made(layer, x), made(convolutions, x)
    for mine, other in zip(*results, strict=True):
        assert mine.shape == other.shape
        assert (mine - other).abs().max() <= 1e-6 * max(1.0, float(other.detach().abs().max()))
    assert results[0][0].stride() == results[1][0].stride()
    for parameter, gradient in zip(layer.parameters(), results[0][2:], strict=True):
        assert gradient.stride() == parameter.stride()  # DDP's buckets want that
    assert list(layer.state_dict()) == [f"conv_du.{i}.{kind}" for i in (0, 2) for kind in ("weight", "bias")]


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_products_are_the_convolutions_in_bfloat16(compiled: bool) -> None:
    layer, convolutions = pair(64, 16)
    x = torch.randn(2, 64, 6, 6).contiguous(memory_format=torch.channels_last).requires_grad_()
    call: Any = torch.compile(layer, backend="eager", fullgraph=True) if compiled else layer
    results = []
    for network in (call, convolutions):
        with torch.autocast("cpu", torch.bfloat16):
            results.append(made(network, x.detach().bfloat16().requires_grad_()))
    for mine, other in zip(*results, strict=True):
        assert mine.dtype == other.dtype
        assert (mine - other).abs().max() <= 2e-2 * other.abs().max()


@pytest.mark.parametrize("where", ["conv_du", "conv_du.0", "conv_du.1", "conv_du.2", "conv_du.3"])
def test_hooks_see_what_they_always_did(where: str) -> None:
    layer = ChannelAttention(8, reduction=4)
    seen: list[torch.Size] = []
    layer.get_submodule(where).register_forward_hook(lambda module, given, result: seen.append(result.shape))
    layer(torch.rand(2, 8, 5, 4))
    assert [len(shape) for shape in seen] == [4]


@pytest.mark.parametrize("exchanged", ["one more", "activation", "groups"])
def test_layers_that_were_exchanged_are_called_as_they_are(exchanged: str) -> None:
    layer = ChannelAttention(8, reduction=4)
    if exchanged == "one more":
        layer.conv_du.append(nn.Hardtanh(0.1, 0.4))
    elif exchanged == "activation":
        layer.conv_du[1] = nn.PReLU(2)
    else:
        layer.conv_du[2] = nn.Conv2d(2, 8, 1, groups=2)
    x = torch.rand(2, 8, 5, 4)
    torch.testing.assert_close(layer.train()(x), layer.eval()(x))


def test_products_are_for_training_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits, windows and evaluation: what is exported is convolutions."""
    layers = [ChannelAttention(8, reduction=4) for _ in range(4)]
    layers[1].eval()
    layers[2].window = 8
    layers[3].most = torch.full((1, 8, 1, 1), 0.5)
    products: list[ChannelAttention] = []
    for layer in layers:

        def product(x: Tensor, convolution: nn.Conv2d, layer: ChannelAttention = layer) -> Tensor:
            products.append(layer)
            return convolution(x[:, :, None, None])[:, :, 0, 0]

        monkeypatch.setattr(attention, "_product", product)
        layer(torch.rand(2, 8, 16, 16))
    assert products == [layers[0]] * 2
