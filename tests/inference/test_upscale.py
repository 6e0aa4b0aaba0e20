"""Pictures of every kind enlarged: sizes, transparency, 16 bits, grey, metadata, self-ensemble."""

import io
import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.conftest import needs, tiny_network
from tests.inference.test_tiling import picture

import finescale
from finescale.errors import FinescaleError, UsageError
from finescale.images.colours import chunk
from finescale.images.files import read, write
from finescale.images.picture import Picture
from finescale.images.resize import resize
from finescale.inference.photograph import PHOTOGRAPH
from finescale.inference.size import Target, passes
from finescale.inference.tiling import Cancelled
from finescale.inference.transparency import bleed, within_neighbours
from finescale.inference.upscale import Upscaler, kept_networks
from finescale.networks import DEFAULT
from finescale.weights.files import save


def upscaler(scale: int = 2, **settings: object) -> Upscaler:
    return Upscaler(tiny_network(scale), engine="torch", **{"precision": "float32", **settings})  # type: ignore[arg-type]


def test_enlarge_equals_the_network() -> None:
    network = tiny_network(2)
    x = torch.rand(3, 20, 24)  # whole cells of the statistics
    with torch.no_grad():
        wanted = network(x[None])[0]  # smaller than half a window: local statistics are the global ones
    torch.testing.assert_close(upscaler(2).enlarge(x), wanted, atol=1e-5, rtol=0)
    levels = upscaler(2).enlarge(x.mul(255).byte())
    assert levels.dtype == torch.uint8
    with torch.no_grad():
        wanted = network(x.mul(255).byte()[None] / 255)[0]
    assert (levels.float() - wanted.clamp(0, 1) * 255).abs().max() <= 0.501


def test_tensors_of_several_pictures() -> None:
    x, up, seen = torch.rand(3, 3, 20, 24), upscaler(), list[float]()
    y = up.enlarge(x, seen.append)
    assert y.shape == (3, 3, 40, 48)
    torch.testing.assert_close(y, torch.stack([up.enlarge(one) for one in x]), rtol=0, atol=0)
    assert seen == sorted(seen)
    assert [min(seen, key=lambda share: abs(share - done)) for done in (1 / 3, 2 / 3)] == pytest.approx([1 / 3, 2 / 3])
    assert seen[-1] == 1
    assert up.enlarge(x[:1].mul(255).byte()).dtype == torch.uint8


def test_ensemble_is_equivariant() -> None:
    """Turning the picture turns the result: what a network alone does not do."""
    x = picture(30, 44, np.float32)
    one, eight = upscaler(), upscaler(ensemble=True)
    np.testing.assert_allclose(eight.pixels(x[:, ::-1]), eight.pixels(x)[:, ::-1], atol=2e-6)
    np.testing.assert_allclose(eight.pixels(x.swapaxes(0, 1)), eight.pixels(x).swapaxes(0, 1), atol=2e-6)
    assert np.abs(one.pixels(x[:, ::-1]) - one.pixels(x)[:, ::-1]).max() > 1e-3


@pytest.mark.parametrize(
    ("target", "size"),
    [
        (Target(scale=2), (74, 58)),
        (Target(scale=4), (148, 116)),
        (Target(scale=1.5), (56, 44)),
        (Target(scale=0.5), (19, 15)),
        (Target(scale=7), (259, 203)),
        (Target(width=100), (100, 78)),
        (Target(height=100), (128, 100)),
        (Target(fit=(64, 64)), (64, 50)),
        (Target(fit=(500, 64)), (82, 64)),
    ],
)
def test_exact_sizes(target: Target, size: tuple[int, int]) -> None:
    small = Picture(picture(29, 37))
    assert target.size(*small.size) == size
    assert upscaler().picture(small, size=size).size == size


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 700), (1, 50)])
def test_awkward_shapes(height: int, width: int) -> None:
    assert upscaler(4).picture(Picture(picture(height, width))).size == (4 * width, 4 * height)


def test_impossible_sizes() -> None:
    for wrong in ({"scale": 0.0}, {"scale": -1.0}, {"scale": 17.0}, {"width": 0}, {}, {"scale": 2.0, "width": 5}):
        with pytest.raises(UsageError):
            Target(**wrong)
    with pytest.raises(UsageError, match="16 times, not 100"):
        Target(width=1000).size(10, 10)


@pytest.mark.parametrize(
    ("factor", "scales", "chain"),
    [
        (4, [2, 4], [4]),
        (3, [2, 4], [4]),
        (3, [2, 3, 4], [3]),
        (2, [2, 3, 4], [2]),
        (1.2, [4], [4]),
        (1.05, [2, 3, 4], [2]),
        (2.1, [2, 3, 4], [3]),
        (4.4, [2, 3, 4], [4]),
        (4.41, [2, 3, 4], [2, 3]),
        (8.1, [2, 3, 4], [3, 3]),
        (1, [2], []),
        (0.3, [2], []),
        (8, [2, 4], [2, 4]),
        (6, [2, 3, 4], [2, 3]),
        (16, [2, 4], [4, 4]),
        (16, [2], [2, 2, 2, 2]),
    ],
)
def test_chains_of_networks(factor: float, scales: list[int], chain: list[int]) -> None:
    assert passes(factor, scales) == chain


def test_sixteen_bits_stay_sixteen() -> None:
    """A ramp of fewer than 256 levels of 16 bits keeps its steps: 8 bits anywhere would make it flat."""
    ramp = np.linspace(30000, 30500, 64).astype(np.uint16)
    small = Picture(np.broadcast_to(ramp[None, :, None], (32, 64, 3)).copy())
    large = Upscaler(tiny_network(2), engine="torch").picture(small)  # auto precision: float32 for 16 bits
    assert large.pixels.dtype == np.uint16
    assert len(np.unique(large.pixels[16, :, 1])) > 50


def test_grey_stays_grey_and_metadata_stay() -> None:
    grey = Picture(picture(20, 30)[..., :1], icc=b"profile", exif=b"Exif\0\0x", format="png", resolution=(72, 72))
    large = upscaler().picture(grey)
    assert large.pixels.shape == (40, 60, 1)
    assert (large.icc, large.exif, large.resolution) == (grey.icc, grey.exif, grey.resolution)
    colour = np.repeat(grey.pixels, 3, 2)
    tinted = upscaler().pixels(colour)  # what the network alone makes of it
    assert np.ptp(tinted.astype(int), axis=2).max() > 1
    assert np.abs(large.pixels[..., 0] - tinted.astype(float).mean(2)).max() <= 1


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_black_and_white_that_is_stored_in_colour_gets_no_tint(tmp_path: Path, kind: type) -> None:
    up = upscaler(tile=48)
    small = picture(110, 70, kind)
    grey, alpha = small[..., :1], small[..., 1]
    for clear in (None, alpha):
        for scale in (2, 3, 1.5):
            wanted = up.picture(Picture(grey, clear), scale=scale)
            found = up.picture(Picture(grey.repeat(3, 2), clear), scale=scale)
            np.testing.assert_array_equal(found.pixels, wanted.pixels.repeat(3, 2))
            np.testing.assert_array_equal(found.alpha, wanted.alpha)
    colour = grey.repeat(3, 2)
    array = finescale.upscale(colour, 2, up)
    np.testing.assert_array_equal(array, finescale.upscale(grey, 2, up).repeat(3, 2))
    write(Picture(colour), tmp_path / "a.png")
    finescale.upscale_file(tmp_path / "a.png", tmp_path / "b.png", 2, up)
    np.testing.assert_array_equal(read(tmp_path / "b.png").pixels, array)
    colour[-1, -1, 2] ^= 1  # a single pixel makes it a picture in colours
    np.testing.assert_array_equal(finescale.upscale(colour, 2, up), up.pixels(colour))


def disc(side: int = 60) -> Picture:
    """A red disc on nothing; what is invisible is bright green, which must not be seen."""
    y, x = np.mgrid[:side, :side] - side / 2 + 0.5
    alpha = np.clip((side / 3 - np.hypot(y, x)) * 255 + 128, 0, 255).astype(np.uint8)
    pixels = np.zeros((side, side, 3), np.uint8)
    pixels[alpha > 0], pixels[alpha == 0] = (200, 30, 30), (0, 255, 0)
    return Picture(pixels, alpha)


def test_transparency_has_no_fringes() -> None:
    up, small = upscaler(), disc()
    large = up.picture(small)
    assert large.alpha is not None
    opaque = up.picture(Picture(np.broadcast_to(np.array([200, 30, 30], np.uint8), (60, 60, 3)).copy())).pixels[
        20:-20, 20:-20
    ]
    visible = large.pixels[large.alpha > 8].astype(int)
    assert np.abs(visible - opaque.reshape(-1, 3).mean(0)).max() <= 3  # the disc's own colour up to its rim
    assert (large.alpha[:16] == 0).all()
    assert (large.alpha[50:70, 50:70] == 255).all()


def test_bleeding_reaches_every_hidden_pixel() -> None:
    alpha = np.zeros((37, 53), np.uint8)
    alpha[5, 7] = 1
    pixels = np.zeros((37, 53, 3), np.uint8)
    pixels[5, 7] = (9, 90, 200)
    assert (bleed(pixels, alpha) == (9, 90, 200)).all()
    assert pixels.sum() == 299  # the caller's picture is left alone
    nothing = np.zeros_like(alpha)
    assert bleed(pixels, nothing) is pixels


def test_far_from_everything_visible_hidden_pixels_are_grey() -> None:
    alpha = np.zeros((400, 10), np.uint8)
    alpha[:3] = 255
    filled = bleed(np.full((400, 10, 3), 200, np.uint8), alpha)
    assert (filled[:112] == 200).all()
    assert (filled[112:] == 128).all()


def test_alpha_is_kept_between_its_neighbours() -> None:
    small = np.array([[0, 0, 255], [0, 0, 255]], np.uint8)
    large = np.full((4, 6), 100, np.uint8)
    assert within_neighbours(large, small).tolist() == [[0, 0, 100, 100, 100, 100]] * 4


def test_constant_transparency_stays_exact() -> None:
    half = replace(Picture(picture(20, 20)), alpha=np.full((20, 20), 77, np.uint8))
    large = upscaler().picture(half, size=(55, 55))
    assert large.alpha is not None
    assert (large.alpha == 77).all()


def test_progress_of_many_passes_rises_to_one() -> None:
    seen: list[float] = []
    alpha = picture(20, 50)[..., 0]
    upscaler(ensemble=True, tile=48).picture(Picture(picture(20, 50), alpha), scale=4, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1

    def stop(done: float) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        upscaler().picture(Picture(picture(9, 9)), progress=stop)


@pytest.fixture
def face(monkeypatch: pytest.MonkeyPatch, tiny_weights: Path) -> None:
    monkeypatch.setenv("FINESCALE_WEIGHTS", str(tiny_weights))


@pytest.mark.usefixtures("face")
def test_the_face(tmp_path: Path) -> None:
    image = Image.fromarray(picture(20, 30))
    image.save(tmp_path / "a.png")
    large = finescale.upscale(tmp_path / "a.png", engine="torch")
    assert large.size == (120, 80)
    assert finescale.upscale(image, 2, engine="torch").size == (60, 40)
    np.testing.assert_array_equal(np.asarray(finescale.upscale(picture(20, 30), 4, engine="torch")), np.asarray(large))
    assert finescale.upscale(image, network=tiny_network(2), width=45, engine="torch").size == (45, 30)
    weights = tiny_file(tmp_path)
    assert finescale.upscale(image, 3, weights, engine="torch").size == (90, 60)  # x2 twice, then down
    with pytest.raises(UsageError, match="did you mean 'sa-rcan-light'"):
        finescale.upscale(image, network="sa-rcan-ligth")
    with pytest.raises(FinescaleError, match="no trained weights for rcan"):
        finescale.upscale(image, network="rcan")


@pytest.mark.usefixtures("face")
def test_without_a_size_a_network_enlarges_once(tmp_path: Path) -> None:
    """Four times where there are weights for it, else as far as those go."""
    x, weights = picture(20, 30), tiny_file(tmp_path)
    assert finescale.upscale(x, engine="torch").shape == (80, 120, 3)
    for network in (weights, tiny_network(2), Upscaler(weights, engine="torch")):
        engine = "auto" if isinstance(network, Upscaler) else "torch"
        assert finescale.upscale(x, network=network, engine=engine).shape == (40, 60, 3)
    Image.fromarray(x).save(tmp_path / "a.png")
    assert finescale.upscale_file(tmp_path / "a.png", tmp_path / "b.png", network=weights, engine="torch") == (60, 40)


def test_an_upscaler_takes_the_place_of_a_network(tmp_path: Path) -> None:
    weights, grey = tiny_file(tmp_path), picture(20, 30)[..., 0]
    up = Upscaler(weights, engine="torch", precision="float32", ensemble=True)
    settings: dict[str, Any] = {"engine": "torch", "precision": "float32", "ensemble": True}
    Image.fromarray(grey).save(tmp_path / "a.png")
    wanted = finescale.upscale(grey, network=weights, width=45, **settings)
    assert wanted.shape == (30, 45)
    for image in (grey, Image.fromarray(grey), tmp_path / "a.png", (tmp_path / "a.png").read_bytes()):
        np.testing.assert_array_equal(finescale.upscale(image, network=up, width=45), wanted)
    finescale.upscale_file(tmp_path / "a.png", tmp_path / "b.png", network=up, width=45)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "b.png")), wanted)
    assert finescale.upscale(grey, 4, up).shape == (80, 120)  # twice
    with pytest.raises(UsageError, match="its own settings: engine and ensemble are given when it is made"):
        finescale.upscale(grey, 2, up, engine="torch", ensemble=True)


@pytest.mark.usefixtures("face")
def test_what_is_kept_rests_when_the_last_that_uses_it_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    rested: list[int] = []
    with kept_networks(None, {"engine": "torch"}) as one:
        monkeypatch.setattr(one, "rest", lambda: rested.append(1))
        with kept_networks(None, {"engine": "torch"}) as other:
            assert other is one
        assert not rested
    assert rested == [1]


@pytest.mark.usefixtures("face")
def test_the_network_of_the_last_call_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    real = Upscaler.__init__

    def counted(self: Upscaler, *args: Any, **options: Any) -> None:
        made.append(args)
        real(self, *args, **options)

    monkeypatch.setattr(Upscaler, "__init__", counted)
    x, weights = picture(20, 20), tiny_file(tmp_path)
    large = finescale.upscale(x, 2, weights, engine="torch")
    with ThreadPoolExecutor(3) as threads:
        for again in threads.map(lambda _: finescale.upscale(x, 2, weights, engine="torch"), range(6)):
            np.testing.assert_array_equal(again, large)
    assert len(made) == 1
    finescale.upscale(x, 2, weights, engine="torch", precision="float32")
    assert len(made) == 2  # other settings
    network = tiny_network(2, blocks=1)
    save(network, tmp_path / "other.safetensors", dtype=torch.float32)
    (tmp_path / "other.safetensors").replace(weights)
    other = finescale.upscale(x, 2, weights, engine="torch", precision="float32")
    assert len(made) == 3  # the file was replaced
    np.testing.assert_array_equal(other, Upscaler(network, engine="torch", precision="float32").pixels(x))


KEPT = """
import os
import sys
from pathlib import Path

import numpy as np

import finescale


def taken():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20


small, large = np.zeros((48, 48, 3), np.uint8), np.zeros((900, 900, 3), np.uint8)
finescale.upscale(small, 2, engine=sys.argv[1])
before = taken()
finescale.upscale(large, 2, engine=sys.argv[1])
print(taken() - before)
"""


@pytest.mark.usefixtures("face")
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="this system does not tell a process's memory there")
@pytest.mark.parametrize(
    "engine", ["mnn", *(pytest.param(name, marks=pytest.mark.slow) for name in ("openvino", "onnx"))]
)
def test_what_is_kept_gives_its_memory_back(engine: str) -> None:
    needs(engine)
    grown = subprocess.run([sys.executable, "-c", KEPT, engine], check=True, capture_output=True, text=True).stdout
    assert int(grown) < 100  # MiB


def tiny_file(folder: Path) -> Path:
    path = folder / "mine.safetensors"
    save(tiny_network(2), path)
    return path


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        ({"scale": "2"}, "scale is a number, not '2'"),
        ({"scale": True}, "scale is a number"),
        ({"scale": Fraction(17)}, "at most 16, not 17"),
        ({"scale": Fraction(10**400)}, "at most 16, not 1000"),
        ({"device": None}, "a device is named, such as 'cpu', and not None"),
        ({"device": 0}, "a device is named, such as 'cpu', and not 0"),
        ({"device": torch.device("meta")}, "there is no device 'meta' here"),
        ({"tile": "a"}, "a whole number of pixels, not 'a'"),
        ({"tile": 2.5}, "a whole number of pixels, not 2.5"),
        ({"tile": True}, "a whole number of pixels, not True"),
        ({"width": 20.5}, "whole numbers, not 20.5"),
        ({"fit": 20}, "fit is"),
        ({"fit": (20, "x")}, "whole numbers"),
    ],
)
def test_what_is_no_size_or_setting(size: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        finescale.upscale(np.zeros((4, 4, 3), np.uint8), network="bicubic", **size)


def test_devices_of_torch_are_devices(tmp_path: Path) -> None:
    cpu, x, weights = torch.device("cpu"), picture(6, 8), tiny_file(tmp_path)
    wanted = Upscaler(weights, device="cpu").pixels(x)
    np.testing.assert_array_equal(Upscaler(weights, device=cpu).pixels(x), wanted)
    np.testing.assert_array_equal(finescale.upscale(x, 2, weights, device=cpu), wanted)
    Image.fromarray(x).save(tmp_path / "a.png")
    assert finescale.upscale_file(tmp_path / "a.png", tmp_path / "b.png", 2, weights, device=cpu) == (16, 12)


def test_numbers_of_numpy_are_numbers() -> None:
    image = np.zeros((4, 6, 3), np.uint8)
    factor: Any = np.float32(2)
    width: Any = np.int64(9)
    assert finescale.upscale(image, factor, network="bicubic").shape == (8, 12, 3)
    assert finescale.upscale(image, network="bicubic", width=width).shape == (6, 9, 3)


@pytest.mark.parametrize(
    ("kind", "near"), [(torch.float64, 1e-5), (torch.float16, 5e-3), (torch.bfloat16, 3e-2)], ids=str
)
def test_networks_and_pictures_of_other_floats(kind: torch.dtype, near: float) -> None:
    x = torch.rand(3, 12, 16, generator=torch.Generator().manual_seed(0))
    wanted = Upscaler(tiny_network(2), engine="torch", precision="float32").enlarge(x)
    found = Upscaler(tiny_network(2).to(kind), engine="torch", precision="float32").enlarge(x.to(kind))
    assert found.dtype == kind
    torch.testing.assert_close(found.float(), wanted, rtol=0, atol=near)


@pytest.mark.parametrize(
    "x",
    [
        *(torch.zeros(shape) for shape in ((1, 1, 3, 4, 4), (3, 4, 4, 4), (0, 3, 4, 4), (1, 4, 4), (3, 0, 4), (4, 4))),
        torch.zeros(3, 4, 4).int(),
    ],
)
def test_what_is_no_tensor_to_enlarge(x: torch.Tensor) -> None:
    up = Upscaler(tiny_network(2), engine="torch")
    with pytest.raises(UsageError, match=r"a picture is \(3, H, W\)"):
        up.enlarge(x)
    with pytest.raises(UsageError, match=r"takes a tensor; Upscaler\.pixels takes an array"):
        up.enlarge(x.numpy())  # type: ignore[arg-type]


@pytest.mark.usefixtures("face")
def test_a_network_by_its_name_or_file(tmp_path: Path) -> None:
    file = tiny_file(tmp_path)
    assert Upscaler(str(file), engine="torch").scale == 2
    for name, scale, found in ((DEFAULT, None, 4), (DEFAULT, 2, 2), ("bicubic", 3, 3), (file, 2, 2)):
        assert Upscaler(name, scale=scale, engine="torch").scale == found
    np.testing.assert_array_equal(  # the weights of that name
        Upscaler(DEFAULT, engine="torch").pixels(picture(6, 8)), upscaler(4, precision="auto").pixels(picture(6, 8))
    )
    assert Upscaler(tiny_network(2), scale=2, engine="torch").scale == 2
    for network, said in ((file, r"mine\.safetensors: enlarges"), (tiny_network(2), "this network enlarges")):
        with pytest.raises(UsageError, match=f"{said} x2, not x3"):
            Upscaler(network, scale=3)
    with pytest.raises(UsageError, match="scale is 2, 3 or 4, not 7"):
        Upscaler(DEFAULT, scale=7)
    with pytest.raises(UsageError, match=r"'none\.safetensors' is neither a network nor a weight file"):
        Upscaler("none.safetensors")


@pytest.mark.parametrize("by", ["file", "name"])
def test_an_upscaler_refuses_weights_that_were_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    monkeypatch.setenv("FINESCALE_WEIGHTS", str(tmp_path))
    file = tiny_file(tmp_path).rename(tmp_path / f"{DEFAULT}-x2.safetensors")
    (tmp_path / "index.json").write_text(json.dumps({file.name: {"sha256": "0" * 64}}))
    with pytest.raises(FinescaleError, match="its SHA-256 is not the one listed"):
        Upscaler(file if by == "file" else DEFAULT, scale=2)


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (np.zeros((4, 4, 3), np.int64), "not int64"),
        (np.zeros((4, 4, 3), bool), "not bool"),
        (np.zeros((0, 4, 3), np.uint8), "at least 1 x 1"),
        (np.zeros((1, 4, 4, 3), np.uint8), "at least 1 x 1"),
        (np.zeros((4, 4, 5), np.uint8), "1 to 4"),
        (np.full((4, 4), np.nan, np.float32), "the array holds values that are not finite"),
        (np.full((4, 4), 255.0), r"the array holds floats from 255 to 255, and only \[0, 1\] is .* 8 bits by 255"),
        (np.linspace(-1, 1, 48).reshape(4, 4, 3), r"the array holds floats from -1 to 1, .* take \(x \+ 1\) / 2"),
        (Image.new("RGB", (0, 3)), "the image holds no pixels"),
        (Image.new("F", (4, 4), 255), "the image holds floating-point samples from 255 to 255.* 8 bits by 255"),
        (Image.new("I", (4, 4), -1), "the image holds samples from -1 to -1, and only 8 and 16 bits are read$"),
        (torch.zeros(3, 4, 4), "not Tensor"),
        (b"no picture", "not a picture"),
    ],
)
def test_what_is_no_picture(image: object, reason: str) -> None:
    with pytest.raises(FinescaleError, match=reason):
        finescale.upscale(image, network="bicubic")  # type: ignore[call-overload]


def test_a_damaged_image_is_told_as_such() -> None:
    whole = io.BytesIO()
    Image.fromarray(picture(60, 80)).save(whole, "PNG")
    with pytest.raises(FinescaleError, match=r"^the image is damaged or cut off") as caught:
        finescale.upscale(Image.open(io.BytesIO(whole.getvalue()[:2000])), network="bicubic")
    assert not isinstance(caught.value, UsageError)


def test_what_overshoots_a_little_is_cut_off() -> None:
    """As the floats do that networks give."""
    x = np.array([[-0.003, 0.5], [1.003, 0.25]])
    np.testing.assert_array_equal(finescale.upscale(x, 2, "bicubic"), finescale.upscale(x.clip(0, 1), 2, "bicubic"))
    assert x.max() == 1.003


def test_a_result_shares_no_memory_with_its_picture() -> None:
    small = picture(6, 8)
    before = small.copy()
    for size in ({"scale": 1}, {"width": 8}):
        large = finescale.upscale(small, network="bicubic", **size)  # type: ignore[call-overload]
        np.testing.assert_array_equal(large, small)
        large[:] = 0
        np.testing.assert_array_equal(small, before)


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
def test_a_matrix_is_an_array() -> None:
    grey = picture(6, 8)[..., 0]
    large = finescale.upscale(np.asmatrix(grey), scale=2, network="bicubic")
    np.testing.assert_array_equal(large, finescale.upscale(grey, scale=2, network="bicubic"))


@pytest.mark.filterwarnings("error")
def test_an_asynchronous_upload_is_told() -> None:
    class Upload:
        async def read(self) -> bytes:
            return b""

    with pytest.raises(UsageError, match="read asynchronously; give the bytes"):
        finescale.upscale(Upload(), network="bicubic")  # type: ignore[call-overload]


@pytest.mark.parametrize("wrong", ["n" * 5000, tiny_network, b"bicubic", 4])
def test_what_is_no_network_is_told(wrong: Any) -> None:
    with pytest.raises(UsageError, match=r"neither a network nor a weight file|a network is a name"):
        finescale.load(wrong)
    with pytest.raises(UsageError, match=r"neither a network nor a weight file|a network is a name"):
        finescale.upscale(picture(6, 8), network=wrong)


def test_a_module_that_is_no_network_is_told() -> None:
    with pytest.raises(UsageError, match="a network is a name, a weight file or a Network, not Conv2d"):
        Upscaler(torch.nn.Conv2d(3, 3, 1))  # type: ignore[arg-type]


def test_arrays_and_open_files(tmp_path: Path) -> None:
    pixels = picture(6, 8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    wanted = np.asarray(finescale.upscale(Image.fromarray(pixels), scale=2, network="bicubic"))
    for image in (tmp_path / "a.png", (tmp_path / "a.png").read_bytes(), pixels):
        np.testing.assert_array_equal(finescale.upscale(image, scale=2, network="bicubic"), wanted)
    with open(tmp_path / "a.png", "rb") as file:
        np.testing.assert_array_equal(finescale.upscale(file, scale=2, network="bicubic"), wanted)
    with pytest.raises(UsageError, match=r"a\.png: cannot be read \(.*closed file\)"):
        finescale.upscale(file, network="bicubic")
    for name in ("", "a\0b.png"):
        with pytest.raises(UsageError, match=f"^{re.escape(repr(name))}: is no name that a file can have$"):
            finescale.upscale(name, network="bicubic")


def test_a_picture_becomes_a_picture_with_all_that_it_holds() -> None:
    small = Picture(picture(6, 8, np.uint16), icc=b"profile", resolution=(72, 72), texts=b"texts", xmp=b"xmp")
    large = finescale.upscale(small, width=20, network="bicubic")
    assert isinstance(large, Picture)
    assert (large.size, large.bits) == ((20, 15), 16)
    assert replace(large, pixels=small.pixels) == small


def test_colours_that_a_pillow_image_cannot_tell(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name, colours in (("a.png", chunk(b"cICP", bytes([9, 16, 0, 1]))), ("b.png", chunk(b"sRGB", b"\0"))):
        write(Picture(picture(6, 8), colours=colours), tmp_path / name)
        finescale.upscale(tmp_path / name, scale=2, network="bicubic")
    (told,) = caplog.messages
    assert told.startswith(f"{tmp_path / 'a.png'}: its colours are not those of sRGB")


@pytest.mark.parametrize("shape", [(6, 8), (6, 8, 1), (6, 8, 2), (6, 8, 3), (6, 8, 4)])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32, np.float64])
def test_an_array_becomes_an_array_of_its_kind(shape: tuple[int, ...], kind: type) -> None:
    ramp = np.linspace(0.2, 0.8, 48).reshape(6, 8, *(1,) * (len(shape) - 2)) * np.ones(shape)
    top = np.iinfo(kind).max if issubclass(kind, np.integer) else 1
    small: np.ndarray[Any, Any] = (ramp * top + (0.5 if top > 1 else 0)).astype(kind)
    large = finescale.upscale(small, scale=2, network="bicubic")
    assert large.dtype == kind
    assert large.shape == (12, 16, *shape[2:])
    swapped = finescale.upscale(small.astype(small.dtype.newbyteorder()), scale=2, network="bicubic")
    assert swapped.dtype == kind
    np.testing.assert_array_equal(swapped, large)
    step = 1 / (255 if kind == np.uint8 else 65535)
    wanted = resize(torch.from_numpy(ramp.reshape(6, 8, -1)).permute(2, 0, 1), scale=2).permute(1, 2, 0)
    inner = np.s_[2:-2, 2:-2]  # transparency does not overshoot at edges
    np.testing.assert_allclose((large / top).reshape(wanted.shape)[inner], wanted[inner], atol=1.6 * step)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (np.zeros((6, 8), np.uint8), r"an array \(H, W, 3\), at least 1 x 1, not \(6, 8\)"),
        (np.zeros((6, 8, 4), np.uint8), r"not \(6, 8, 4\)"),
        (np.zeros((0, 8, 3), np.uint8), r"not \(0, 8, 3\)"),
        (np.zeros((6, 8, 3), np.int32), "uint8, uint16 or float"),
        (np.zeros((6, 8, 3), bool), "uint8, uint16 or float"),
        (np.full((6, 8, 3), 200.0), r"floats from 200 to 200, and only \[0, 1\] is read; divide samples of 8 bits"),
        (np.linspace(-1, 1, 144).reshape(6, 8, 3), r"from -1 to 1, .* of samples x in \[-1, 1\] take \(x \+ 1\) / 2"),
        (np.full((6, 8, 3), np.nan), "values that are not finite"),
        (np.full((6, 8, 3), -np.inf), "values that are not finite"),
        ("a.png", "an array"),
    ],
)
def test_pixels_that_an_engine_would_misread_are_refused(wrong: Any, words: str) -> None:
    up = Upscaler(tiny_network(2), device="cpu", engine="torch")
    with pytest.raises(UsageError, match=words):
        up.pixels(wrong)


def test_sizes_and_windows_are_checked_as_elsewhere() -> None:
    up = Upscaler(tiny_network(2), device="cpu", engine="torch")
    small = Picture(picture(6, 8))
    assert up.picture(small, size=(15, 13)).size == (15, 13)
    for size in ((400, 6), (0, 5), (3,), (3.5, 5)):
        with pytest.raises(UsageError):
            up.picture(small, size=size)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="not both"):
        up.picture(small, size=(16, 12), scale=2)
    with pytest.raises(UsageError, match=r"finescale\.upscale takes any, also ndarray"):
        up.picture(picture(6, 8))  # type: ignore[arg-type]
    for window in (0, 1.5, True, "48"):
        with pytest.raises(UsageError, match="window"):
            Upscaler(tiny_network(2), window=window)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="whole numbers"):
        finescale.upscale(picture(6, 8), fit=(40, None), network="bicubic")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"finescale\.Upscaler\("):
        finescale.upscale(torch.zeros(3, 6, 8))  # type: ignore[call-overload]


_USUAL = {"ensemble": False, "tile": None, "window": 48}


@pytest.mark.slow
def test_the_network_that_suits_a_picture(tmp_path: Path) -> None:
    clean = read(PHOTOGRAPH).pixels[:96, :128]
    Image.fromarray(clean).save(tmp_path / "a.jpg", quality=40)
    Image.fromarray(clean).save(tmp_path / "b.png")
    for name, network in (("a.jpg", "sa-rcan-light-jpeg"), ("b.png", DEFAULT)):
        chosen, named = (finescale.upscale(tmp_path / name, 2, one, engine="torch") for one in ("auto", network))
        np.testing.assert_array_equal(chosen, named)
        finescale.upscale_file(tmp_path / name, tmp_path / "large.png", 2, "auto", engine="torch", overwrite=True)
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "large.png")), named)
    with kept_networks("auto", {"device": "auto", "engine": "torch", "precision": "auto"} | _USUAL) as networks:
        before = networks.ready  # of the last call
        finescale.upscale_file(tmp_path / "a.jpg", tmp_path / "large.png", 2, "auto", engine="torch", overwrite=True)
        finescale.upscale(tmp_path / "a.jpg", 2, "auto", engine="torch")
        assert len(before) == 1
        assert len(networks.ready) == 2  # both stay ready
    plain = finescale.upscale(tmp_path / "a.jpg", 2, engine="torch")
    assert np.any(np.asarray(plain) != finescale.upscale(tmp_path / "a.jpg", 2, "auto", engine="torch"))
    for given in (clean, Image.fromarray(clean)):
        np.testing.assert_array_equal(finescale.upscale(given, 2, "auto", engine="torch"), np.asarray(named))
    # too few pixels to see in them what they were: its quality has to come with the picture
    Image.fromarray(clean[:24, :24]).save(tmp_path / "c.jpg", quality=60)
    sent = read((tmp_path / "c.jpg").read_bytes())
    by = {one: finescale.upscale(sent, 2, one, engine="torch") for one in ("auto", "sa-rcan-light-jpeg", DEFAULT)}
    np.testing.assert_array_equal(by["auto"].pixels, by["sa-rcan-light-jpeg"].pixels)
    assert np.any(by["auto"].pixels != by[DEFAULT].pixels)
    assert (sent.quality, by["auto"].quality) == (60, None)
