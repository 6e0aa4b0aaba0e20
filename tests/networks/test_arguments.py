"""Arguments of networks: what is wrong with them is one sentence that names the key."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from finescale.errors import UsageError
from finescale.networks.base import Config, Network
from finescale.networks.catalogue import NETWORKS, Entry, architecture, build, construct

TINY = {"encoder": "plain", "widths": (8, 8, 8, 8, 8), "blocks": (1, 1, 1, 1), "head": 4, "input_skip": 4}


@pytest.mark.parametrize(
    ("name", "key", "value", "said"),
    [
        ("unet-9", "global_residual", "false", "should be a valid boolean, not 'false'"),
        ("unet-9", "global_residual", 1, "should be a valid boolean, not 1"),
        ("unet-9", "channel_reduction", -3, "should be greater than 0, not -3"),
        ("unet-9", "head", 4.0, "should be a valid integer, not 4.0"),
        ("unet-9", "head", True, "should be a valid integer, not True"),
        ("unet-9", "blocks", 3, "should be a valid array, not 3"),
        ("unet-9", "blocks", [1, 2], "should have at least 4 items, not 2"),
        ("unet-9", "widths", (8, 8), "should have at least 5 items, not 2"),
        ("unet-9", "activation", 3, "should be a valid string, not 3"),
        ("unet-9", "activation", "mishh", "there is no activation 'mishh'; did you mean 'mish'?"),
        (
            "unet-9",
            "norm",
            "instnce",
            "should be 'batch', 'instance', 'spectral' or 'none', not 'instnce'; did you mean 'instance'?",
        ),
        ("unet-9", "norm", "layer", "should be 'batch', 'instance', 'spectral' or 'none', not 'layer'"),
        ("unet-9", "norm", 3, "should be 'batch', 'instance', 'spectral' or 'none', not 3"),
        (
            "unet-9",
            "attention",
            "spacial",
            "should be 'channel', 'spatial' or 'both', not 'spacial'; did you mean 'spatial'?",
        ),
        ("unet-9", "chanel_reduction", 8, "UNet has no argument 'chanel_reduction'; did you mean 'channel_reduction'?"),
        ("rcan", "channels", "wide", "should be a valid integer, not 'wide'"),
        ("rcan", "groups", 0, "should be greater than 0, not 0"),
        ("rcan", "tail", "clasic", "should be 'classic' or 'direct', not 'clasic'; did you mean 'classic'?"),
        ("rcan", "value_range", 0, "should be greater than 0, not 0"),
        ("rcan", "value_range", float("nan"), "should be a finite number, not nan"),
        ("rcan", "name", "x", "RCAN has no argument 'name'"),
        ("edsr", "residual_factor", "small", "should be a valid number, not 'small'"),
        ("srcnn", "channels", [8, 8, 8], "should have at most 2 items, not 3"),
        ("unet-9", "head", [4], "should be a valid integer, not [4]"),
        ("bicubic", "channels", 8, "Bicubic has no argument 'channels'"),
    ],
)
def test_the_sentence(name: str, key: str, value: object, said: str) -> None:
    with pytest.raises(UsageError) as raised:
        build(name, **{"scale": 2, key: value})  # type: ignore[arg-type]
    assert str(raised.value) == f"{name}: arguments.{key}: {said}"


@pytest.mark.parametrize(
    ("name", "key", "value", "said"),
    [
        ("unet-9", "attention_pools", [2, -1, 2, 2], "attention_pools.1: should be greater than 0, not -1"),
        ("unet-9", "blocks", [1, 1, 1, "a"], "blocks.3: should be a valid integer, not 'a'"),
        ("srcnn", "channels", [8], "channels.1: is missing"),
        ("srcnn", "kernels", [9, 4, 5], "kernels.1: should be odd, not 4"),
    ],
)
def test_one_of_several_values_is_named(name: str, key: str, value: object, said: str) -> None:
    with pytest.raises(UsageError) as raised:
        build(name, scale=2, **{key: value})
    assert str(raised.value) == f"{name}: arguments.{said}"


@pytest.mark.parametrize("scale", [2.0, "2", True, 5])
def test_the_scale_is_a_key_of_its_own(scale: object) -> None:
    with pytest.raises(UsageError, match=r"^rcan: scale:? (should|must) be .*, not "):
        build("rcan", scale=scale)  # type: ignore[arg-type]


def test_lists_and_whole_numbers_are_taken_where_tuples_and_numbers_are_wanted() -> None:
    lists = {key: list(value) if isinstance(value, tuple) else value for key, value in TINY.items()}
    network = build("unet-2", scale=2, **lists)
    assert network.config is not None
    assert network.config.arguments["widths"] == (8, 8, 8, 8, 8)
    again = build("edsr-baseline", scale=2, channels=4, blocks=1, value_range=255)
    assert again.config is not None
    assert type(again.config.arguments["value_range"]) is float
    odd = build("edsr-baseline", scale=int(np.int64(2)), channels=np.int64(4), blocks=1)
    assert odd.config is not None
    assert type(odd.config.arguments["channels"]) is int


@pytest.mark.parametrize("name", ["bicubic", "srcnn", "edsr-baseline", "sa-rcan-light", "unet-9"])
def test_what_a_weight_file_says_builds_the_same_again(name: str) -> None:
    network = build(name, scale=2, **(TINY if name.startswith("unet") else {}))
    config = network.config
    assert config is not None
    arguments = json.loads(json.dumps(config.arguments))
    kind = architecture(name, config.architecture)
    assert kind is not None
    again = construct(name, kind, arguments)
    assert again.config == config
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in network.state_dict().items()}


class Own(Network):
    """A network of a program's own, some of whose arguments have no types."""

    def __init__(  # type: ignore  # noqa: ANN204
        self,
        scale,  # noqa
        widths: list[int] | None = [4],  # noqa: B006
        stages: tuple[tuple[int, int], ...] = ((2, 4), (3, 4)),
        norm=None,  # noqa
        factor=None,  # noqa
    ):
        super().__init__(scale=scale)
        assert type(stages) is tuple
        assert all(type(stage) is tuple for stage in stages)
        self.layer = nn.Conv2d(3, 3 * (factor or scale) ** 2, 1)

    def enlarge(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.layer(x), round((self.layer.out_channels // 3) ** 0.5))


def test_a_network_of_ones_own_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS, "own", Entry(Own, "of a program's own"))
    network = build("own", scale=2, widths=[3, 3], norm="batch")
    arguments = {"widths": [3, 3], "stages": ((2, 4), (3, 4)), "norm": "batch", "factor": None}
    assert network.config == Config("own", "Own", {"scale": 2, **arguments})
    assert construct("own", Own, json.loads(json.dumps(network.config.arguments))).config == network.config
    with pytest.raises(UsageError, match="own: scale: is missing"):
        construct("own", Own, {})
    assert network(torch.rand(1, 3, 5, 4)).shape == (1, 3, 10, 8)
    with pytest.raises(UsageError, match=r"own: arguments\.norm: no weight file could tell <class .*BatchNorm2d'>"):
        build("own", scale=2, norm=nn.BatchNorm2d)
    with pytest.raises(ValueError, match=r"Own\.enlarge should give \(1, 3, 10, 8\), not \(1, 3, 15, 12\)"):
        build("own", scale=2, factor=3)(torch.rand(1, 3, 5, 4))


def test_the_catalogue_itself_has_right_arguments() -> None:
    from finescale.networks.arguments import checked

    for name, entry in NETWORKS.items():
        right = checked(entry.architecture, {**entry.arguments, "scale": 2})
        assert {key: right[key] for key in entry.arguments} == entry.arguments, name
