"""Losses against their formulas."""

import tomllib
from pathlib import Path

import pytest
import torch
from torch import Tensor

from finescale.backbones import catalogue as backbones
from finescale.backbones.lpips import LPIPS
from finescale.backbones.vgg import VGG, NormalisedVGG, PictureVGG
from finescale.errors import FinescaleError, UsageError
from finescale.training import losses
from finescale.training.losses import (
    CONTENT_LAYERS,
    PIXEL,
    STYLE_LAYERS,
    Mix,
    Perception,
    gram,
    perception,
    total_variation,
)
from finescale.training.recipe import parse_recipe

# of the recipes of the first U-Nets
FIRST_MIX = tomllib.loads((Path(losses.__file__).parent / "bases" / "original-unet.toml").read_text())["loss"]


@pytest.fixture(scope="module")
def vgg() -> Perception:
    torch.manual_seed(0)
    network = PictureVGG(VGG(16, classifier=False)).eval().requires_grad_(False)
    return Perception(network, CONTENT_LAYERS, STYLE_LAYERS)


def pair() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.rand(2, 3, 16, 20), torch.rand(2, 3, 16, 20)


def test_pixel_losses() -> None:
    a, b = pair()
    d = (a - b).double()
    torch.testing.assert_close(PIXEL["l1"](a, b).double(), d.abs().mean(), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(PIXEL["l2"](a, b).double(), (d**2).mean(), atol=1e-6, rtol=1e-6)
    expected = ((d**2 + 1e-6) ** 0.5).mean()
    torch.testing.assert_close(PIXEL["charbonnier"](a, b).double(), expected, atol=1e-6, rtol=1e-6)


def test_total_variation_counts_the_steps() -> None:
    x = torch.zeros(2, 1, 4, 6)
    x[0, :, :, 3:] = 0.5  # one edge of four positions in the first picture of two
    assert float(total_variation(x)) == pytest.approx(4 * 0.5 / 2)


def test_gram_matrices() -> None:
    x = pair()[0]
    expected = torch.einsum("bihw,bjhw->bij", x, x) / (3 * 16 * 20)
    torch.testing.assert_close(gram(x), expected)


def test_content_and_style_by_hand(vgg: Perception) -> None:
    a, b = pair()
    terms = Mix({"style": 1.0, "content": 1.0}, vgg).terms(a, b)
    ours, theirs = (vgg.features.maps(x, ["relu1_2", "relu2_2", "relu3_3", "relu4_3"]) for x in (a, b))
    content = sum((x - y).square().mean() for x, y in zip(ours[2:], theirs[2:]))
    style = sum((gram(x) - gram(y)).square().sum() / 2 for x, y in zip(ours, theirs))
    assert list(terms) == ["style", "content"]
    torch.testing.assert_close(terms["content"], content)
    torch.testing.assert_close(terms["style"], style)


def test_the_first_unets_mix_is_the_weighted_sum_and_has_gradients(vgg: Perception) -> None:
    a, b = pair()
    a.requires_grad_()
    mix = Mix(FIRST_MIX, vgg)
    total = mix(a, b)
    torch.testing.assert_close(total, sum(FIRST_MIX[name] * value for name, value in mix.terms(a, b).items()))
    total.backward()
    assert a.grad is not None
    assert a.grad.isfinite().all()
    assert a.grad.abs().sum() > 0
    assert not [p for p in mix.parameters() if p.requires_grad]


def test_equal_pictures_cost_nothing_but_their_variation(vgg: Perception) -> None:
    a, _ = pair()
    terms = Mix(FIRST_MIX, vgg).terms(a, a.clone())
    assert {name: float(value) == 0 for name, value in terms.items()} == {
        "l1": True,
        "content": True,
        "style": True,
        "tv": False,
    }


def test_float32_whatever_comes_in(vgg: Perception) -> None:
    a, b = pair()
    mix = Mix({"l1": 1.0, "content": 0.1}, vgg)
    with torch.autocast("cpu", torch.bfloat16):
        loss = mix(a.bfloat16(), b)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, mix(a.bfloat16().float(), b))


def test_losses_that_count_nothing_are_not_computed() -> None:
    mix = Mix({"l1": 1.0, "content": 0.0})  # which would need a VGG
    assert set(mix.terms(torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8))) == {"l1"}


def test_a_programs_own_loss_is_known_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = {"network": "rcan", "scale": 2, "loss": {"l1": 1.0, "largest": 0.5}}
    with pytest.raises(UsageError, match="there is no loss 'largest'"):
        parse_recipe(recipe, "mine")
    monkeypatch.setitem(PIXEL, "largest", lambda output, target: (output - target).abs().max())
    a, b = pair()
    d = (a - b).abs()
    torch.testing.assert_close(Mix(parse_recipe(recipe, "mine").loss)(a, b), d.mean() + 0.5 * d.max())


def test_wrong_mixes_are_named(vgg: Perception) -> None:
    with pytest.raises(UsageError, match="did you mean 'content'"):
        Mix({"contents": 1.0}, vgg)
    with pytest.raises(UsageError, match="need a VGG"):
        Mix({"style": 1.0})
    with pytest.raises(UsageError, match="at least one"):
        Mix({})


def test_perception_finds_its_weights_or_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XDG_CACHE_HOME", "TORCH_HOME", "FINESCALE_WEIGHTS"):
        monkeypatch.setenv(name, str(tmp_path))
    with pytest.raises(FinescaleError, match="no vgg16 weights"):
        perception("vgg16")
    with pytest.raises(FinescaleError, match="name its weight file"):
        perception("vgg19-normalised")
    with pytest.raises(UsageError, match="did you mean 'vgg16'"):
        perception("vg16")
    state = backbones.build("vgg16", classifier=False).state_dict()
    torch.save(state, tmp_path / "vgg16.pth")
    found = perception("vgg16")
    assert isinstance(found.features, PictureVGG)
    key = "features.10.weight"
    assert torch.equal(found.features.network.state_dict()[key], state[key])


def test_normalised_vgg_as_the_judge(shared_data: Path) -> None:
    judge = perception("vgg19-normalised", shared_data / "weights" / "vgg19_normalised_to_conv3_1.pth")
    assert isinstance(judge.features, NormalisedVGG)
    a, b = pair()
    terms = Mix({"content": 1.0, "style": 1.0}, judge).terms(a, b)
    near = Mix({"content": 1.0, "style": 1.0}, judge).terms(a, a + 0.01 * (b - a))
    assert all(float(near[name]) < 0.05 * float(terms[name]) for name in terms)


@pytest.fixture
def distance() -> LPIPS:
    torch.manual_seed(0)
    network = LPIPS("squeeze", backbones.build("squeezenet1_1", classifier=False)).eval().requires_grad_(False)
    for weight in network.linear:
        weight.fill_(1)
    return network


def test_lpips_of_pictures_that_begin_where_their_content_says(distance: LPIPS) -> None:
    mix = Mix({"lpips": 0.5}, distance=distance)
    torch.manual_seed(2)
    starts = set()
    for _ in range(12):
        output, target = torch.rand(2, 2, 3, 40, 48)
        loss = mix(output, target)
        assert torch.equal(loss, mix(output, target)), "an interrupted run goes on as it would have"
        a, b = 2 * output - 1, 2 * target - 1
        found = [
            (y, x)
            for y in range(4)
            for x in range(4)
            if torch.allclose(
                loss, distance(a[..., y : y + 37, x : x + 45], b[..., y : y + 37, x : x + 45]).mean() / 2, rtol=1e-5
            )
        ]
        assert len(found) == 1
        starts.update(found)
    assert len(starts) > 5


def test_lpips_needs_its_network() -> None:
    with pytest.raises(UsageError, match="the lpips loss needs its network"):
        Mix({"lpips": 1.0})


def test_losses_of_a_program_with_weights_and_of_the_wrong_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    class Weighted(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(3, 1, 1))

        def forward(self, output: Tensor, target: Tensor) -> Tensor:
            return (self.weight * (output - target)).abs().mean()

    monkeypatch.setitem(PIXEL, "weighted", Weighted())
    mix = Mix({"l1": 1.0, "weighted": 1.0})
    assert mix(*pair()).item() == pytest.approx(2 * float(PIXEL["l1"](*pair())))
    assert [weight.device.type for weight in mix.to("meta").parameters()] == ["meta"]
    monkeypatch.setitem(PIXEL, "each", lambda output, target: (output - target).abs().mean((1, 2, 3)))
    with pytest.raises(UsageError, match=r"the loss 'each' gives \(2,\) numbers where one is needed"):
        Mix({"each": 1.0})(*pair())
