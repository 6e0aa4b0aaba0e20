"""Pictures of another size: transparency, proportions, crops, folders."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finescale.errors import UsageError
from finescale.images.picture import Picture, mod_crop
from finescale.images.scaling import pairs, resize_picture
from finescale.images.sizes import parse_box, parse_scale, target_size


def disc(colour: tuple[int, int, int], hidden: int, dtype: str = "uint8") -> Picture:
    """A disc of one colour, with another (invisible) grey around it."""
    y, x = np.mgrid[:40, :40] - 19.5
    inside = x**2 + y**2 < 14**2
    factor = 1 if dtype == "uint8" else 257
    pixels = np.where(inside[..., None], np.array(colour), hidden) * factor
    return Picture(pixels.astype(dtype), (inside * 255 * factor).astype(dtype))


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("hidden", [0, 255])
@pytest.mark.parametrize("scale", [0.25, 3.0])
def test_no_fringes(dtype: str, hidden: int, scale: float) -> None:
    result = resize_picture(disc((200, 40, 90), hidden, dtype), scale=scale)
    assert result.alpha is not None
    seen = result.alpha > 0
    assert 0 < seen.mean() < 1
    expected = np.array([200, 40, 90]) * (1 if dtype == "uint8" else 257)
    np.testing.assert_array_equal(result.pixels[seen], np.broadcast_to(expected, (int(seen.sum()), 3)))


def test_an_opaque_alpha_changes_nothing() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    plain = resize_picture(Picture(pixels), scale=0.5)
    clear = resize_picture(Picture(pixels, np.full((20, 30), 255, np.uint8)), scale=0.5)
    np.testing.assert_array_equal(plain.pixels, clear.pixels)
    assert clear.alpha is not None
    assert clear.alpha.min() == 255


def test_metadata_goes_along() -> None:
    picture = Picture(np.zeros((8, 8, 1), np.uint8), icc=b"profile", resolution=(300, 300), format="png")
    result = resize_picture(picture, (5, 3))
    assert (result.size, result.icc, result.resolution) == ((5, 3), b"profile", (300, 300))


def test_sizes_keep_the_proportions() -> None:
    assert target_size((400, 300), width=200) == (200, 150)
    assert target_size((400, 300), height=100) == (133, 100)
    assert target_size((400, 300), fit=(1000, 600)) == (800, 600)
    assert target_size((5000, 1), width=10) == (10, 1)
    wrong: list[dict[str, Any]] = [{}, {"width": 0}, {"height": -3}, {"width": 3, "height": 4}]
    for request in wrong:
        with pytest.raises(UsageError):
            target_size((10, 10), **request)


def test_scales_and_boxes_as_typed() -> None:
    assert [parse_scale(text) for text in ("1/4", "0.25", "3")] == [Fraction(1, 4), Fraction(1, 4), Fraction(3)]
    assert parse_box("1920x1080") == (1920, 1080)
    for wrong in ("0", "-1", "1/0", "big", "", "nan"):
        with pytest.raises(UsageError):
            parse_scale(wrong)
    for wrong in ("12", "0x5", "axb", "1x2x3", "-1x4"):
        with pytest.raises(UsageError):
            parse_box(wrong)


def test_mod_crop_takes_from_the_right_and_the_bottom() -> None:
    pixels = np.arange(7 * 9, dtype=np.uint8).reshape(7, 9, 1)
    np.testing.assert_array_equal(mod_crop(pixels, 4), pixels[:4, :8])
    with pytest.raises(UsageError, match="7"):
        mod_crop(pixels, 8)


def test_folders_keep_their_structure(tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    (source / "deep").mkdir(parents=True)
    for name in ("b.PNG", "deep/a.jpg", "notes.txt", ".hidden.png", "still.gif"):
        (source / name).touch()
    found = [new.relative_to(target).as_posix() for _, new in pairs(source, target)]
    assert found == ["b.PNG", "deep/a.png", "still.png"]
    assert {new.suffix for _, new in pairs(source, target, "png")} == {".png"}
