"""The authors' file layouts of RCAN and EDSR, written out by hand."""

from collections.abc import Callable
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
