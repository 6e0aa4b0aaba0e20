"""Names, shapes, counts and feature maps of the backbones."""

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from finescale.backbones import catalogue
from finescale.backbones.alexnet import AlexNet
from finescale.backbones.resnest import SplitAttention
from finescale.backbones.resnet import ResNet, ResNetEncoder
from finescale.backbones.squeezenet import SqueezeNet
from finescale.backbones.vgg import VGG, Depth, PictureVGG
from finescale.errors import FinescaleError, UsageError
from finescale.layers.statistics import StatisticsLayer

COUNTS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnext50_32x4d": 25_028_904,
    "resnest50": 27_483_240,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "squeezenet1_1": 1_235_496,
    "alexnet": 61_100_840,
}


def meta(name: str, *, classifier: bool = True) -> torch.nn.Module:
    with torch.device("meta"):
        return catalogue.build(name, classifier=classifier)


@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_parameter_counts(name: str, count: int) -> None:
    assert set(COUNTS) == set(catalogue.BACKBONES)
    assert sum(p.numel() for p in meta(name).parameters()) == count


@pytest.mark.parametrize(
    ("name", "key", "shape"),
    [
        ("resnet34", "layer2.0.downsample.0.weight", (128, 64, 1, 1)),
        ("resnet34", "layer4.2.conv2.weight", (512, 512, 3, 3)),
        ("resnet50", "layer1.0.downsample.1.running_var", (256,)),
        ("resnext50_32x4d", "layer1.0.conv2.weight", (128, 4, 3, 3)),
        ("resnest50", "conv1.6.weight", (64, 32, 3, 3)),
        ("resnest50", "layer1.0.downsample.1.weight", (256, 64, 1, 1)),
        ("resnest50", "layer2.0.conv2.conv.weight", (256, 64, 3, 3)),
        ("resnest50", "layer4.0.conv2.fc1.weight", (256, 512, 1, 1)),
        ("resnest50", "layer4.2.conv2.bn0.num_batches_tracked", ()),
        ("vgg16", "features.28.weight", (512, 512, 3, 3)),
        ("vgg19", "features.34.bias", (512,)),
        ("vgg19", "classifier.6.weight", (1000, 4096)),
        ("alexnet", "classifier.1.weight", (4096, 9216)),
    ],
)
def test_names_and_shapes_of_the_reference_releases(name: str, key: str, shape: tuple[int, ...]) -> None:
    assert tuple(meta(name).state_dict()[key].shape) == shape


@pytest.mark.parametrize(("name", "tensors"), [("resnet34", 218), ("resnet50", 320), ("resnext50_32x4d", 320)])
def test_number_of_tensors_in_the_state_dict(name: str, tensors: int) -> None:
    assert len(meta(name).state_dict()) == tensors


@pytest.mark.parametrize("name", [name for name in COUNTS if name.startswith("res")])
def test_encoder_gives_the_maps_it_promises(name: str) -> None:
    network = meta(name, classifier=False)
    assert isinstance(network, ResNet)
    encoder = ResNetEncoder(network).eval()
    maps = encoder(torch.empty(2, 3, 64, 48, device="meta"))
    shapes = [tuple(m.shape) for m in maps]
    assert shapes == [(2, c, 64 // s, 48 // s) for c, s in zip(encoder.channels, encoder.strides)]


def test_classifier_forward_of_every_backbone() -> None:
    for name in COUNTS:
        assert meta(name).eval()(torch.empty(1, 3, 224, 224, device="meta")).shape == (1, 1000)


def test_split_attention_with_a_window_larger_than_the_map_equals_the_whole() -> None:
    torch.manual_seed(0)
    network = catalogue.build("resnest50", classifier=False).eval()
    layer = network.get_submodule("layer1.0.conv2")
    assert isinstance(layer, StatisticsLayer)
    x = torch.rand(2, 64, 21, 17)
    with torch.no_grad():
        whole = layer(x)
        layer.window = 48
        large = layer(x)
        layer.window = 8
        local = layer(x)
    torch.testing.assert_close(large, whole, atol=1e-5, rtol=1e-5)
    assert (local - whole).abs().max() > 1e-3


def test_split_attention_step_by_step() -> None:
    """As in the authors' release: chunks of channels, their sum, its mean, two 1x1, softmax over the chunks."""
    torch.manual_seed(0)
    layer = SplitAttention(32).eval()
    for norm in (layer.bn0, layer.bn1):
        norm.weight.data.uniform_(0.5, 2)
        norm.bias.data.normal_()
        norm.running_mean.normal_()  # type: ignore[union-attr]
        norm.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    x = torch.randn(2, 32, 6, 7)
    with torch.no_grad():
        first, second = torch.relu(layer.bn0(layer.conv(x))).chunk(2, dim=1)
        logits = layer.fc2(torch.relu(layer.bn1(layer.fc1((first + second).mean((2, 3), keepdim=True)))))
        share = torch.exp(logits[:, :32]) / (torch.exp(logits[:, :32]) + torch.exp(logits[:, 32:]))
        torch.testing.assert_close(layer(x), share * first + (1 - share) * second, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [(10, 10), (9, 7)])
def test_a_resnest_bottleneck_pools_after_its_attention(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    block = catalogue.build("resnest50", classifier=False).eval().get_submodule("layer2.0")
    x = torch.randn(1, 256, *size)
    part = block.get_submodule
    assert not [key for key in block.state_dict() if key.startswith("downsample.0.")]
    with torch.no_grad():
        y = part("conv2")(torch.relu(part("bn1")(part("conv1")(x))))
        y = part("bn3")(part("conv3")(torch.nn.functional.avg_pool2d(y, 3, 2, 1)))
        shortcut = part("downsample.2")(part("downsample.1")(_means_of_squares(x)))
        torch.testing.assert_close(block(x), torch.relu(y + shortcut), atol=1e-5, rtol=1e-5)


def _means_of_squares(x: Tensor) -> Tensor:
    """Of 2 x 2, and of what is there at the ends of odd sides."""
    rows = [part.mean(2, keepdim=True) for part in x.split(2, 2)]
    return torch.cat([part.mean(3, keepdim=True) for part in torch.cat(rows, 2).split(2, 3)], 3)


@pytest.mark.parametrize("name", ["resnet18", "resnest50", "vgg16", "squeezenet1_1", "alexnet"])
def test_without_its_classifier_a_backbone_gives_features_alone(name: str) -> None:
    network = meta(name, classifier=False).eval()
    x = torch.empty(1, 3, 64, 64, device="meta")
    with pytest.raises(UsageError, match=r"was built without its classifier; maps\(x\) gives features"):
        network(x)
    assert isinstance(network, ResNet | VGG | SqueezeNet | AlexNet)
    assert len(network.maps(x)) == (7 if name == "squeezenet1_1" else 5)


def test_maps_of_a_resnet_are_stem_and_layers_without_the_max_pool() -> None:
    torch.manual_seed(0)
    network = catalogue.build("resnet18", classifier=False).eval()
    assert isinstance(network, ResNet)
    x = torch.randn(1, 3, 32, 48)
    part = network.get_submodule
    with torch.no_grad():
        expected = [torch.relu(part("bn1")(part("conv1")(x)))]
        for number in (1, 2, 3, 4):
            expected.append(part(f"layer{number}")(expected[-1]))
        torch.testing.assert_close(network.maps(x), expected)


@pytest.mark.parametrize(
    ("depth", "indices"),
    [
        (16, {"relu1_2": 3, "relu2_2": 8, "relu3_3": 15, "relu4_3": 22, "relu5_3": 29}),
        (19, {"relu1_2": 3, "relu2_2": 8, "relu3_3": 15, "relu3_4": 17, "relu4_3": 24, "relu4_4": 26, "relu5_4": 35}),
    ],
)
def test_vgg_names_are_of_the_published_layers(depth: Depth, indices: dict[str, int]) -> None:
    with torch.device("meta"):
        vgg = VGG(depth, classifier=False)
    assert {name: vgg.names[name] for name in indices} == indices
    assert len(vgg.names) == depth - 3  # convolutions
    assert all(isinstance(vgg.features[index], torch.nn.ReLU) for index in vgg.names.values())


def test_vgg_maps_by_name() -> None:
    torch.manual_seed(0)
    vgg = PictureVGG(VGG(16, classifier=False))
    x = torch.rand(1, 3, 32, 32)
    maps = vgg.maps(x, ["relu1_2", "relu2_2", "relu3_3", "relu4_3"])
    mean, deviation = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    layers, normal = vgg.network.features, (x - mean) / deviation
    torch.testing.assert_close(maps, [layers[: index + 1](normal) for index in (3, 8, 15, 22)])
    assert [(m.shape[1], m.shape[2]) for m in maps] == [(64, 32), (128, 16), (256, 8), (512, 4)]
    assert all(m.detach().min() >= 0 for m in maps)
    stages = vgg.maps(x)
    assert torch.equal(stages[2], maps[2])
    assert [(m.shape[1], m.shape[2]) for m in stages] == [(64, 32), (128, 16), (256, 8), (512, 4), (512, 2)]
    with pytest.raises(UsageError, match="relu3_4'; did you mean"):
        vgg.maps(x, ["relu3_4"])


def test_published_file_names_carry_a_hash() -> None:
    for entry in catalogue.BACKBONES.values():
        assert re.fullmatch("[0-9a-f]{8}", entry.hash_prefix)


def test_weights_are_found_and_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("FINESCALE_WEIGHTS", str(tmp_path))
    assert catalogue.find("squeezenet1_1") is None
    with pytest.raises(FinescaleError, match=r"no squeezenet1_1 weights .*squeezenet1_1-b8a52dc0.pth"):
        catalogue.load("squeezenet1_1")
    network = catalogue.build("squeezenet1_1")
    torch.save(network.state_dict(), tmp_path / "squeezenet1_1.pth")
    loaded = catalogue.load("squeezenet1_1")
    expected: Tensor = network.state_dict()["features.3.squeeze.weight"]
    assert torch.equal(loaded.state_dict()["features.3.squeeze.weight"], expected)
    torch.save(network.state_dict(), tmp_path / "squeezenet1_1-b8a52dc0.pth")
    with pytest.raises(FinescaleError, match="does not start with b8a52dc0"):
        catalogue.find("squeezenet1_1")


def test_bad_weight_files_are_one_sentence(tmp_path: Path) -> None:
    text = tmp_path / "a.pth"
    text.write_text("not weights")
    with pytest.raises(FinescaleError, match="not a readable weight file"):
        catalogue.load("alexnet", text)
    text.write_bytes(b"")
    with pytest.raises(FinescaleError, match="not a readable weight file"):
        catalogue.load("alexnet", text)
    other = tmp_path / "b.pth"
    torch.save({"x": torch.zeros(1)}, other)
    with pytest.raises(FinescaleError, match="do not fit squeezenet1_1"):
        catalogue.load("squeezenet1_1", other)
    with pytest.raises(FinescaleError, match="there is no such weight file"):
        catalogue.load("alexnet", tmp_path / "c.pth")
    with pytest.raises(UsageError, match="did you mean 'resnet34'"):
        catalogue.build("resnet43")


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("key", [None, "params_ema", "params", "state_dict", "model"])
def test_state_dicts_are_taken_out_of_what_training_programs_save(tmp_path: Path, key: str | None, prefix: str) -> None:
    state = {"head.weight": torch.rand(2, 3), "head.bias": torch.rand(2)}
    saved = {prefix + name: value for name, value in state.items()}
    torch.save({key: saved, "epoch": 3, "optimizer": {"lr": 0.1}} if key else saved, tmp_path / "w.pth")
    found = catalogue.read_state(tmp_path / "w.pth")
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], value) for name, value in state.items())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            {"params": {"a": torch.zeros(1)}, "params_ema": {"a": torch.ones(1)}},
            r"holds several state dicts \(params_ema, params\); save",
        ),
        (
            {"net": {"a": torch.zeros(1)}, "model": {}, "epoch": 3},
            r"not a state dict .*its keys are: net, model, epoch$",
        ),
        ([torch.zeros(1)], r"not a state dict \(a mapping from names to tensors\)$"),
    ],
)
def test_what_holds_several_state_dicts_or_none_is_refused(tmp_path: Path, content: object, reason: str) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(FinescaleError, match=rf"w\.pth: {reason}"):
        catalogue.read_state(tmp_path / "w.pth")
