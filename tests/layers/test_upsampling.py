"""Upsampling and initialisation by name."""

import math

import pytest
import torch
from torch import Tensor, nn

from finescale.errors import UsageError
from finescale.layers.initialisation import INITIALISATIONS, icnr_, initialise
from finescale.layers.spectral import spectral_norm
from finescale.layers.upsampling import UPSAMPLINGS, SubPixelUpsampler, upsampling


def repeated(y: Tensor, scale: int) -> Tensor:
    """The nearest-neighbour enlargement of the first of every scale x scale outputs."""
    return y[..., ::scale, ::scale].repeat_interleave(scale, 2).repeat_interleave(scale, 3)


@pytest.mark.parametrize("name", UPSAMPLINGS)
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_shapes(name: str, scale: int) -> None:
    layer = upsampling(name, 4, 6, scale)  # type: ignore[arg-type]
    for size in ((1, 1), (3, 5)):
        assert layer(torch.rand(2, 4, *size)).shape == (2, 6, scale * size[0], scale * size[1])


@pytest.mark.parametrize("scale", [2, 3])
@pytest.mark.parametrize("start", INITIALISATIONS)
def test_sub_pixel_starts_as_nearest_neighbour(scale: int, start: str) -> None:
    torch.manual_seed(0)
    layer = upsampling("sub-pixel", 4, 6, scale)
    initialise(layer, start)  # type: ignore[arg-type]
    y = layer(torch.rand(1, 4, 5, 7))
    torch.testing.assert_close(y, repeated(y, scale))
    assert y.std() > 0


@pytest.mark.parametrize("start", INITIALISATIONS)
def test_plain_sub_pixel_starts_every_sub_kernel_by_itself(start: str) -> None:
    torch.manual_seed(0)
    layer, plain = upsampling("sub-pixel", 4, 6, 2), upsampling("sub-pixel-plain", 4, 6, 2)
    for each in (layer, plain):
        initialise(each, start)  # type: ignore[arg-type]
    kernels = plain[0].get_parameter("weight").unflatten(0, (6, 4))
    assert (kernels - kernels[:, :1]).flatten(2).abs().amax(2)[:, 1:].min() > 0
    x = torch.rand(1, 4, 5, 7)
    assert not torch.allclose(plain(x), repeated(plain(x), 2))
    plain.load_state_dict(layer.state_dict())  # the same network otherwise
    torch.testing.assert_close(plain(x), layer(x))


def test_four_times_by_two_steps_starts_as_nearest_neighbour_of_the_first() -> None:
    torch.manual_seed(0)
    layer = SubPixelUpsampler(8, 4)
    assert set(layer.state_dict()) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    first = layer[1](layer[0](torch.rand(1, 8, 5, 5)))
    torch.testing.assert_close(first, repeated(first, 2))


@pytest.mark.parametrize("name", UPSAMPLINGS)
def test_a_flat_input_gives_no_checkerboard(name: str) -> None:
    torch.manual_seed(0)
    layer: nn.Sequential = upsampling(name, 4, 3, 2)  # type: ignore[arg-type]
    inner = layer(torch.full((1, 4, 12, 12), 0.5))[..., 6:-6, 6:-6]
    if name == "transposed":  # its phases have weights of their own: equal only once they are trained
        assert layer[0].get_parameter("weight").shape[-1] % 2 == 0  # but every output is a sum of equally many terms
    elif name == "sub-pixel-plain":  # likewise: what ICNR is for
        assert (inner.amax((2, 3)) - inner.amin((2, 3))).min() > 0.01
    else:
        assert (inner.amax((2, 3)) - inner.amin((2, 3))).max() < 1e-5


def test_icnr_copies_the_first_of_every_group() -> None:
    weight = torch.arange(8.0).reshape(8, 1, 1, 1)
    assert icnr_(weight, 2).flatten().tolist() == [0, 0, 0, 0, 4, 4, 4, 4]


@pytest.mark.parametrize(
    ("name", "deviation"),
    [
        ("kaiming-uniform", math.sqrt(2 / (64 * 9))),
        ("kaiming-normal", math.sqrt(2 / (64 * 9))),
        ("xavier-uniform", math.sqrt(2 / ((64 + 128) * 9))),
        ("xavier-normal", math.sqrt(2 / ((64 + 128) * 9))),
        ("normal", 0.02),
    ],
)
def test_deviations_of_initialisations(name: str, deviation: float) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(64, 128, 3)
    initialise(layer, name)  # type: ignore[arg-type]
    assert abs(layer.weight.std().item() / deviation - 1) < 0.02
    bound = 1.01 * math.sqrt(3) * deviation
    assert (layer.weight.abs().max() <= bound) == name.endswith("uniform")
    assert layer.bias is not None
    assert not layer.bias.any()


@pytest.mark.parametrize("name", ["kaiming-uniform", "kaiming-normal"])
@pytest.mark.parametrize("kind", ["sub-pixel", "sub-pixel-plain", "resize", "transposed"])
@pytest.mark.parametrize(("c_in", "c_out", "scale"), [(128, 64, 2), (64, 64, 2), (64, 48, 3)])
def test_kaiming_keeps_the_size_of_features_through_every_upsampling(
    kind: str, name: str, c_in: int, c_out: int, scale: int
) -> None:
    torch.manual_seed(0)
    layer = upsampling(kind, c_in, c_out, scale)  # type: ignore[arg-type]
    initialise(layer, name, slope=1.0)  # type: ignore[arg-type]
    with torch.no_grad():
        large = layer(torch.randn(2, c_in, 24, 24))[..., 8:-8, 8:-8]  # borders see zeros
    assert abs(large.std().item() - 1) < 0.08


@pytest.mark.parametrize("training", [True, False])
def test_initialisation_of_a_spectrally_normalised_layer_keeps_its_bound(training: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(16, 32, 3).train(training)
    spectral_norm(layer)
    before = layer.weight.detach().clone()
    initialise(layer, "kaiming-normal")
    weight = layer.eval().weight.detach()
    assert not torch.equal(weight, before)
    assert 0.98 < torch.linalg.svdvals(weight.flatten(1))[0] < 1.05


def test_unknown_names() -> None:
    with pytest.raises(UsageError, match="did you mean 'sub-pixel'"):
        upsampling("subpixel", 4, 4, 2)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="there is no sub-pixel upsampling by '8'"):
        SubPixelUpsampler(64, 8)
    with pytest.raises(UsageError, match="did you mean 'kaiming-normal'"):
        initialise(nn.Conv2d(1, 1, 1), "kaiming_normal")  # type: ignore[arg-type]
