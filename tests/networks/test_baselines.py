"""Bicubic, SRCNN and EDSR."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from finescale.images.resize import resize
from finescale.networks.baselines import EDSR, SRCNN
from finescale.networks.catalogue import NETWORKS, build


def luma(x: Tensor) -> Tensor:
    return (16 + (x * torch.tensor([65.481, 128.553, 24.966]).reshape(3, 1, 1)).sum(1)) / 255


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_bicubic_is_the_exact_resize(scale: int) -> None:
    torch.manual_seed(0)
    network = build("bicubic", scale=scale)
    assert not NETWORKS["bicubic"].trained
    assert not network.state_dict()
    x = torch.rand(2, 3, 5, 9)
    torch.testing.assert_close(network(x), resize(x, scale=scale), atol=2e-6, rtol=0)


def test_srcnn_changes_luma_only_and_has_the_papers_size() -> None:
    torch.manual_seed(0)
    network = SRCNN(scale=2)
    assert sum(p.numel() for p in network.parameters()) == 57_281
    x = torch.rand(1, 3, 12, 12)
    with torch.no_grad():
        y, bicubic = network(x), network.bicubic(x)
        expected = luma(bicubic)[:, None]
        for layer in network.layers[:-1]:
            expected = layer(expected).relu()
        expected = network.layers[-1](expected)[:, 0]
    torch.testing.assert_close(luma(y), expected, atol=1e-5, rtol=1e-5)
    for a, b in ((0, 1), (1, 2)):  # the differences of colours stay
        torch.testing.assert_close(y[:, a] - y[:, b], bicubic[:, a] - bicubic[:, b], atol=1e-5, rtol=1e-5)


def test_srcnn_takes_any_activation_and_keeps_its_names() -> None:
    torch.manual_seed(0)
    plain = build("srcnn", scale=2)
    assert set(plain.state_dict()) == {f"layers.{i}.{part}" for i in range(3) for part in ("weight", "bias")}
    other = build("srcnn", scale=2, activation="sqnl")
    other.load_state_dict(plain.state_dict())
    x = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        assert not torch.allclose(other(x), plain(x), atol=1e-4)
    learned = build("srcnn", scale=2, activation="prelu")
    assert sum(p.numel() for p in learned.parameters()) == 57_281 + 64 + 32
    learned(x).mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in learned.parameters())


@pytest.mark.parametrize("value_range", [1, 255])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_edsr_equals_its_convolutions_one_after_the_other(scale: int, value_range: int) -> None:
    torch.manual_seed(0)
    network = EDSR(scale=scale, channels=8, blocks=2, residual_factor=0.1, value_range=value_range).double()
    weights = network.state_dict()

    def conv(name: str, x: Tensor) -> Tensor:
        return F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=1)

    x = torch.rand(1, 3, 5, 6, dtype=torch.float64)
    mean = value_range * torch.tensor([0.4488, 0.4371, 0.4040], dtype=torch.float64)[:, None, None]
    head = conv("head.0", value_range * x - mean)
    y = head
    for block in ("body.0.body", "body.1.body"):
        y = y + 0.1 * conv(f"{block}.2", conv(f"{block}.0", y).relu())
    y = head + conv("body.2", y)
    for index, step in {2: ((0, 2),), 3: ((0, 3),), 4: ((0, 2), (2, 2))}[scale]:
        y = F.pixel_shuffle(conv(f"tail.0.{index}", y), step)
    with torch.no_grad():
        torch.testing.assert_close(network(x), (conv("tail.1", y) + mean) / value_range, rtol=1e-5, atol=1e-6)
