"""Starting from other weights: what fits is taken, and it is said what."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from finescale.atomic import sha256
from finescale.backbones import catalogue as backbones
from finescale.errors import FinescaleError, UsageError
from finescale.networks import catalogue
from finescale.networks.base import Network
from finescale.networks.unet import UNet
from finescale.training import checkpoints, warm_start
from finescale.training.recipe import load, parse_recipe
from finescale.training.run import make_network, train
from finescale.weights import files
from finescale.weights.header import read_header

SMALL: dict[str, Any] = {"channels": 8, "groups": 2, "blocks": 1, "reduction": 4}


def network(seed: int, *, scale: int = 2, **arguments: Any) -> Network:
    torch.manual_seed(seed)
    return catalogue.build("rcan", scale=scale, **{**SMALL, **arguments}).eval()


def test_a_half_precision_file_of_the_same_network(tmp_path: Path) -> None:
    source, target = network(0), network(1)
    files.save(source, tmp_path / "w.safetensors", dtype=torch.float16)
    taken = warm_start.apply(target, warm_start.read(tmp_path / "w.safetensors"))
    assert (taken.resized, taken.left) == ([], [])
    for name, value in target.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, source.state_dict()[name].half().float())


def test_another_scale_leaves_the_new_upsampler(tmp_path: Path) -> None:
    taken = warm_start.apply(network(1, scale=4), network(0).state_dict())
    assert taken.left == ["tail.0.2.weight", "tail.0.2.bias"]
    assert str(taken).endswith("2 left (tail.0.2.weight, tail.0.2.bias)")


@pytest.mark.parametrize("scale", [3, 4])
def test_a_direct_tail_of_another_scale_gives_about_the_same_picture(scale: int) -> None:
    source, target = network(0, tail="direct"), network(1, scale=scale, tail="direct")
    with torch.no_grad():
        source.get_parameter("tail.0.weight").mul_(0.3)
    taken = warm_start.apply(target, source.state_dict())
    assert taken.resized == ["tail.0.weight", "tail.0.bias"]
    x = F.interpolate(torch.rand(1, 3, 6, 6), size=(24, 24), mode="bicubic")
    with torch.no_grad():
        wanted, given = source(x), target(x)
        fresh = network(1, scale=scale, tail="direct")(x)

    def error(y: torch.Tensor) -> float:
        shrunk = F.interpolate(y, size=wanted.shape[2:], mode="area")
        return float((shrunk - wanted).square().mean())

    assert error(given) < error(fresh) / 4


@pytest.mark.parametrize(
    ("old", "new", "width", "other"), [(2, 3, 8, 8), (3, 2, 8, 8), (2, 3, 8, 12), (3, 4, 12, 8), (2, 3, 9, 4)]
)
def test_upsamplers_of_other_scales_and_widths_give_the_same_features(
    old: int, new: int, width: int, other: int
) -> None:
    source, target = network(0, scale=old, channels=width), network(1, scale=new, channels=other)
    taken = warm_start.apply(target, source.state_dict())
    assert {"tail.0.0.weight", "tail.0.0.bias"} <= {*taken.resized}  # of 9 at x2 and 4 at x3 36 biases, too
    both = min(width, other)
    for name in ("tail.0.0.weight", "tail.0.0.bias"):  # ICNR: the outputs of one input position are all equal
        given = source.state_dict()[name].unflatten(0, (width, old**2))[:both, :1]
        own = target.state_dict()[name].unflatten(0, (other, -1))[:both]
        if name.endswith("weight"):
            given, own = given[:, :, :both], own[:, :, :both]
        torch.testing.assert_close(own, given.expand_as(own))


@pytest.mark.parametrize(("old", "new"), [(12, 27), (12, 48), (16, 36)])
def test_no_width_makes_channels_sub_kernels(old: int, new: int) -> None:
    source, target = network(0, channels=old).state_dict(), network(1, channels=new)
    warm_start.apply(target, source)
    for name, value in target.state_dict().items():
        if value.ndim and name in source:
            common = tuple(slice(0, min(a, b)) for a, b in zip(value.shape, source[name].shape))
            assert torch.equal(value[common], source[name][common]), name


def test_a_direct_tail_of_another_scale_and_width() -> None:
    source, target = network(0, tail="direct"), network(1, scale=3, channels=12, tail="direct")
    warm_start.apply(target, source.state_dict())
    given = source.state_dict()["tail.0.weight"].unflatten(0, (3, 4))[:, :1]
    own = target.state_dict()["tail.0.weight"].unflatten(0, (3, 9))[:, :, :8]
    torch.testing.assert_close(own, given.expand_as(own))


def test_the_head_of_a_u_net_of_another_scale_and_width() -> None:
    def small(seed: int, scale: int, head: int) -> Network:
        torch.manual_seed(seed)
        return catalogue.build("unet", scale=scale, widths=[16, 8, 8, 8, 8], head=head, upsampling="sub-pixel")

    source, target = small(0, 2, 16), small(1, 3, 24)
    taken = warm_start.apply(target, source.state_dict())
    assert taken.resized == ["head.0.0.weight", "head.0.0.bias", "output.weight"]
    given = source.get_parameter("head.0.0.weight").unflatten(0, (16, 4))[:, :1]
    own = target.get_parameter("head.0.0.weight").unflatten(0, (24, 9))[:16]
    torch.testing.assert_close(own, given.expand_as(own))


def test_the_head_of_a_u_net_of_another_width_is_cut() -> None:
    """64 channels by a shuffle of 2 are as many as 16 by one of 4."""
    made = (catalogue.build("unet", scale=2, widths=[8] * 5, head=head, upsampling="sub-pixel") for head in (64, 16))
    source, target = made
    warm_start.apply(target, source.state_dict())
    assert torch.equal(target.get_parameter("head.0.0.weight"), source.get_parameter("head.0.0.weight")[:64])


def test_another_encoder_is_taken_whole_or_not_at_all(tmp_path: Path) -> None:
    small: dict[str, Any] = {"widths": [8] * 5, "blocks": [1] * 4, "head": 8}
    source = catalogue.build("unet-1", scale=2, encoder="resnet18", **small)
    target = catalogue.build("unet-1", scale=2, encoder="resnet34", **small)
    before = {name: value.clone() for name, value in target.state_dict().items() if name.startswith("encoder.")}
    taken = warm_start.apply(target, source.state_dict())
    assert {name for name in taken.left if name.startswith("encoder.")} == before.keys()
    assert all(torch.equal(target.state_dict()[name], value) for name, value in before.items())
    assert {"output.weight", "output.bias"} <= {*taken.same}
    again = catalogue.build("unet-1", scale=2, encoder="resnet18", **small)
    assert warm_start.apply(again, source.state_dict()).left == []

    files.save(source, tmp_path / "w.safetensors")
    keys: dict[str, Any] = {"network": "unet-1", "scale": 2, "warm_start": str(tmp_path / "w.safetensors")}
    groups = [{"match": "encoder", "frozen_until": 0.2, "pretrained": True}]
    for encoder, mine in (("resnet34", groups), ("resnet34", []), ("resnet18", groups)):
        recipe = parse_recipe({**keys, "arguments": {"encoder": encoder, **small}, "groups": mine}, "a test")
        if mine and encoder == "resnet34":
            with pytest.raises(UsageError, match=r"w\.safetensors has not the encoder .*encoder=imagenet.*groups=\[\]"):
                make_network(recipe, fresh=True)
        else:
            make_network(recipe, fresh=True)


def test_an_encoder_starts_from_a_file_or_the_published_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("XDG_CACHE_HOME", "TORCH_HOME", "FINESCALE_WEIGHTS"):
        monkeypatch.setenv(variable, str(tmp_path))
    file, classifier = tmp_path / "resnet18.pth", backbones.build("resnet18")
    torch.save(classifier.state_dict(), file)

    def made(encoder: str, source: str) -> tuple[Network, list[str]]:
        arguments = {"encoder": encoder, "widths": [8] * 5, "blocks": [1] * 4, "head": 8}
        keys = {"network": "unet-1", "scale": 2, "arguments": arguments, "encoder": source}
        return make_network(parse_recipe(keys, "a test"), fresh=True)

    for source in ("imagenet", str(file)):
        network, said = made("resnet18", source)
        assert said == [f"the encoder starts from {file}"]
        assert isinstance(network, UNet)
        found = network.encoder.get_parameter("network.conv1.weight")
        assert torch.equal(found, classifier.get_parameter("conv1.weight"))
    with pytest.raises(UsageError, match=r"resnet18\.pth: the weights do not fit the encoder resnet50 \("):
        made("resnet50", str(file))
    asked: list[str] = []

    def fetch(address: str, target: Path, sha256: str, progress: object) -> None:
        asked.append(address)
        target.parent.mkdir(parents=True)
        target.touch()

    monkeypatch.setattr(backbones, "fetch", fetch)
    file.unlink()
    with pytest.raises(FinescaleError, match="not a readable weight file"):  # empty, as nothing was downloaded
        made("resnet18", "imagenet")
    assert asked == ["https://download.pytorch.org/models/resnet18-f37072fd.pth"]


def test_a_file_with_vectors_under_the_names_of_convolutions_is_left() -> None:
    source, target = network(0).state_dict(), network(1, scale=3)
    before = target.get_parameter("tail.0.0.weight").clone()
    warm_start.apply(target, {**source, "tail.0.0.weight": torch.ones(32), "tail.0.0.bias": torch.tensor(1.0)})
    assert torch.equal(target.get_parameter("tail.0.0.weight"), before)


def test_a_smaller_network_fills_part_of_a_larger_one() -> None:
    source, target = network(0), network(1, channels=12, blocks=2)
    before = {name: value.clone() for name, value in target.state_dict().items()}
    taken = warm_start.apply(target, source.state_dict())
    own, theirs = target.state_dict(), source.state_dict()
    assert torch.equal(own["head.0.weight"][:8], theirs["head.0.weight"])
    assert torch.equal(own["head.0.weight"][8:], before["head.0.weight"][8:])
    assert "head.0.weight" in taken.resized
    assert "body.0.body.2.weight" in taken.left  # a block that the smaller one lacks


@pytest.mark.parametrize("channels", [8, 24])
def test_spectral_norms_of_resized_weights_are_found_anew(channels: int) -> None:
    arguments = {"channels": 16, "groups": 1, "blocks": 1, "reduction": 4, "attention_reduction": 2}
    torch.manual_seed(0)
    source = catalogue.build("sa-rcan", scale=2, **arguments)
    target = catalogue.build("sa-rcan", scale=2, **{**arguments, "channels": channels}).eval()
    taken = warm_start.apply(target, source.state_dict())
    resized = [name.removesuffix(".parametrizations.weight.original") for name in taken.resized if "original" in name]
    assert resized
    for name in resized:
        weight = target.get_submodule(name).weight
        assert isinstance(weight, Tensor)
        assert torch.linalg.matrix_norm(weight.flatten(1), 2).item() == pytest.approx(1, abs=0.05)


def test_the_averaged_weights_of_a_checkpoint(tmp_path: Path) -> None:
    source = network(0)
    checkpoints.save(tmp_path, {"average": source.state_dict()})
    target = network(1)
    warm_start.apply(target, warm_start.read(tmp_path / "last.ckpt"))
    assert torch.equal(target.get_parameter("head.0.weight"), source.get_parameter("head.0.weight"))


def test_another_range_of_pictures_is_an_error() -> None:
    official, target = network(0, value_range=255), network(1)
    before = {name: value.clone() for name, value in target.state_dict().items()}
    with pytest.raises(FinescaleError, match=r"rcan\.pth: was trained on .* 255 times"):
        warm_start.apply(target, official.state_dict(), "rcan.pth")
    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())
    warm_start.apply(target, network(2).half().state_dict())  # rounded shifts are the same range


def test_nothing_in_common_is_an_error() -> None:
    target = network(0)
    shifts = {name: value for name, value in target.state_dict().items() if "mean" in name}
    for state in ({"other": torch.zeros(3)}, shifts | {"tail.1.bias": torch.zeros(3)}):
        with pytest.raises(FinescaleError, match=r"other\.safetensors: [01] of the \d+ weights"):
            warm_start.apply(target, state, "other.safetensors")
    with pytest.raises(FinescaleError):
        warm_start.read(Path("none.safetensors"))


def test_weights_tell_what_they_were_started_from_also_after_a_continuation(tiny_store: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "source.safetensors", tmp_path / "run"
    files.save(network(0), source, notes={"licence": "for research", "minutes": 5})
    told = {"file": "source.safetensors", "sha256": sha256(source), "licence": "for research"}
    data = {"train": str(tiny_store), "batch": 2, "patch": 12}
    keys = {"network": "rcan", "scale": 2, "arguments": SMALL, "warm_start": str(source), "data": data}
    for budget in (2, 4):
        recipe = parse_recipe({**keys, "budget": budget}, "a test")
        train(recipe, out, resume=budget == 4, device=torch.device("cpu"), screen=False, board=False)
        notes = read_header(out / "rcan-x2.safetensors").notes
        assert notes["steps"] == budget
        assert notes["licence"] == "CC0-1.0"  # of the pictures
        assert notes["started_from"] == told
        assert str(tmp_path) not in json.dumps(notes)
        source.unlink(missing_ok=True)
    for file in ("rcan-x2.safetensors", "last.ckpt"):
        again = {"file": file, "sha256": sha256(out / file), "licence": "CC0-1.0", "started_from": told}
        assert warm_start.origin(str(out / file)) == again


def test_a_start_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = tmp_path / "weights"
    weights.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FINESCALE_WEIGHTS", str(weights))
    sources = {scale: network(scale, scale=scale) for scale in (2, 4)}
    for scale, source in sources.items():
        files.save(source, weights / f"mine-x{scale}.safetensors", dtype=torch.float32)
    keys: dict[str, Any] = {"network": "rcan", "scale": 4, "arguments": SMALL}
    for name, scale in (("mine", 4), ("mine-x2", 2), ("weights/mine-x2.safetensors", 2)):
        torch.manual_seed(7)
        made, said = make_network(parse_recipe({**keys, "warm_start": name}, "a test"), fresh=True)
        assert torch.equal(made.get_parameter("head.0.weight"), sources[scale].get_parameter("head.0.weight"))
        assert f"mine-x{scale}.safetensors: " in said[-1]
    torch.save(sources[2].state_dict(), tmp_path / "mine")  # a file comes first
    made, _ = make_network(parse_recipe({**keys, "warm_start": "mine"}, "a test"), fresh=True)
    assert torch.equal(made.get_parameter("head.0.weight"), sources[2].get_parameter("head.0.weight"))
    for name in ("mine-x3", "rcan-x5", "-x2", "n" * 300):
        with pytest.raises(UsageError, match="is not there, nor are weights of that name for x4"):
            make_network(parse_recipe({**keys, "warm_start": name}, "a test"), fresh=True)


def test_the_recipes_of_the_project_start_from_what_is_shipped() -> None:
    folder = Path(__file__).resolve().parents[2] / "recipes"
    found = {}
    for path in folder.glob("sa-rcan-light-*-x*.toml"):
        recipe = load(path)
        start = warm_start.find(recipe.warm_start, recipe.scale)
        assert start is not None, path
        found[path.stem] = start.stem
    before = {"jpeg": "", "noise": "-jpeg", "graphics": "", "perceptual": ""}
    wanted = {f"sa-rcan-light-{kind}-x{s}": f"sa-rcan-light{of}-x{s}" for kind, of in before.items() for s in (2, 3, 4)}
    assert found == wanted | {"sa-rcan-light-jpeg-x3": "sa-rcan-light-jpeg-x2"}


def test_a_foreign_file_tells_nothing_of_its_licence(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "w.pth")
    assert warm_start.origin(tmp_path / "w.pth") == {"file": "w.pth", "sha256": sha256(tmp_path / "w.pth")}
