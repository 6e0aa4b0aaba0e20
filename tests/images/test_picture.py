"""Pictures as data, and to and from Pillow."""

import io
import tracemalloc
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import pyvips
from PIL import Image, ImageCms, ImageOps

from finescale.errors import FinescaleError, UsageError
from finescale.images.files import read
from finescale.images.picture import Picture, from_pil, on_white, oriented, to_8_bit, to_pil

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (5, 7, 3)).astype(np.uint8)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright_as_pillow_turns_it(orientation: int) -> None:
    image = Image.fromarray(COLOUR)
    image.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(oriented(COLOUR, orientation), expected)
    picture = from_pil(image)
    np.testing.assert_array_equal(picture.pixels, expected)
    assert picture.exif is not None
    again = to_pil(picture)
    exif = Image.Exif()
    exif.load(again.info["exif"])
    assert exif[0x0112] == 1
    np.testing.assert_array_equal(from_pil(again).pixels, expected)


def test_exif_tells_the_size_of_the_picture_it_is_in() -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769).update({0xA002: 1000, 0xA003: 2000})
    image = to_pil(Picture(COLOUR, exif=exif.tobytes()))
    told = image.getexif().get_ifd(0x8769)
    assert (told[0xA002], told[0xA003]) == image.size == (7, 5)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF"])
@pytest.mark.parametrize(("orientation", "wanted"), [(3, (300, 150)), (6, (150, 300))])
def test_two_resolutions_turn_with_the_picture(format: str, orientation: int, wanted: tuple[float, float]) -> None:
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(COLOUR).save(buffer, format, exif=exif, dpi=(300, 150))
    assert from_pil(Image.open(buffer)).resolution == pytest.approx(wanted, abs=0.02)
    assert read(buffer.getvalue()).resolution == pytest.approx(wanted, abs=0.02)


def test_16_bits_to_8_are_rounded_to_the_nearest() -> None:
    every = np.arange(65536, dtype=np.uint16)
    np.testing.assert_array_equal(to_8_bit(every), np.floor(every / 257 + 0.5).astype(np.uint8))


def test_16_bits_to_8_need_little_memory_beside_the_result() -> None:
    large = RNG.integers(0, 65536, (700, 500, 3)).astype(np.uint16)
    for samples in (large, large.swapaxes(0, 1), large[:1], large[..., 0]):
        np.testing.assert_array_equal(to_8_bit(samples), np.floor(samples / 257 + 0.5).astype(np.uint8))
    tracemalloc.start()
    to_8_bit(large)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < large.nbytes  # twice the result


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_what_is_half_transparent_is_mixed_with_white(kind: type[np.uint8 | np.uint16]) -> None:
    top = int(np.iinfo(kind).max)
    pixels = RNG.integers(0, top + 1, (9, 7, 3)).astype(kind)
    pixels[0, :3] = [[0], [top // 2], [top]]
    for alpha in (np.full((9, 7), top // 2, kind), RNG.integers(0, top + 1, (9, 7)).astype(kind)):
        found = on_white(pixels, alpha)
        assert found.dtype == kind
        for place in np.ndindex(pixels.shape):
            share = Fraction(int(alpha[place[:2]]), top)
            assert found[place] == round(int(pixels[place]) * share + top * (1 - share))


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "BMP", "GIF"])
def test_damaged_files_that_pillow_opened(format: str) -> None:
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(buffer, format)
    with pytest.raises(FinescaleError, match="damaged or cut off"):
        from_pil(Image.open(io.BytesIO(buffer.getvalue()[: 2000 if format != "TIFF" else -900])))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "F", "YCbCr", "HSV"])
def test_modes_of_pillow(mode: str) -> None:
    if mode == "I;16":
        image = Image.fromarray(RNG.integers(0, 65536, (5, 7)).astype(np.uint16))
    elif mode == "F":
        image = Image.fromarray(RNG.random((5, 7)).astype(np.float32))
    else:
        image = Image.fromarray(COLOUR).convert(mode)
    picture = from_pil(image)
    assert picture.bits == (16 if mode in ("I;16", "F") else 8)
    assert picture.pixels.shape[2] == (1 if mode in ("1", "L", "LA", "I;16", "F") else 3)
    assert (picture.alpha is not None) == (mode in ("LA", "RGBA"))
    if mode in ("L", "LA", "RGB", "RGBA", "I;16"):
        np.testing.assert_array_equal(np.asarray(to_pil(picture)), np.asarray(image))


@pytest.mark.parametrize(("mode", "kept"), [("RGB", True), ("L", False), ("LA", False), ("LAB", False)])
def test_a_profile_of_other_channels_does_not_come_along(mode: str, kept: bool) -> None:
    srgb = ImageCms.createProfile("sRGB")
    image = Image.fromarray(COLOUR)
    image.info["icc_profile"] = ImageCms.ImageCmsProfile(srgb).tobytes()
    if mode == "LAB":
        changed = ImageCms.profileToProfile(image, srgb, ImageCms.createProfile("LAB"), outputMode="LAB")
        assert changed is not None
    else:
        changed = image.convert(mode)
    assert changed.info["icc_profile"]  # of another kind of picture than the one it lies in, but for RGB
    assert (from_pil(changed).icc is not None) == kept


def test_a_transparent_palette_keeps_its_holes() -> None:
    image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8)).convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.info["transparency"] = 1
    picture = from_pil(image)
    np.testing.assert_array_equal(picture.pixels[0], [[10, 20, 30], [40, 50, 60]])
    np.testing.assert_array_equal(picture.alpha, [[255, 0], [255, 0]])


@pytest.mark.parametrize("value", [1.5, -0.1, float("nan")])
def test_floats_outside_their_range_are_refused(value: float) -> None:
    with pytest.raises(FinescaleError, match="floating-point"):
        from_pil(Image.fromarray(np.full((2, 2), value, np.float32)))


def test_shapes_and_types_are_checked() -> None:
    good = np.zeros((2, 3, 3), np.uint8)
    for pixels, alpha in (
        (good[..., 0], None),
        (good[..., :2], None),
        (good.astype(float), None),
        (good[:0], None),
        (good, good),
        (good, np.zeros((2, 3), np.uint16)),
    ):
        with pytest.raises(ValueError):
            Picture(pixels, alpha)


def _pillow(format: str, **options: object) -> Image.Image:
    buffer = io.BytesIO()
    Image.fromarray(COLOUR).save(buffer, format, **options)
    return Image.open(buffer)


@pytest.mark.parametrize("block", [b"Exif\0\0no structure", b"Exif\0\0II*\0"])
def test_a_broken_exif_block_of_pillow_s_is_no_damage(block: bytes) -> None:
    image = _pillow("PNG", exif=block)
    picture = from_pil(image)
    np.testing.assert_array_equal(picture.pixels, COLOUR)
    assert picture.exif is None


@pytest.mark.parametrize("tiled", [False, True])
def test_exif_of_a_pillow_tiff_is_without_its_layout(tiled: bool, tmp_path: Path) -> None:
    image = _pillow("TIFF", tiffinfo={271: "a maker", 34377: b"layers" * 50}, icc_profile=bytes(3000))
    if tiled:
        vips = pyvips.Image.new_from_array(COLOUR)
        vips.set_type(pyvips.GValue.blob_type, "photoshop-data", b"layers" * 50)
        vips.tiffsave(str(tmp_path / "tiled.tif"), tile=True)
        image = Image.open(tmp_path / "tiled.tif")
        image.getexif()[271] = "a maker"
        assert 324 in image.getexif()
    picture = from_pil(image)
    assert picture.exif is not None
    assert len(picture.exif) < 300
    exif = Image.Exif()
    exif.load(picture.exif)
    assert exif[271] == "a maker"
    assert not {256, 257, 258, 262, 273, 324, 34377, 34675} & set(exif)


def test_a_pillow_image_of_a_closed_file_is_one_sentence() -> None:
    image = _pillow("PNG")
    image.close()
    with pytest.raises(UsageError, match="closed before it was read"):
        from_pil(image)
