"""Whether a picture is told of the network that suits it."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from finescale.data import graphics
from finescale.evaluation.arrays import downscale, to_pixels
from finescale.images.picture import Picture, Samples, mod_crop
from finescale.inference.advice import advice, drawn, noisy
from finescale.inference.photograph import PHOTOGRAPH

PHOTO = np.asarray(Image.open(PHOTOGRAPH).convert("RGB"))
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
    for scale in (2, 4):  # fine texture is stronger when it was shrunk
        small = {name: to_pixels(downscale(mod_crop(pixels, scale), scale)) for name, pixels in samples.items()}
        assert [name for name, pixels in small.items() if noisy(pixels)] == []
    assert sum(noisy(with_noise(pixels, 8)) for pixels in samples.values()) > 130


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
