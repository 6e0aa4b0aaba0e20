"""U-Nets: what they are made of and how they behave."""

from typing import TypeVar

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from finescale.backbones import catalogue as backbones
from finescale.errors import UsageError
from finescale.layers.activation import ACTIVATIONS
from finescale.layers.attention import ChannelAttention, SelfAttention
from finescale.layers.initialisation import INITIALISATIONS
from finescale.layers.norm import NORMS, InstanceNorm, Norm
from finescale.layers.statistics import StatisticsLayer, localise
from finescale.layers.upsampling import UPSAMPLINGS
from finescale.networks.catalogue import NETWORKS, build
from finescale.networks.complexity import count
from finescale.networks.unet import AttentionOptions, DenseBlock, ResidualBlock, UNet

Block = TypeVar("Block", ResidualBlock, DenseBlock)
TINY = {"widths": (32, 16, 16, 8, 8), "blocks": (1, 2, 1, 1), "head": 8, "input_skip": 4}


def tiny(name: str = "unet-2", *, scale: int = 2, **options: object) -> UNet:
    torch.manual_seed(0)
    network = build(name, scale=scale, **{"encoder": "plain", **TINY, **options})
    assert isinstance(network, UNet)
    return network


ARCHITECTURES = {
    "unet-1": ("resnet34", ResidualBlock, 0, 0),
    "unet-2": ("resnet34", DenseBlock, 0, 0),
    "unet-3": ("resnet50", ResidualBlock, 0, 0),
    "unet-4": ("resnet50", DenseBlock, 0, 0),
    "unet-5": ("resnext50_32x4d", ResidualBlock, 0, 0),
    "unet-6": ("resnext50_32x4d", DenseBlock, 0, 0),
    "unet-7": ("resnet34", DenseBlock, 16, 0),
    "unet-8": ("resnet34", DenseBlock, 0, 16),
    "unet-9": ("resnet34", DenseBlock, 16, 16),
    "unet-10": ("resnest50", ResidualBlock, 0, 0),
    "unet-11": ("resnest50", DenseBlock, 0, 0),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_numbered_architectures(name: str) -> None:
    encoder, block, channel, spatial = ARCHITECTURES[name]
    with torch.device("cpu" if spatial else "meta"):  # power iterations of spectral norms are slow on the meta device
        network = build(name, scale=4)
    assert isinstance(network, UNet)
    modules = list(network.modules())
    assert sum(isinstance(m, block) for m in modules) == 3 + 6 + 4 + 3
    assert sum(isinstance(m, ChannelAttention) for m in modules) == channel
    assert sum(isinstance(m, SelfAttention) for m in modules) == spatial
    with torch.device("meta"):
        body = sum(p.numel() for p in backbones.build(encoder, classifier=False).parameters())
    assert sum(p.numel() for p in network.encoder.parameters()) == body
    price = count(network.to("meta"))
    if encoder == "resnet34":
        assert body == 21_284_672
        assert 32.5e6 < price.parameters < 39e6
        assert 3e9 < price.macs < 4.2e9
    else:
        assert 35e6 < price.parameters < 44e6


def test_every_unet_has_a_line_in_the_catalogue() -> None:
    assert {name for name in NETWORKS if name.startswith("unet-")} == set(ARCHITECTURES)
    assert build("sr-resunet", scale=2, encoder="plain", **TINY).config.name == "unet-2"  # type: ignore[union-attr]
    assert build("attentive-sr-resunet", scale=2, encoder="plain", **TINY).config.name == "unet-9"  # type: ignore[union-attr]


@pytest.mark.parametrize("encoder", ["resnet18", "resnest50"])
def test_resnet_encoders_run_at_any_size(encoder: str) -> None:
    network = tiny(encoder=encoder).eval()
    with torch.no_grad():
        for window in (None, 48):
            localise(network, window)
            assert network(torch.rand(1, 3, 5, 20)).shape == (1, 3, 10, 40)


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("norm", NORMS),
        ("activation", tuple(ACTIVATIONS)),
        ("upsampling", UPSAMPLINGS),
        ("initialisation", INITIALISATIONS),
        ("decoder", ("plain", "residual", "dense")),
        ("attention", (None, "channel", "spatial", "both")),
        ("global_residual", (True, False)),
    ],
)
def test_every_choice_by_name_trains(option: str, values: tuple[object, ...]) -> None:
    x, target = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 32, 32)
    for value in values:
        network = tiny(**{option: value})  # type: ignore[arg-type]
        loss = (network(x) - target).abs().mean()
        loss.backward()
        assert loss.isfinite()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, f"{value}: {name}"
            assert parameter.grad.isfinite().all(), f"{value}: {name}"


@pytest.mark.parametrize("encoder", ["plain", "resnet18"])
@pytest.mark.parametrize("attention", ["channel", "spatial", "both"])
@pytest.mark.parametrize(("decoder", "places"), [("plain", 4), ("residual", 5), ("dense", 5)])
def test_any_decoder_has_attention_at_the_end_of_its_blocks(
    decoder: str, places: int, attention: str, encoder: str
) -> None:
    network = tiny(decoder=decoder, attention=attention, encoder=encoder, channel_reduction=4)
    found = [m for m in network.modules() if isinstance(m, ChannelAttention | SelfAttention)]
    assert sum(isinstance(m, ChannelAttention) for m in found) == (places if attention != "spatial" else 0)
    spatial = [m for m in found if isinstance(m, SelfAttention)]
    assert len(spatial) == (places if attention != "channel" else 0)
    pools = (2, 2, 2, 2, 4) if decoder != "plain" else (2, 2, 2, 4)
    assert [m.pool for m in spatial] == (list(pools) if spatial else [])
    assert {m.stride for m in found} == {1, 2, 4, 8}
    network(torch.rand(2, 3, 16, 16)).mean().backward()
    for layer in found:
        for name, parameter in layer.named_parameters():
            assert parameter.grad is not None, name
    for layer in spatial:
        assert layer.gamma.grad is not None
        assert layer.gamma.grad.abs() > 0  # its output reaches the picture


def attentive(kind: type[Block], norm: Norm) -> tuple[Block, ChannelAttention, SelfAttention, torch.Tensor]:
    """A block with both kinds of attention switched on, these two, and an input for it."""
    torch.manual_seed(0)
    block = kind(8, norm=norm, activation="relu", attention=AttentionOptions("both", 4, 1)).eval()
    assert block.channel is not None
    assert block.spatial is not None
    block.spatial.gamma.data.fill_(0.5)
    return block, block.channel, block.spatial, torch.randn(1, 8, 6, 6)


def test_attention_ends_a_residual_block_before_its_skip() -> None:
    block, channel, spatial, x = attentive(ResidualBlock, "none")
    y = block.body(x)
    y = y + channel(y)
    torch.testing.assert_close(block(x), torch.relu(x + spatial(y)))


def test_a_dense_block_adds_all_earlier_outputs() -> None:
    block, channel, spatial, x = attentive(DenseBlock, "instance")
    first, second, third = block.units
    a = first(x)
    b = second(x + a)
    c = third(x + a + b)
    c = c + channel(c)
    torch.testing.assert_close(block(x), spatial(c) + x)


def test_how_encoder_decoder_and_head_are_joined() -> None:
    network = tiny(encoder="resnet18").eval()
    x = torch.rand(1, 3, 32, 48)
    mean, deviation = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    seen: list[torch.Tensor] = []
    network.encoder.register_forward_pre_hook(lambda _, inputs: seen.extend(inputs))
    with torch.no_grad():
        y = network(x)
        (normal,) = seen
        torch.testing.assert_close(normal, (x - mean) / deviation)
        assert network.input_skip is not None
        assert network.bicubic is not None
        maps = [network.input_skip(normal), *network.encoder(normal)]  # stem and layers: H, H/2, H/2, H/4, H/8, H/16
        features = network.decoder.deepest(maps[5])
        for stage, index in zip(network.decoder.stages, (4, 3, 2, 0), strict=True):
            part = stage.get_submodule
            features = part("blocks")(torch.cat([part("enlarge")(features), part("project")(maps[index])], dim=1))
        off = network.output_scale * network.output(network.head(features))
        torch.testing.assert_close(y, off + network.bicubic(x))


@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
def test_the_norm_of_self_attention_is_a_choice(norm: str) -> None:
    network = tiny(attention="spatial", attention_norm=norm)
    layers = [m for m in network.modules() if isinstance(m, SelfAttention)]
    assert layers
    for layer in layers:
        assert not any(parametrize.is_parametrized(part) for part in layer.modules())
        kinds = {type(part) for part in layer.modules()} & {nn.BatchNorm2d, InstanceNorm}
        assert kinds == {"batch": {nn.BatchNorm2d}, "instance": {InstanceNorm}, "none": set()}[norm]


def test_self_attention_is_spectrally_normalised_throughout() -> None:
    for layer in (m for m in tiny("unet-9").modules() if isinstance(m, SelfAttention)):
        for convolution in (layer.query, layer.key, layer.value, layer.output):
            assert parametrize.is_parametrized(convolution, "weight")


def test_layers_know_their_resolution() -> None:
    network = tiny("unet-9", encoder="resnest50")
    localise(network, 48)
    strides = {m.stride for m in network.encoder.modules() if isinstance(m, StatisticsLayer)}
    assert strides == {2, 4, 8, 16}
    # the first block of a layer attends before it shrinks its maps
    assert network.encoder.get_submodule("network.layer2.0.conv2").stride == 2
    assert network.encoder.get_submodule("network.layer4.1.conv2").stride == 16
    for stage, stride in zip(network.decoder.stages, (8, 4, 2, 1), strict=True):
        for layer in stage.modules():
            if isinstance(layer, StatisticsLayer):
                assert layer.stride == stride
                assert layer.window == 48 // stride
    plain = tiny()
    assert [m.stride for m in plain.encoder.modules() if isinstance(m, InstanceNorm)] == [
        1,
        1,
        2,
        2,
        4,
        4,
        8,
        8,
        16,
        16,
    ]


def test_an_aligned_tile_equals_the_whole_far_from_its_border() -> None:
    network = tiny("unet-9", blocks=(1, 1, 1, 1)).double().eval()
    for module in network.modules():
        if isinstance(module, SelfAttention):
            module.gamma.data.fill_(0.5)
    localise(network, 48)
    x = torch.rand(1, 3, 48, 48 * 16, dtype=torch.float64)
    with torch.no_grad():
        whole = network(x)
        tile = network(x[..., 48 * 2 :])
    difference = (tile - whole[..., 2 * 48 * 2 :]).abs()
    assert difference[..., 2 * 48 * 10 :].max() < 1e-4 * whole.std()  # what is left of ten windows away
    assert difference[..., : 2 * 48].max() > 100 * difference[..., 2 * 48 * 10 :].max()


def test_without_a_global_residual_colours_are_turned_back() -> None:
    network = tiny(global_residual=False)
    nn.init.zeros_(network.output.weight)
    y = network(torch.rand(1, 3, 16, 16))
    torch.testing.assert_close(y.mean((0, 2, 3)), torch.tensor([0.485, 0.456, 0.406]))


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize(
    "options",
    [
        {},
        pytest.param({"decoder": "residual"}, marks=pytest.mark.slow),
        pytest.param({"attention": "both"}, marks=pytest.mark.slow),
        pytest.param({"norm": "batch"}, marks=pytest.mark.slow),
        pytest.param({"norm": "none"}, marks=pytest.mark.slow),
        pytest.param({"activation": "maxout"}, marks=pytest.mark.slow),  # which has weights of its own
        {"activation": "maxout", "norm": "none", "encoder": "plain"},
    ],
)
def test_training_starts_near_bicubic_enlargement(scale: int, options: dict[str, str]) -> None:
    torch.manual_seed(0)
    network = build("unet-2", scale=scale, **options).train()
    assert isinstance(network, UNet)
    assert network.bicubic is not None
    x = torch.rand(2, 3, 32, 32)
    before = network(x)
    off = (before - network.bicubic(x)).abs().mean().item()
    assert 1e-4 < off < 0.03  # of white; with weights as Kaiming starts them it was 1.8
    optimiser = torch.optim.Adam(network.parameters(), lr=5e-4)
    before.abs().mean().backward()
    optimiser.step()
    with torch.no_grad():
        moved = (network(x) - before).abs().mean().item()
    # the first step, too (0.7 of white it was): what changes as much as that learns to switch its head off
    assert moved < (0.3 if options.get("norm") == "none" else 0.03)


def test_encoder_takes_the_weights_of_its_classifier() -> None:
    network = tiny(encoder="resnet18")
    classifier = backbones.build("resnet18")
    network.load_encoder(classifier.state_dict())
    loaded = network.encoder.state_dict()["network.layer3.1.conv2.weight"]
    assert torch.equal(loaded, classifier.state_dict()["layer3.1.conv2.weight"])
    with pytest.raises(UsageError, match=r"do not fit the encoder resnet18 \(Missing key.{1,160}\)$"):
        network.load_encoder(backbones.build("squeezenet1_1").state_dict())
    with pytest.raises(UsageError, match="no published weights"):
        tiny().load_encoder({})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder": "resnet43"}, "encoder: should be .* not 'resnet43'; did you mean 'resnet34'"),
        ({"decoder": "densed"}, "did you mean 'dense'"),
        ({"upsampling": "shuffle"}, "upsampling: should be .* not 'shuffle'"),
        ({"initialisation": "he"}, "initialisation: should be .* not 'he'"),
    ],
)
def test_wrong_arguments_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build("unet-2", **{"scale": 2, "encoder": "plain", **TINY, **options})  # type: ignore[arg-type]
