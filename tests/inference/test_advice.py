"""Which network suits a picture."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from finescale.data import graphics
from finescale.evaluation.arrays import downscale, to_pixels
from finescale.images.files import read
from finescale.images.jpeg import traces
from finescale.images.picture import Picture, Samples, mod_crop
from finescale.inference.advice import advice, drawn, noisy
from finescale.inference.photograph import PHOTOGRAPH

PHOTO = np.asarray(Image.open(PHOTOGRAPH).convert("RGB"))
WERE_JPEGS = ["img_018", "img_053", "img_093", "img_098", "woman"]
SIMPLE = ("_text", "_chart", "_drawing", "_pixel_art")  # the others may be all texture


@pytest.mark.parametrize("drawing", dict.fromkeys(graphics.DRAWINGS))
def test_what_is_drawn_looks_so(drawing: graphics.Drawing) -> None:
    found = [drawn(drawing(graphics.Chance(seed), 200, 300)) for seed in range(8)]
    assert sum(found) >= (7 if getattr(drawing, "__name__", "") in SIMPLE else 4)


@pytest.mark.slow
def test_photographs_do_not(shared_data: Path) -> None:
    pictures = [
        file
        for name in ("Set5", "Set14", "B100", "Urban20")
        for file in sorted((shared_data / "bench/HR" / name).iterdir())
    ]
    assert len(pictures) == 139
    samples = {file.stem: np.asarray(Image.open(file).convert("RGB")) for file in pictures}
    assert [name for name, pixels in samples.items() if drawn(pixels)] == ["ppt3"]  # a slide
    assert [name for name, pixels in samples.items() if noisy(pixels)] == []
    # these came as JPEGs and were not resized since; at 4 pixels from the grid nothing is found
    assert sorted(name for name, pixels in samples.items() if traces(pixels)) == WERE_JPEGS
    assert [name for name, pixels in samples.items() if traces(pixels[4:, 4:])] == []
    for scale in (2, 4):  # fine texture is stronger when it was shrunk
        small = {name: to_pixels(downscale(mod_crop(pixels, scale), scale)) for name, pixels in samples.items()}
        assert [name for name, pixels in small.items() if noisy(pixels)] == []
        assert [name for name, pixels in small.items() if traces(pixels)] == []
        assert [name for name, pixels in small.items() if traces(saved(pixels, 95))] == []
        assert [name for name, pixels in small.items() if noisy(saved(pixels, 85)) or noisy(saved(pixels, 95))] == []
        rate = {
            quality: sum(traces(saved(pixels, quality)) == quality for pixels in small.values()) for quality in (50, 85)
        }
        assert min(rate.values()) >= 120
    assert sum(noisy(with_noise(pixels, 8)) for pixels in samples.values()) > 130


def saved(pixels: Samples, *qualities: int) -> Samples:
    """Written and read as JPEGs of these qualities, one after the other."""
    for quality in qualities:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=quality)
        pixels = np.asarray(Image.open(file))
    return pixels


def photographs() -> list[Samples]:
    """Ten clean ones."""
    half = to_pixels(downscale(mod_crop(PHOTO, 2), 2))
    turned = [np.ascontiguousarray(np.rot90(pixels, turns)) for pixels in (PHOTO, half) for turns in range(4)]
    return [*turned, half[:, ::-1], np.ascontiguousarray(PHOTO[4:-4, 4:-4])]


@pytest.mark.parametrize("first", [30, 50, 75, 85])
@pytest.mark.parametrize("again", [(), (95,), (97,)], ids=str)
def test_what_was_a_jpeg_is_seen(first: int, again: tuple[int, ...]) -> None:
    found = [traces(saved(pixels, first, *again)) for pixels in photographs()]
    assert found.count(first) >= 8


def test_what_was_no_poor_jpeg_is_none() -> None:
    for pixels in photographs():
        assert traces(pixels) is None
        assert traces(saved(pixels, 92)) is None
        assert traces(saved(pixels, 95)) is None
        assert traces(saved(pixels, 95, 97)) is None
        assert traces(saved(pixels, 50).astype(np.uint16)) is None  # of 16 bits nothing is known


def test_a_jpeg_that_was_saved_again_is_told_of(
    tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finescale.weights.places.candidates", lambda: [tmp_path])
    pixels = saved(PHOTO, 60)
    tall = np.tile(PHOTO, (3, 1, 1))[: 2 * 256 + 36]  # its middle rows begin beside the grid
    files = {"a.png": pixels, "a.jpg": pixels, "tall.png": saved(tall, 60), "clean.png": PHOTO}
    for name, content in files.items():
        Image.fromarray(content).save(tmp_path / name, quality=96)
    assert advice(tmp_path / "a.png", Picture(pixels)) is None  # the network is not there
    for kind in ("jpeg", "graphics"):
        shutil.copy(tiny_weights / "sa-rcan-light-x2.safetensors", tmp_path / f"sa-rcan-light-{kind}-x2.safetensors")
    for name, content in files.items():
        read = np.asarray(Image.open(tmp_path / name)) if name == "a.jpg" else content
        for picture in (Picture(read), None):
            found = advice(tmp_path / name, picture)
            told = found and (found.network, found.one)
            assert told == (None if name == "clean.png" else ("sa-rcan-light-jpeg", "has been a JPEG of quality 60"))
    assert advice(None, Picture(pixels)) == advice(tmp_path / "a.png", Picture(pixels))
    assert advice(tmp_path / "clean.png", Picture(pixels.astype(np.uint16) * 257)) is None


def test_what_is_regular_was_no_jpeg() -> None:
    y, x = np.mgrid[:256, :512]
    levels = [x // size % 2 * contrast + y // size % 2 * 9 + 40 for size in (1, 2, 3, 4, 8) for contrast in (20, 150)]
    levels += [30 + (x + y * down) * slope % 200 for down in (0, 1) for slope in (0.25, 0.5, 1, 3.7)]
    chance = np.random.default_rng(0)
    levels += [chance.integers(0, 4, (64, 128)).repeat(4, 0).repeat(4, 1) * step + 20 for step in (4, 16, 32)]
    levels += [chance.normal(128, sigma, y.shape).clip(1, 254) for sigma in (1, 10, 30)]
    for plane in levels:
        assert traces(plane[..., None].astype(np.uint8)) is None
    for drawing in dict.fromkeys(graphics.DRAWINGS):
        assert [seed for seed in range(4) if traces(drawing(graphics.Chance(seed), 240, 300))] == []


def test_few_colours_look_drawn() -> None:
    image = Image.fromarray(PHOTO)
    one_bit = np.asarray(image.convert("1")).astype(np.uint8)[..., None] * 255
    bayer = (PHOTO[..., :1] // 16 > np.indices(PHOTO.shape[:2]).sum(0)[..., None] % 4 * 4).astype(np.uint8) * 255
    checkers = (np.indices((64, 64)).sum(0)[..., None] % 2 * 200).astype(np.uint8)
    for pixels in (one_bit, bayer, checkers, np.asarray(image.quantize(16).convert("RGB"))):
        assert drawn(pixels)
        assert drawn(pixels.astype(np.uint16) * 257)
        assert drawn(np.pad(pixels, ((9, 9), (9, 9), (0, 0)), constant_values=77))
    assert not drawn(np.asarray(image.quantize(64).convert("RGB")))
    assert not drawn(checkers[:8, :8])
    assert not drawn(np.random.default_rng(0).integers(100, 110, (90, 90, 1)).astype(np.uint8))  # fog
    shown = np.zeros(PHOTO.shape[:2], np.uint8)
    shown[10:60, 10:60] = 255
    assert drawn(np.where(shown[..., None] > 0, one_bit, PHOTO), shown)


def with_noise(pixels: Samples, levels: float, channels: int = 3) -> Samples:
    noise = np.random.default_rng(0).normal(0, levels, (*pixels.shape[:2], channels))
    return (pixels + noise).round().clip(0, 255).astype(np.uint8)


def test_a_noisy_photograph_looks_so(tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for levels, channels, wanted in ((0, 3, False), (4, 3, False), (8, 3, True), (7, 1, False), (14, 1, True)):
        pixels = with_noise(PHOTO, levels, channels)
        assert noisy(pixels) == wanted
        assert noisy(pixels.astype(np.uint16) * 257) == wanted
    assert noisy(with_noise(PHOTO[..., 1:2], 14, 1))
    monkeypatch.setattr("finescale.weights.places.candidates", lambda: [tmp_path])
    shutil.copy(tiny_weights / "sa-rcan-light-x2.safetensors", tmp_path / "sa-rcan-light-noise-x2.safetensors")
    file = tmp_path / "night.png"
    Image.fromarray(with_noise(PHOTO, 10)).save(file)
    for picture in (Picture(with_noise(PHOTO, 10)), None):
        found = advice(file, picture)
        assert found
        assert (found.network, found.one) == ("sa-rcan-light-noise", "looks noisy")
    assert advice(file, Picture(PHOTO)) is None


@pytest.mark.parametrize(("quality", "network"), [(90, "sa-rcan-light-noise"), (50, "sa-rcan-light-jpeg")])
def test_of_a_noisy_jpeg_the_worse_damage_counts(
    quality: int, network: str, tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finescale.weights.places.candidates", lambda: [tmp_path])
    for name in ("noise", "jpeg"):
        shutil.copy(tiny_weights / "sa-rcan-light-x2.safetensors", tmp_path / f"sa-rcan-light-{name}-x2.safetensors")
    file = tmp_path / "night.jpg"
    Image.fromarray(with_noise(PHOTO, 15)).save(file, quality=quality)
    for picture in (read(file), None):
        found = advice(file, picture)
        assert found
        assert found.network == network
    again = advice(None, Picture(saved(with_noise(PHOTO, 15), quality, 95)))
    assert again
    assert again.network == network


def test_what_is_empty_does_not_count() -> None:
    height, width = PHOTO.shape[:2]
    framed = np.full((3 * height, 3 * width, 3), 255, np.uint8)
    framed[height : 2 * height, width : 2 * width] = PHOTO
    hidden = np.zeros((3 * height, 3 * width), np.uint8)
    hidden[height : 2 * height, width : 2 * width] = 255
    for pixels, alpha in ((PHOTO, None), (framed, None), (framed, hidden)):
        assert not drawn(pixels, alpha)
    noise = np.random.default_rng(0).integers(0, 256, framed.shape, np.uint8)
    noise[height : 2 * height, width : 2 * width] = graphics.picture(3, max(height, width))[:height, :width]
    assert drawn(noise, hidden)
    assert not drawn(noise)
    text = graphics.picture(3, 240)
    assert drawn(np.pad(text, ((90, 90), (90, 90), (0, 0))))
    assert drawn(text.astype(np.uint16) * 257)
    assert drawn(text[..., :1], np.full(text.shape[:2], 255, np.uint8))


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 5, 1), (900, 1, 3), (3, 2, 1)], ids=str)
def test_any_size_can_be_looked_at(shape: tuple[int, int, int]) -> None:
    assert not drawn(np.zeros(shape, np.uint8))
    assert not noisy(np.full(shape, 99, np.uint8))
    assert traces(np.full(shape, 99, np.uint8)) is None
    assert not drawn(np.arange(np.prod(shape)).reshape(shape).astype(np.uint8))


def test_a_jpeg_is_looked_at_first(tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = graphics.picture(3, 240)
    file = tmp_path / "a.jpg"
    Image.fromarray(pixels).save(file, quality=30)
    monkeypatch.setattr("finescale.weights.places.candidates", lambda: [tmp_path])
    assert advice(file, Picture(pixels)) is None  # neither network is there
    shutil.copy(tiny_weights / "sa-rcan-light-x2.safetensors", tmp_path / "sa-rcan-light-graphics-x2.safetensors")
    found = advice(file, Picture(pixels))
    assert found
    assert found.network == "sa-rcan-light-graphics"
    assert advice(PHOTOGRAPH, Picture(PHOTO)) is None
    shutil.copy(tiny_weights / "sa-rcan-light-x4.safetensors", tmp_path / "sa-rcan-light-jpeg-x4.safetensors")
    found = advice(file, Picture(pixels))
    assert found
    assert (found.network, found.one) == ("sa-rcan-light-jpeg", "a JPEG of quality 30")


def test_of_a_large_picture_some_rows_are_read(
    tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finescale.weights.places.candidates", lambda: [tmp_path])
    shutil.copy(tiny_weights / "sa-rcan-light-x4.safetensors", tmp_path / "sa-rcan-light-graphics-x4.safetensors")
    for name, pixels in (("drawn", graphics.picture(3, 900)), ("photo", np.tile(PHOTO, (5, 1, 1)))):
        file = tmp_path / f"{name}.png"
        Image.fromarray(pixels).save(file)
        assert bool(advice(file, None)) == (name == "drawn")
    file.write_bytes(file.read_bytes()[:200])
    assert advice(file, None) is None
