import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from finescale.backbones.lpips import LPIPS
from finescale.errors import FinescaleError, UsageError
from finescale.evaluation import lpips, scoring
from finescale.evaluation.scoring import Unavailable


@pytest.fixture
def squeeze(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> lpips.PictureDistance:
    monkeypatch.setenv("FINESCALE_DATA", str(shared_data))
    if not (shared_data / "weights" / "squeezenet1_1.pth").is_file():
        pytest.skip("the SqueezeNet weights are not here")
    return lpips.load("squeeze")


@pytest.mark.parametrize(("seed", "expected"), [(0, 0.1041), (1, 0.1019), (42, 0.1005)])
def test_agrees_with_the_reference(squeeze: lpips.PictureDistance, seed: int, expected: float) -> None:
    torch.manual_seed(seed)
    a = torch.rand(10, 3, 100, 100) * 2 - 1
    b = torch.rand(10, 3, 100, 100) * 2 - 1
    with torch.inference_mode():
        assert round(float(squeeze.network(a, b).mean()), 4) == expected


def test_pictures(squeeze: lpips.PictureDistance) -> None:
    generator = np.random.default_rng(0)
    a = generator.integers(0, 256, (40, 33, 3)).astype(np.uint8)
    b = np.clip(a.astype(int) + 30, 0, 255).astype(np.uint8)
    assert squeeze(a, a) == 0
    assert 0.001 < squeeze(a, b) < 1
    assert squeeze(a, b) == pytest.approx(squeeze(b, a))
    assert squeeze.label == "LPIPS (squeeze)"
    with pytest.raises(UsageError, match="31 x 40 is too small for LPIPS"):
        squeeze(a[:, :31], b[:, :31])
    with pytest.raises(UsageError, match="expected an 8-bit RGB picture"):
        squeeze(a / 255, b / 255)  # type: ignore[arg-type]


@pytest.mark.parametrize("shapes", [((1, 3, 40, 40), (2, 3, 40, 40)), ((1, 1, 40, 40),) * 2, ((3, 40, 40),) * 2])
def test_other_shapes_are_refused(squeeze: lpips.PictureDistance, shapes: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(UsageError, match=r"two batches \(B, 3, H, W\) alike"):
        squeeze.network(*map(torch.zeros, shapes))


def test_missing_weights_say_where_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINESCALE_DATA", str(tmp_path))
    monkeypatch.setenv("FINESCALE_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    stand_in = scoring.find("lpips", "LPIPS", lpips.load)
    assert isinstance(stand_in, Unavailable)
    assert "lpips_v0.1_squeeze.pth" in stand_in.reason
    state = {f"lin{i}.model.1.weight": torch.zeros(1, c, 1, 1) for i, c in enumerate((64, 192, 384, 256, 256))}
    torch.save(state, tmp_path / "lpips_v0.1_alex.pth")
    with pytest.raises(FinescaleError, match=r"alexnet-owt-7be5be79\.pth"):
        lpips.load("alex")
    with pytest.raises(UsageError, match="did you mean 'squeeze'"):
        scoring.find("lpips", "LPIPS", lambda: lpips.load("sqeeze"))


@pytest.mark.parametrize(
    ("variant", "name", "layers"), [("alex", "alexnet", (1, 4, 7, 9, 11)), ("vgg", "vgg16", (3, 8, 15, 22, 29))]
)
def test_other_variants_look_behind_activations(variant: str, name: str, layers: tuple[int, ...]) -> None:
    from finescale.backbones.catalogue import build

    torch.manual_seed(0)
    network = LPIPS(variant, build(name, classifier=False)).eval().requires_grad_(False)
    features = network.backbone.get_submodule("features")
    assert isinstance(features, torch.nn.Sequential)
    assert all(isinstance(features[index], torch.nn.ReLU) for index in layers)
    x = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(network.backbone.maps(x), [features[: index + 1](x) for index in layers])


@pytest.mark.parametrize(("variant", "levels"), [("alex", 5), ("vgg", 5)])
def test_other_variants_add_up_their_levels(variant: str, levels: int) -> None:
    """With random backbones: identical pictures have distance 0, and every level adds what its weights say."""
    from finescale.backbones.catalogue import build

    torch.manual_seed(0)
    backbone = {"alex": "alexnet", "vgg": "vgg16"}[variant]
    network = LPIPS(variant, build(backbone, classifier=False)).eval().requires_grad_(False)
    a, b = torch.rand(2, 3, 64, 64) * 2 - 1, torch.rand(2, 3, 64, 64) * 2 - 1
    assert network(a, b).tolist() == [0, 0]
    total = torch.zeros(2)
    for i in range(levels):
        network.linear[i].fill_(1)
        single = network(a, b)
        assert (single > 0).all()
        total += single
        network.linear[i].fill_(0)
    for weight in network.linear:
        weight.fill_(1)
    assert torch.allclose(network(a, b), total, rtol=1e-5)
    assert network(a, a).abs().max() == 0


@pytest.mark.parametrize(("variant", "name"), [("squeeze", "squeezenet1_1"), ("vgg", "vgg16")])
def test_copies_have_a_backbone_of_their_own(variant: str, name: str) -> None:
    from finescale.backbones.catalogue import build

    torch.manual_seed(0)
    network = LPIPS(variant, build(name, classifier=False)).eval().requires_grad_(False)
    for weight in network.linear:
        weight.fill_(1)
    a, b = torch.rand(2, 1, 3, 32, 32) * 2 - 1
    distance = network(a, b)
    assert torch.equal(pickle.loads(pickle.dumps(network))(a, b), distance)  # noqa: S301
    other = copy.deepcopy(network)
    assert torch.equal(other(a, b), distance)
    for parameter in other.backbone.parameters():
        parameter.zero_()
    assert float(other(a, b)) == 0
    assert torch.equal(network(a, b), distance)


def test_pictures_go_where_the_network_is(monkeypatch: pytest.MonkeyPatch) -> None:
    from finescale.backbones.catalogue import build

    with torch.device("meta"):
        network = LPIPS("squeeze", build("squeezenet1_1", classifier=False))
    seen: list[torch.Tensor] = []

    def forward(*pictures: torch.Tensor) -> torch.Tensor:
        seen.extend(pictures)
        return torch.zeros(1)

    monkeypatch.setattr(network, "forward", forward)
    picture = np.zeros((32, 32, 3), np.uint8)
    assert lpips.PictureDistance(network)(picture, picture) == 0
    assert [x.device.type for x in seen] == ["meta", "meta"]


def test_another_variant_is_named() -> None:
    with pytest.raises(UsageError, match="there is no LPIPS variant 'vgg16'; did you mean 'vgg'"):
        LPIPS("vgg16", torch.nn.Identity())
