"""Whether a picture is told of the network that suits it."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from finescale.data import graphics
from finescale.images.picture import Picture
from finescale.inference.advice import advice, drawn
from finescale.inference.photograph import PHOTOGRAPH


@pytest.mark.parametrize("drawing", dict.fromkeys(graphics.DRAWINGS))
def test_what_is_drawn_looks_so(drawing: graphics.Drawing) -> None:
    found = [drawn(Picture(drawing(graphics.Chance(seed), 200, 300))) for seed in range(8)]
    assert sum(found) >= (5 if drawing.__name__ in ("_stripes", "_halftone", "_cells", "_dithering") else 8)


def test_photographs_do_not(shared_data: Path) -> None:
    pictures = [
        file
        for name in ("Set5", "Set14", "B100", "Urban20")
        for file in sorted((shared_data / "bench/HR" / name).iterdir())
    ]
    assert len(pictures) == 139
    found = [file.stem for file in pictures if drawn(Picture(np.asarray(Image.open(file).convert("RGB"))))]
    assert found == ["ppt3"]  # a slide


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 5, 1), (900, 1, 3), (3, 2, 1)], ids=str)
def test_any_size_can_be_looked_at(shape: tuple[int, int, int]) -> None:
    assert drawn(Picture(np.zeros(shape, np.uint8))) == (shape[1] > 1)


def test_a_jpeg_is_looked_at_first(tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.zeros((16, 16, 3), np.uint8)
    file = tmp_path / "a.jpg"
    Image.fromarray(pixels).save(file, quality=30)
    monkeypatch.setenv("FINESCALE_WEIGHTS", str(tmp_path))
    monkeypatch.setattr("finescale.weights.places.candidates", lambda: [tmp_path])
    assert advice(file, Picture(pixels)) is None  # neither network is there
    shutil.copy(tiny_weights / "sa-rcan-light-x4.safetensors", tmp_path / "sa-rcan-light-graphics-x4.safetensors")
    found = advice(file, Picture(pixels))
    assert found
    assert found.network == "sa-rcan-light-graphics"
    assert advice(file, None) is None
    assert advice(PHOTOGRAPH, Picture(np.asarray(Image.open(PHOTOGRAPH).convert("RGB")))) is None
    shutil.copy(tiny_weights / "sa-rcan-light-x4.safetensors", tmp_path / "sa-rcan-light-jpeg-x4.safetensors")
    found = advice(file, Picture(pixels))
    assert found
    assert (found.network, found.one) == ("sa-rcan-light-jpeg", "a JPEG of quality 30")
