"""The authors' file layouts of RCAN, EDSR and ESRGAN, written out by hand."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

import finescale
from finescale.atomic import sha256
from finescale.cli.main import main
from finescale.errors import FinescaleError, UsageError
from finescale.networks.catalogue import build
from finescale.training import warm_start
from finescale.weights.header import read_header
from finescale.weights.official import load_official

Shapes = dict[str, tuple[int, ...]]
MEAN = torch.tensor([0.4488, 0.4371, 0.4040])


def convolution(name: str, c_out: int, c_in: int, kernel: int) -> Shapes:
    return {f"{name}.weight": (c_out, c_in, kernel, kernel), f"{name}.bias": (c_out,)}


def around(channels: int, scale: int) -> Shapes:
    """What both layouts share: mean shifts, head, tail."""
    shapes = convolution("sub_mean", 3, 3, 1) | convolution("add_mean", 3, 3, 1) | convolution("head.0", channels, 3, 3)
    step = {2: 2, 3: 3, 4: 2}[scale]
    for index in (0, 2) if scale == 4 else (0,):
        shapes |= convolution(f"tail.0.{index}", channels * step**2, channels, 3)
    return shapes | convolution("tail.1", 3, channels, 3)


def rcan(scale: int) -> Shapes:
    shapes = around(64, scale)
    for group in range(10):
        for block in range(20):
            name = f"body.{group}.body.{block}.body"
            shapes |= convolution(f"{name}.0", 64, 64, 3) | convolution(f"{name}.2", 64, 64, 3)
            shapes |= convolution(f"{name}.3.conv_du.0", 4, 64, 1) | convolution(f"{name}.3.conv_du.2", 64, 4, 1)
        shapes |= convolution(f"body.{group}.body.20", 64, 64, 3)
    return shapes | convolution("body.10", 64, 64, 3)


def edsr(scale: int, channels: int, blocks: int) -> Shapes:
    shapes = around(channels, scale)
    for block in range(blocks):
        shapes |= convolution(f"body.{block}.body.0", channels, channels, 3)
        shapes |= convolution(f"body.{block}.body.2", channels, channels, 3)
    return shapes | convolution(f"body.{blocks}", channels, channels, 3)


LAYOUTS = {
    ("rcan", 2): rcan(2),
    ("rcan", 3): rcan(3),
    ("rcan", 4): rcan(4),
    ("edsr-baseline", 2): edsr(2, 64, 16),
    ("edsr-baseline", 4): edsr(4, 64, 16),
    ("edsr", 3): edsr(3, 256, 32),
}


def official(name: str, scale: int, value_range: float = 255.0) -> dict[str, Tensor]:
    torch.manual_seed(0)
    state = {key: 0.01 * torch.randn(shape) for key, shape in LAYOUTS[name, scale].items()}
    for key, sign in (("sub_mean", -1), ("add_mean", 1)):
        state[f"{key}.weight"] = torch.eye(3).reshape(3, 3, 1, 1)
        state[f"{key}.bias"] = sign * value_range * MEAN
    return state


@pytest.mark.parametrize(("name", "scale"), LAYOUTS)
def test_names_and_shapes_are_the_authors(name: str, scale: int) -> None:
    with torch.device("meta"):
        network = build(name, scale=scale)
    assert {key: tuple(value.shape) for key, value in network.state_dict().items()} == LAYOUTS[name, scale]


def test_counts_of_the_published_files() -> None:
    assert sum(torch.Size(s).numel() for s in LAYOUTS["rcan", 4].values()) == 15_592_355 + 24


@pytest.mark.parametrize("value_range", [255.0, 1.0])
def test_the_inner_range_is_read_from_the_file(value_range: float, tmp_path: Path) -> None:
    state = official("edsr-baseline", 2, value_range)
    path = tmp_path / "edsr_baseline_x2.pt"
    torch.save(state, path)
    network = load_official(path, "edsr-baseline", 2)
    assert network.config is not None
    assert network.config.arguments["value_range"] == value_range
    assert not network.training
    for key, value in network.state_dict().items():
        assert torch.equal(value, state[key])


def test_a_converted_file_is_one_that_every_command_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs, ours = tmp_path / "edsr_baseline_x2.pt", str(tmp_path / "edsr-x2.safetensors")
    torch.save(official("edsr-baseline", 2), theirs)
    assert main(["upscale", str(theirs), "--network", str(theirs)]) == 1
    assert "finescale convert" in capsys.readouterr().err
    command = ["convert", str(theirs), "edsr-baseline", "--scale", "2", "-o", ours, "--licence", "MIT"]
    assert main(command) == 0
    network = finescale.load(ours)
    for key, value in load_official(theirs, "edsr-baseline", 2).state_dict().items():
        assert torch.equal(network.state_dict()[key], value), key
    notes = read_header(Path(ours)).notes
    assert notes["licence"] == "MIT"
    assert notes["converted"]["sha256"] == sha256(theirs)
    Image.new("RGB", (9, 7), (50, 100, 200)).save(tmp_path / "a.png")
    assert main(["upscale", str(tmp_path / "a.png"), "--scale", "2", "--network", ours]) == 0
    assert Image.open(tmp_path / "a_x2.png").size == (18, 14)
    capsys.readouterr()
    for arguments, code, sentence in [
        (command, 1, "already exists"),
        (["convert", str(theirs), "sa-rcan", "--scale", "2", "-o", str(tmp_path / "b.safetensors")], 2, "no official"),
        (["convert", str(theirs), "rcan", "--scale", "2", "-o", str(tmp_path / "b.safetensors")], 1, "do not fit"),
        (["convert", ours, "edsr-baseline", "--scale", "2", "-o", str(tmp_path / "b.onnx")], 2, "end in .safetensors"),
        (["convert", "none.pt", "rcan", "--scale", "2", "-o", str(tmp_path / "b.safetensors")], 1, "no such file"),
    ]:
        assert main(arguments) == code
        assert sentence in capsys.readouterr().err
    assert not list(tmp_path.glob("b.*"))


def test_mean_shifts_of_a_file_are_used_and_never_trained() -> None:
    state = official("edsr-baseline", 2)
    for key in state:
        if key.startswith("tail.1"):
            state[key].zero_()
    network = load_official(state, "edsr-baseline", 2)
    y = network(torch.rand(1, 3, 4, 4))
    torch.testing.assert_close(y[0, :, 0, 0], MEAN)
    assert not any("mean" in name for name, _ in network.named_parameters())


def by_the_authors(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """Their EDSR baseline at x2, of pictures in [0, 255]; its mean shifts are convolutions."""

    def convolved(name: str, x: Tensor) -> Tensor:
        weight = state[f"{name}.weight"].double()
        return F.conv2d(x, weight, state[f"{name}.bias"].double(), padding=weight.shape[-1] // 2)

    head = features = convolved("head.0", convolved("sub_mean", x))
    for block in range(16):
        name = f"body.{block}.body"
        features = features + convolved(f"{name}.2", convolved(f"{name}.0", features).relu())
    features = convolved("body.16", features) + head
    return convolved("add_mean", convolved("tail.1", F.pixel_shuffle(convolved("tail.0.0", features), 2)))


DRIFT = 0.03 * torch.tensor([[1.0, -2.0, 3.0], [2.0, -1.0, 0.0], [-3.0, 1.0, 2.0]])


@pytest.mark.parametrize("part", ["sub_mean", "add_mean"])
@pytest.mark.parametrize("weight", [torch.eye(3) / 0.5, torch.eye(3).flip(0), torch.eye(3) + DRIFT])
def test_what_shifts_do_to_colours_is_kept(part: str, weight: Tensor, tmp_path: Path) -> None:
    state = official("edsr-baseline", 2)
    drift = torch.tensor([1.02, 0.97, 1.01])  # RCAN's code trains weights and biases of its shifts
    for name in ("sub_mean", "add_mean"):
        state[f"{name}.bias"] = drift * state[f"{name}.bias"]
    state[f"{part}.weight"] = weight.reshape(3, 3, 1, 1)
    if part == "sub_mean":
        state["sub_mean.bias"] = weight @ state["sub_mean.bias"]
    x = torch.rand(1, 3, 6, 5, dtype=torch.float64)
    torch.save(state, tmp_path / "theirs.pt")
    network, started = load_official(state, "edsr-baseline", 2), build("edsr-baseline", scale=2, value_range=255)
    warm_start.apply(started, warm_start.read(tmp_path / "theirs.pt"))
    for one in (network, started):
        with torch.no_grad():
            y = one.double()(x)
        torch.testing.assert_close(y, by_the_authors(state, 255 * x) / 255, atol=1e-5, rtol=0)


def test_a_shift_that_cannot_be_undone_is_refused() -> None:
    state = official("edsr-baseline", 2) | {"sub_mean.weight": torch.full((3, 3, 1, 1), 1 / 3)}
    with pytest.raises(FinescaleError, match=r"^these weights: sub_mean\.weight mixes colours in a way that cannot"):
        load_official(state, "edsr-baseline", 2)


@pytest.mark.parametrize(
    "shift",
    [
        -255 * torch.tensor([0.4488, 0.4371, 0.2]),  # the first channels alone would do
        -127 * MEAN,
        255 * MEAN,
        torch.zeros(3),
        torch.full((3,), torch.nan),
    ],
)
def test_a_shift_by_other_colours_is_refused(shift: Tensor) -> None:
    state = official("edsr-baseline", 2) | {"sub_mean.bias": shift}
    with pytest.raises(FinescaleError, match=r"^these weights: its mean shift \(.*\) is not about DIV2K's mean"):
        load_official(state, "edsr-baseline", 2)


def test_a_shift_in_half_precision_is_taken() -> None:
    state = official("edsr-baseline", 2) | {"sub_mean.bias": (-255 * MEAN).half()}
    network = load_official(state, "edsr-baseline", 2)
    assert torch.equal(network.get_buffer("sub_mean.bias"), state["sub_mean.bias"].float())


def test_what_does_not_fit_is_one_sentence() -> None:
    state = official("edsr-baseline", 2)
    with pytest.raises(FinescaleError, match="do not fit edsr-baseline x4"):
        load_official(state, "edsr-baseline", 4)
    del state["sub_mean.bias"]
    with pytest.raises(FinescaleError, match="no mean shift"):
        load_official(state, "edsr-baseline", 2)
    with pytest.raises(UsageError, match="no official files for 'sa-rcan'"):
        load_official(state, "sa-rcan", 2)


def basicsr(channels: int, conv_names: list[str], scale: int) -> dict[str, Tensor]:
    """Weights by BasicSR's names: those of its convolutions of 3 x 3, between the first and the last ones."""
    torch.manual_seed(1)
    step = {2: 4, 3: 9, 4: 4}[scale]
    shapes = convolution("conv_first", channels, 3, 3) | convolution("conv_last", 3, channels, 3)
    for name in (*conv_names, "conv_after_body"):
        shapes |= convolution(name, channels, channels, 3)
    for index in (0, 2) if scale == 4 else (0,):
        shapes |= convolution(f"upsample.{index}", channels * step, channels, 3)
    return {key: 0.02 * torch.randn(shape) for key, shape in shapes.items()}


def by_basicsr(state: dict[str, Tensor], x: Tensor, block: Callable[[str, Tensor], Tensor], blocks: int) -> Tensor:
    """Its EDSR and RCAN at x4, of pictures in [0, 1], with the `img_range` and `rgb_mean` that it has by itself."""
    mean = MEAN.double().reshape(1, 3, 1, 1)
    first = y = conv(state, "conv_first", (x - mean) * 255)
    for i in range(blocks):
        y = block(f"body.{i}", y)
    y = conv(state, "conv_after_body", y) + first
    for index in (0, 2):
        y = F.pixel_shuffle(conv(state, f"upsample.{index}", y), 2)
    return conv(state, "conv_last", y) / 255 + mean


def conv(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    weight = state[f"{name}.weight"].double()
    return F.conv2d(x, weight, state[f"{name}.bias"].double(), padding=weight.shape[-1] // 2)


def test_edsr_of_basicsr(tmp_path: Path) -> None:
    """Its averaged weights, if it has any: those are what BasicSR itself tests."""
    state = basicsr(64, [f"body.{i}.conv{j}" for i in range(16) for j in (1, 2)], 4)
    theirs, ours = tmp_path / "EDSR_Mx4.pth", str(tmp_path / "e.safetensors")

    def block(name: str, x: Tensor) -> Tensor:
        return x + conv(state, f"{name}.conv2", conv(state, f"{name}.conv1", x).relu())

    x = torch.rand(1, 3, 6, 5, dtype=torch.float64)
    wanted = by_basicsr(state, x, block, 16)
    others = {key: torch.zeros_like(value) for key, value in state.items()}
    for content in ({"params": others, "params_ema": state}, {"params": state}):
        torch.save(content, theirs)
        assert main(["convert", str(theirs), "edsr-baseline", "--scale", "4", "-o", ours, "--overwrite"]) == 0
        network = finescale.load(ours)
        assert network.config is not None
        assert network.config.arguments["value_range"] == 255
        with torch.no_grad():
            torch.testing.assert_close(network.double()(x), wanted, atol=1e-5, rtol=0)
    with pytest.raises(FinescaleError, match="do not fit edsr-baseline x2"):
        load_official(theirs, "edsr-baseline", 2)
    torch.save({"params": state, "model": others}, theirs)
    with pytest.raises(FinescaleError, match=r"several state dicts \(params, model\)"):
        load_official(theirs, "edsr-baseline", 4)


def test_rcan_of_basicsr() -> None:
    groups, blocks = 10, 20
    inside = [f"body.{g}.residual_group.{b}.rcab.{i}" for g in range(groups) for b in range(blocks) for i in (0, 2)]
    state = basicsr(64, [*inside, *(f"body.{g}.conv" for g in range(groups))], 4)
    for g in range(groups):
        for b in range(blocks):
            name = f"body.{g}.residual_group.{b}.rcab.3.attention"
            for key, shape in (convolution(f"{name}.1", 4, 64, 1) | convolution(f"{name}.3", 64, 4, 1)).items():
                state[key] = 0.05 * torch.randn(shape)

    def group(name: str, x: Tensor) -> Tensor:
        y = x
        for b in range(blocks):
            inner = f"{name}.residual_group.{b}.rcab"
            z = conv(state, f"{inner}.2", conv(state, f"{inner}.0", y).relu())
            gate = conv(state, f"{inner}.3.attention.1", z.mean((2, 3), keepdim=True)).relu()
            y = y + z * conv(state, f"{inner}.3.attention.3", gate).sigmoid()
        return x + conv(state, f"{name}.conv", y)

    x = torch.rand(1, 3, 6, 5, dtype=torch.float64)
    with torch.no_grad():
        y = load_official(state, "rcan", 4).double()(x)
    torch.testing.assert_close(y, by_basicsr(state, x, group, groups), atol=1e-4, rtol=1e-4)


def esrgan(blocks: int, ups: int, inputs: int = 3) -> dict[str, Tensor]:
    """Weights by BasicSR's names of Real-ESRGAN's network, with 8 channels and a growth of 4."""
    torch.manual_seed(2)
    shapes = convolution("conv_first", 8, inputs, 3) | convolution("conv_last", 3, 8, 3)
    for name in ("conv_body", "conv_hr", *(f"conv_up{i + 1}" for i in range(ups))):
        shapes |= convolution(name, 8, 8, 3)
    for i in range(blocks):
        for j in (1, 2, 3):
            for k in range(5):
                shapes |= convolution(f"body.{i}.rdb{j}.conv{k + 1}", 4 if k < 4 else 8, 8 + 4 * k, 3)
    return {key: 0.1 * torch.randn(shape) for key, shape in shapes.items()}


def by_esrgan(state: dict[str, Tensor], x: Tensor, blocks: int, steps: list[int]) -> Tensor:
    """Its formulas, from those names."""
    y = first = conv(state, "conv_first", x)
    for i in range(blocks):
        block = y
        for j in (1, 2, 3):
            seen = y
            for k in range(1, 5):
                more = F.leaky_relu(conv(state, f"body.{i}.rdb{j}.conv{k}", seen), 0.2)
                seen = torch.cat([seen, more], 1)
            y = y + 0.2 * conv(state, f"body.{i}.rdb{j}.conv5", seen)
        y = block + 0.2 * y
    y = first + conv(state, "conv_body", y)
    for number, step in enumerate(steps):
        y = y.repeat_interleave(step, 2).repeat_interleave(step, 3)
        y = F.leaky_relu(conv(state, f"conv_up{number + 1}", y), 0.2)
    return conv(state, "conv_last", F.leaky_relu(conv(state, "conv_hr", y), 0.2))


def as_first_published(state: dict[str, Tensor], ups: int, blocks: int) -> dict[str, Tensor]:
    """The names in ESRGAN's first files, which most of its users' files have, too."""
    behind = {f"conv_up{i + 1}": 3 * i + 3 for i in range(ups)} | {"conv_hr": 3 * ups + 2, "conv_last": 3 * ups + 4}
    places = {"conv_first": "model.0", "conv_body": f"model.1.sub.{blocks}"}
    places |= {name: f"model.{place}" for name, place in behind.items()}
    named = {}
    for key, value in state.items():
        name, _, end = key.rpartition(".")
        if name.startswith("body."):
            _, i, dense, layer = name.split(".")
            name = f"model.1.sub.{i}.{dense.upper()}.{layer}.0"
        named[f"{places.get(name, name)}.{end}"] = value
    return named


def as_in_its_later_code(state: dict[str, Tensor]) -> dict[str, Tensor]:
    words = {"conv_body": "trunk_conv", "body": "RRDB_trunk", "rdb": "RDB", "conv_up": "upconv", "conv_hr": "HRconv"}

    def word(key: str) -> str:
        for ours, theirs in words.items():
            key = key.replace(ours, theirs)
        return key

    return {word(key): value for key, value in state.items()}


@pytest.mark.parametrize(
    ("blocks", "ups", "scale", "names"),
    [
        (2, 2, 4, "BasicSR"),
        (1, 2, 4, "first"),
        (2, 2, 4, "later"),
        (1, 1, 2, "first"),
        (1, 1, 3, "later"),
    ],
)
def test_esrgan_by_all_its_names(blocks: int, ups: int, scale: int, names: str) -> None:
    state = esrgan(blocks, ups)
    theirs = state
    if names != "BasicSR":
        theirs = as_first_published(state, ups, blocks) if names == "first" else as_in_its_later_code(state)
        assert not theirs.keys() & {"conv_hr.weight", "conv_body.weight"}
    if ups == 1:
        with pytest.raises(UsageError, match="does not tell whether it is for x2 or x3; name its scale"):
            load_official(theirs)
    network = load_official(theirs, scale=scale if ups == 1 else None)
    assert network.scale == scale
    x = torch.rand(1, 3, 6, 5, dtype=torch.float64)
    with torch.no_grad():
        y = network.double()(x)
    torch.testing.assert_close(y, by_esrgan(state, x, blocks, [2, 2] if ups == 2 else [scale]))


def test_real_esrgan_at_two_times(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It makes channels of squares of 2 x 2 pixels, and what is odd is mirrored before."""
    state = esrgan(1, 2, inputs=12)
    theirs, ours = tmp_path / "RealESRGAN_x2plus.pth", tmp_path / "realesrgan-x2.safetensors"
    torch.save({"params_ema": state}, theirs)
    assert main(["convert", str(theirs), "-o", str(ours), "--licence", "BSD-3-Clause"]) == 0
    assert capsys.readouterr().out == f"wrote {ours}: rrdbnet x2\n"
    x = torch.rand(1, 3, 6, 8, dtype=torch.float64)
    squares = x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).permute(0, 1, 3, 5, 2, 4).flatten(1, 3)
    network = finescale.load(ours).double()
    with torch.no_grad():
        torch.testing.assert_close(network(x), by_esrgan(state, squares, 1, [2, 2]))
        odd = network(x[..., :5, :7])
    assert odd.shape == (1, 3, 10, 14)
    Image.new("RGB", (9, 7), (50, 100, 200)).save(tmp_path / "a.png")
    assert main(["upscale", str(tmp_path / "a.png"), "--network", str(ours)]) == 0
    assert Image.open(tmp_path / "a_x2.png").size == (18, 14)


def test_the_small_network_of_real_esrgan() -> None:
    torch.manual_seed(3)
    state: dict[str, Tensor] = {}
    widths = [3, 8, 8, 8, 12]
    for place, (c_in, c_out) in enumerate(pairwise(widths)):
        shapes = convolution(f"body.{2 * place}", c_out, c_in, 3)
        shapes |= {f"body.{2 * place + 1}.weight": (c_out,)} if place < 3 else {}
        state |= {key: 0.3 * torch.randn(shape) for key, shape in shapes.items()}
    network = load_official(state)
    assert network.config is not None
    assert (network.config.name, network.scale, network.config.arguments["convolutions"]) == ("srvgg", 2, 2)
    x = y = torch.rand(1, 3, 5, 6, dtype=torch.float64)
    for place in range(3):
        y = conv(state, f"body.{2 * place}", y)
        y = torch.where(y > 0, y, state[f"body.{2 * place + 1}.weight"].double().reshape(-1, 1, 1) * y)
    y = conv(state, "body.6", y)
    shuffled = y.unflatten(1, (3, 2, 2)).permute(0, 1, 4, 2, 5, 3).reshape(1, 3, 10, 12)
    with torch.no_grad():
        wanted = shuffled + x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        torch.testing.assert_close(network.double()(x), wanted)


def test_files_tell_which_network_they_hold() -> None:
    for name, scale in LAYOUTS:
        if name != "rcan":  # large
            config = load_official(official(name, scale)).config
            assert config is not None
            assert (config.name, config.arguments["scale"]) == (name, scale)
    for ups, inputs, factor in ((3, 3, 8), (0, 3, 1), (2, 48, 1)):
        with pytest.raises(FinescaleError, match=rf"^these weights: enlarges x{factor}; networks here are for x2, x3"):
            load_official(esrgan(1, ups, inputs))
    plus = esrgan(1, 2) | {"body.0.rdb1.conv1x1.weight": torch.zeros(4, 8, 1, 1)}  # ESRGAN+
    with pytest.raises(FinescaleError, match=r"do not fit rrdbnet x4 \(Unexpected key"):
        load_official(plus)
    with pytest.raises(FinescaleError, match="do not fit rrdbnet x3"):
        load_official(esrgan(1, 2), scale=3)
    with pytest.raises(FinescaleError, match=r"not the weights of a network that is known \(rcan, edsr"):
        load_official({"layers.0.weight": torch.zeros(1)})
