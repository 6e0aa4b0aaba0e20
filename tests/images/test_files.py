"""Files: every kind is read and written with all it holds; what cannot be is one sentence and no half file."""

import gc
import io
import logging
import os
import re
import signal
import struct
import subprocess
import sys
import threading
import warnings
import weakref
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyvips
from numpy.typing import NDArray
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo
from PIL.TiffImagePlugin import IFDRational
from tests.conftest import bound_by_permissions, disk_of

from finescale.atomic import new_file
from finescale.errors import FinescaleError, TooLargeError, UsageError
from finescale.images.colours import chunk
from finescale.images.decoders import HEIC
from finescale.images.exif import Tags, directories
from finescale.images.files import READABLE, Opened, check_size, encode, probe, read, stripping, warnings_to, write
from finescale.images.folders import NOT_READ, apart
from finescale.images.picture import Picture, cmyk_to_srgb, from_pil, split, to_8_bit
from finescale.images.strips import StripReader, StripWriter

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
GREY_PROFILE = PROFILE[:16] + b"GRAY" + PROFILE[20:]
EXTENSIONS = ["png", "tif", "jpg", "webp", "avif", "bmp"]


def samples(channels: int, bits: int = 8, size: tuple[int, int] = (53, 37)) -> NDArray[Any]:
    """Smooth samples with a little noise, no two channels alike."""
    y, x = np.mgrid[: size[1], : size[0]]
    waves = np.stack([np.sin(x / (5 + c) + c) + np.cos(y / (7 - c)) for c in range(channels)], 2)
    noise = np.random.default_rng(0).normal(0, 0.01, waves.shape)
    return ((waves + noise).clip(-2, 2) / 4 * (2**bits - 1) + 2 ** (bits - 1) - 0.5).astype(f"uint{bits}")


def picture(channels: int, bits: int = 8, **kwargs: Any) -> Picture:
    return Picture(*split(samples(channels, bits)), **kwargs)


def exif(orientation: int = 1) -> bytes:
    block = Image.Exif()
    block[0x0112], block[0x010E], block[0x0110] = orientation, "a description", "camera"
    block.get_ifd(0x8769).update({0x9286: b"ASCII\0\0\0a comment", 0xA002: 1, 0xA003: 1, 0x829A: IFDRational(1, 250)})
    block.get_ifd(0x8825).update({1: "N", 2: (52.0, 31.0, 12.5)})
    return block.tobytes()


def tags(block: bytes | None) -> dict[str, Any]:
    """What matters of an EXIF block."""
    assert block
    found = Image.Exif()
    found.load(block)
    camera, place = found.get_ifd(0x8769), found.get_ifd(0x8825)
    return {
        "orientation": found.get(0x0112, 1),
        "description": found[0x010E],
        "model": found[0x0110],
        "comment": camera[0x9286],
        "exposure": float(camera[0x829A]),
        "place": (place[1], tuple(map(float, place[2]))),
    }


def names(folder: Path) -> list[str]:
    """What is in a folder."""
    return sorted(path.name for path in folder.iterdir())


# -- round trips


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("extension", ["png", "tif"])
def test_png_and_tiff_keep_every_bit(tmp_path: Path, extension: str, channels: int, bits: int) -> None:
    path = tmp_path / f"a.{extension}"
    icc = GREY_PROFILE if channels < 3 else PROFILE
    original = picture(channels, bits, icc=icc, exif=exif(), resolution=(300.0, 150.0))
    write(original, path)
    again = read(path)
    np.testing.assert_array_equal(again.samples, original.samples)
    assert again.samples.dtype == original.samples.dtype
    assert again.icc == icc
    assert again.resolution == pytest.approx(original.resolution, abs=0.02)
    assert tags(again.exif) == tags(exif())
    assert probe(path) == (53, 37, "png" if extension == "png" else "tiff", channels, bits, 1)
    if bits == 8 or (extension == "png" and channels == 1):  # others read the same pixels, as far as they can
        with Image.open(path) as image:
            np.testing.assert_array_equal(np.asarray(image).reshape(again.samples.shape), original.samples)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("extension", ["webp", "avif"])
def test_quality_100_is_lossless_where_it_can_be(tmp_path: Path, extension: str, channels: int) -> None:
    path = tmp_path / f"a.{extension}"
    original = picture(channels, icc=PROFILE, exif=exif())
    write(original, path, quality=100)
    again = read(path)
    grey = original.pixels.repeat(3 // original.pixels.shape[2], 2)  # neither format gives grey back as grey
    np.testing.assert_array_equal(again.pixels, grey)
    assert (again.alpha is None) == (original.alpha is None)
    if original.alpha is not None:
        np.testing.assert_array_equal(again.alpha, original.alpha)
    assert again.icc == original.icc
    assert tags(again.exif) == tags(exif())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("extension", "least"), [("jpg", 38), ("webp", 35), ("avif", 35), ("bmp", 200)])
def test_usual_qualities_are_close(tmp_path: Path, extension: str, least: float, channels: int) -> None:
    path = tmp_path / f"a.{extension}"
    icc = GREY_PROFILE if channels < 3 and extension == "jpg" else PROFILE
    original = picture(channels, icc=icc, exif=exif(), resolution=(300, 150))
    write(original, path)
    again = read(path)
    assert again.pixels.shape[2] == (3 if extension in ("webp", "avif") else channels)
    error = np.mean((again.pixels.astype(float) - original.pixels) ** 2)
    assert error == 0 or 10 * np.log10(255**2 / error) > least
    if extension != "bmp":
        assert again.icc == icc
        assert tags(again.exif) == tags(exif())
    if extension in ("jpg", "bmp"):
        assert again.resolution == pytest.approx((300, 150), abs=0.02)


def test_a_profile_that_does_not_fit_is_left_out(tmp_path: Path) -> None:
    for extension in EXTENSIONS:
        stored_as_colour = extension in ("webp", "avif")
        write(picture(1, icc=GREY_PROFILE if stored_as_colour else PROFILE), tmp_path / f"a.{extension}")
        assert read(tmp_path / f"a.{extension}").icc is None


def grey_profile(gamma: float) -> bytes:
    """An ICC profile (version 2) of a grey with this gamma."""
    white = b"XYZ " + struct.pack(">4x3i", 0xF6D6, 0x10000, 0xD32D)
    tags = {
        b"desc": b"desc" + struct.pack(">4xI", 2) + b"g".ljust(80, b"\0"),
        b"wtpt": white,
        b"kTRC": b"curv" + struct.pack(">4xIHxx", 1, round(gamma * 256)),
        b"cprt": b"text" + bytes(4) + b"none",
    }
    place, table, content = 132 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        table += struct.pack(">4sII", name, place + len(content), len(data))
        content += data
    head = struct.pack(
        ">I4sI4s4s4s12x4s", place + len(content), b"test", 0x02100000, b"mntr", b"GRAY", b"XYZ ", b"acsp"
    )
    return head.ljust(68, b"\0") + white[8:] + bytes(48) + table + content


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_a_profile_that_a_format_does_not_take_is_told(
    tmp_path: Path, extension: str, caplog: pytest.LogCaptureFixture
) -> None:
    wide = bytes(pyvips.Operation.call("profile_load", "p3"))
    for channels, icc in ((1, grey_profile(1.8)), (3, wide), (3, PROFILE)):
        caplog.clear()
        path = tmp_path / f"a.{extension}"
        write(picture(channels, icc=icc), path, overwrite=True)
        lost = icc != PROFILE and (extension == "bmp" or (channels == 1 and extension in ("webp", "avif")))
        assert (read(path).icc == icc) == (not lost and extension != "bmp")
        assert [m.endswith("; its tones will look different") for m in caplog.messages] == [True] * lost


def test_jpeg_keeps_the_colours_resolution(tmp_path: Path) -> None:
    write(picture(3), tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.layer[0][1:3] == image.layer[1][1:3]  # type: ignore[attr-defined]


@pytest.mark.parametrize("extension", ["jpg", "webp", "bmp"])
def test_16_bits_are_rounded_for_8_bit_formats(tmp_path: Path, extension: str) -> None:
    deep = picture(3, 16)
    write(deep, tmp_path / f"deep.{extension}", quality=100)
    write(Picture(to_8_bit(deep.pixels)), tmp_path / f"flat.{extension}", quality=100)
    assert (tmp_path / f"deep.{extension}").read_bytes() == (tmp_path / f"flat.{extension}").read_bytes()


def test_avif_keeps_10_bits_over_the_whole_range(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64, 1).repeat(3, 2)
    write(Picture(ramp), tmp_path / "a.avif", quality=100)
    again = read(tmp_path / "a.avif").pixels
    assert again.dtype == np.uint16
    assert (again.min(), again.max()) == (0, 65535)
    assert np.abs(again.astype(int) - ramp).max() <= 33  # half a step of 10 bits


@pytest.mark.parametrize("extension", ["jpg", "bmp"])
@pytest.mark.parametrize("bits", [8, 16])
def test_transparency_is_laid_on_white_with_a_warning(
    tmp_path: Path, extension: str, bits: int, caplog: pytest.LogCaptureFixture
) -> None:
    pixels = np.full((16, 32, 3), 0, f"uint{bits}")
    alpha = np.zeros((16, 32), pixels.dtype)
    alpha[:, 16:] = np.iinfo(pixels.dtype).max
    write(Picture(pixels, alpha), tmp_path / f"a.{extension}")
    flat = read(tmp_path / f"a.{extension}")
    assert flat.alpha is None
    assert flat.pixels[:, :8].min() > 250
    assert flat.pixels[:, -8:].max() < 5
    assert "transparency" in caplog.text
    caplog.clear()
    write(Picture(pixels, np.full_like(alpha, np.iinfo(alpha.dtype).max)), tmp_path / f"b.{extension}")
    assert "holds no transparency" not in caplog.text
    assert ("holds 8 bits a sample" in caplog.text) == (bits == 16)


def test_one_pixel_and_narrow_pictures(tmp_path: Path) -> None:
    for size in ((1, 1), (3, 5000), (5000, 3)):
        for extension in ("png", "tif"):
            path = tmp_path / f"{size[0]}.{extension}"
            original = Picture(samples(3, 16, size))
            write(original, path)
            np.testing.assert_array_equal(read(path).pixels, original.pixels)


def test_png_is_about_as_small_as_others_make_it(tmp_path: Path) -> None:
    original = Picture(samples(3, 8, (400, 300)))
    write(original, tmp_path / "a.png")
    buffer = io.BytesIO()
    Image.fromarray(original.pixels).save(buffer, "png")
    assert (tmp_path / "a.png").stat().st_size < 1.1 * len(buffer.getvalue())


# -- what others write


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("extension", ["jpg", "png", "webp", "tif", "avif"])
def test_orientation_is_applied_once(tmp_path: Path, extension: str, orientation: int) -> None:
    corners = np.zeros((32, 64, 3), np.uint8)
    corners[:16, :32], corners[:16, 32:], corners[16:, :32] = 255, 170, 85
    path = tmp_path / f"a.{extension}"
    Image.fromarray(corners).save(path, exif=exif(orientation), quality=95)
    first = read(path)
    assert first.size == probe(path)[:2] == ((32, 64) if orientation > 4 else (64, 32))
    with Image.open(path) as image:
        image.load()
        turned = image.getexif().get(0x0112, 1)  # Pillow turns some formats itself
    methods = [None, 0, 3, 1, 5, 4, 6, 2]
    method = methods[orientation - 1]
    upright = np.asarray(Image.fromarray(corners) if method is None else Image.fromarray(corners).transpose(method))  # type: ignore[arg-type]
    assert np.abs(first.pixels.astype(int) - upright).max() < 24, turned
    assert tags(first.exif)["orientation"] == 1
    write(first, path, overwrite=True)
    second = read(path)
    assert second.size == first.size
    assert np.abs(second.pixels.astype(int) - upright).max() < 48
    assert tags(second.exif) == tags(exif())


def test_the_size_in_exif_follows_the_picture(tmp_path: Path) -> None:
    write(picture(3, exif=exif()), tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as image:
        camera = image.getexif().get_ifd(0x8769)
    assert (camera[0xA002], camera[0xA003]) == (53, 37)


def test_palettes(tmp_path: Path) -> None:
    image = Image.fromarray(samples(3)).quantize(16)
    image.save(tmp_path / "plain.png")
    image.save(tmp_path / "clear.png", transparency=3)
    image.save(tmp_path / "clear.gif", transparency=3)
    image.save(tmp_path / "plain.bmp")
    colours, holes = np.asarray(image.convert("RGB")), np.asarray(image) == 3
    for name in ("plain.png", "plain.bmp"):
        assert probe(tmp_path / name).channels == 3
        np.testing.assert_array_equal(read(tmp_path / name).samples, colours)
    for name in ("clear.png", "clear.gif"):
        clear = read(tmp_path / name)
        np.testing.assert_array_equal(clear.alpha, np.where(holes, 0, 255))
        np.testing.assert_array_equal(clear.pixels[~holes], colours[~holes])


@pytest.mark.parametrize("extension", ["png", "tif", "bmp"])
def test_one_bit(tmp_path: Path, extension: str) -> None:
    image = Image.fromarray(samples(1)[..., 0] > 128)
    image.save(tmp_path / f"a.{extension}")
    np.testing.assert_array_equal(read(tmp_path / f"a.{extension}").pixels[..., 0], np.asarray(image) * 255)


@pytest.mark.parametrize("extension", ["jpg", "tif"])
def test_cmyk_becomes_srgb(tmp_path: Path, extension: str) -> None:
    inks = np.zeros((32, 128, 4), np.uint8)
    inks[:, 32:64] = [0, 255, 255, 0]
    inks[:, 64:96] = [255, 0, 0, 0]
    inks[:, 96:] = [0, 0, 0, 255]
    Image.fromarray(inks, mode="CMYK").save(tmp_path / f"a.{extension}", quality=100)
    got = read(tmp_path / f"a.{extension}")
    assert got.icc is None
    white, red, cyan, black = got.pixels[16, [8, 40, 80, 120]].astype(int)
    assert white.min() > 245
    assert red[0] > 200
    assert red[1:].max() < 80
    assert cyan[0] < 100 < cyan[1] < cyan[2]
    assert black.max() < 60


def test_ycck_is_unpacked(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(samples(4, 8, (64, 64)), mode="CMYK").save(buffer, "jpeg", quality=95)
    data = buffer.getvalue()
    place = data.index(b"Adobe") + 11  # how the four channels are coded: 0 CMYK, 2 YCCK
    assert data[place] == 0
    (tmp_path / "a.jpg").write_bytes(data[:place] + b"\2" + data[place + 1 :])
    with Image.open(tmp_path / "a.jpg") as image:
        expected = cmyk_to_srgb(np.asarray(image), None)
    assert np.abs(read(tmp_path / "a.jpg").pixels.astype(int) - expected).max() <= 4


def test_cmyk_goes_through_its_profile(tmp_path: Path) -> None:
    inks = Image.fromarray(samples(4, 8, (64, 64)), mode="CMYK")
    printer = bytes(pyvips.Operation.call("profile_load", "cmyk"))
    inks.save(tmp_path / "plain.tif")
    inks.save(tmp_path / "same.tif", icc_profile=printer)
    inks.save(tmp_path / "wrong.tif", icc_profile=PROFILE)  # a profile for RGB says nothing about inks
    plain = read(tmp_path / "plain.tif").pixels
    for name in ("same.tif", "wrong.tif"):
        np.testing.assert_array_equal(read(tmp_path / name).pixels, plain)
    tags = (
        struct.unpack_from(">4sII", printer, 132 + 12 * i) for i in range(struct.unpack_from(">I", printer, 128)[0])
    )
    start, size = next((start, size) for name, start, size in tags if name == b"A2B1")
    table = slice(start + size // 4, start + size // 2)  # inks to colours: other colours for a part of the inks
    changed = printer[: table.start] + bytes(255 - x for x in printer[table]) + printer[table.stop :]
    inks.save(tmp_path / "other.tif", icc_profile=changed)
    assert not np.array_equal(read(tmp_path / "other.tif").pixels, plain)
    broken = printer[:start] + bytes(size) + printer[start + size :]
    inks.save(tmp_path / "broken.tif", icc_profile=broken)
    np.testing.assert_array_equal(read(tmp_path / "broken.tif").pixels, plain)
    np.testing.assert_array_equal(from_pil(Image.open(tmp_path / "broken.tif")).pixels, plain)


def ycbcr_tiff(planes: NDArray[Any], *, subsampling: int = 1, **tags: tuple[float, ...]) -> bytes:
    """An uncompressed TIFF of samples (H, W, 3) of YCbCr; `reference` and `coefficients` are tags of it."""
    height, width = planes.shape[:2]
    n = subsampling
    cells = planes.reshape(height // n, n, width // n, n, 3).transpose(0, 2, 1, 3, 4)
    luma, chroma = cells[..., 0].reshape(*cells.shape[:2], n * n), cells[:, :, 0, 0, 1:]
    data = np.concatenate([luma, chroma], 2).tobytes()
    main = {256: width, 257: height, 259: 1, 262: 6, 273: 8, 277: 3, 278: height, 279: len(data)}
    entries = {tag: (4, 1, struct.pack("<I", value)) for tag, value in main.items()}
    entries |= {258: (3, 3, struct.pack("<3H", 8, 8, 8)), 530: (3, 2, struct.pack("<2H", n, n))}
    for tag, name in ((529, "coefficients"), (532, "reference")):
        if name in tags:
            parts = [part for value in tags[name] for part in (round(value * 1000), 1000)]
            entries[tag] = (5, len(parts) // 2, struct.pack(f"<{len(parts)}I", *parts))
    return struct.pack("<2sHI", b"II", 42, 8 + len(data)) + data + directories(Tags(main=entries), 8 + len(data))


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "jpeg"])
def test_ycbcr_tiffs_become_rgb(tmp_path: Path, compression: str) -> None:
    original = Image.fromarray(samples(3)).convert("YCbCr")
    original.save(tmp_path / "a.tif", compression=compression, dpi=(300, 300))
    found = read(tmp_path / "a.tif")
    expected = np.asarray(original.convert("RGB")).astype(int)
    assert np.abs(found.samples - expected).max() <= (1 if compression != "jpeg" else 40)
    assert found.resolution == (300.0, 300.0)
    assert probe(tmp_path / "a.tif").channels == 3


def test_ycbcr_tiffs_of_every_kind() -> None:
    planes = np.asarray(Image.fromarray(samples(3, size=(52, 36))).convert("YCbCr"))
    expected = np.asarray(Image.fromarray(planes, "YCbCr").convert("RGB")).astype(int)
    assert np.abs(read(ycbcr_tiff(planes)).samples - expected).max() <= 1
    coarse = planes.copy()
    coarse[..., 1:] = planes[::2, ::2, 1:].repeat(2, 0).repeat(2, 1)
    expected = np.asarray(Image.fromarray(coarse, "YCbCr").convert("RGB")).astype(int)
    halved = read(ycbcr_tiff(planes, subsampling=2)).samples
    assert halved.shape == planes.shape  # opaque, without an alpha
    assert np.abs(halved - expected).max() <= 2
    narrow = np.array([[[16, 128, 128], [235, 128, 128], [63, 102, 240]]], np.uint8)  # of video: black, white, red
    video = ycbcr_tiff(narrow, reference=(16, 235, 128, 240, 128, 240), coefficients=(0.2126, 0.7152, 0.0722))
    np.testing.assert_allclose(read(video).pixels[0], [[0] * 3, [255] * 3, [255, 0, 0]], atol=2)


def png(width: int, height: int, bits: int, colour: int, rows: bytes, *extra: bytes) -> bytes:
    head = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return head + b"".join(extra) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


GAMMA = chunk(b"gAMA", struct.pack(">I", 100_000))
WIDE = chunk(b"cHRM", struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000))  # Display P3
CICP = chunk(b"cICP", bytes([12, 13, 0, 1]))  # the same, by number
SRGB = chunk(b"sRGB", b"\0") + chunk(b"gAMA", struct.pack(">I", 45455))


NEARLY = chunk(b"gAMA", struct.pack(">I", 45000))


@pytest.mark.parametrize(
    "told", [GAMMA, WIDE, CICP + GAMMA, SRGB, NEARLY], ids=["gamma", "wide", "by number", "sRGB", "nearly sRGB"]
)
@pytest.mark.parametrize("by_strips", [False, True])
def test_colours_told_without_a_profile(
    tmp_path: Path, told: bytes, by_strips: bool, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.png").write_bytes(png(2, 1, 8, 2, bytes(7), chunk(b"tEXt", b"a\0b"), told))
    found = read(tmp_path / "a.png")
    assert found.colours == told

    def save(name: str) -> bytes:
        if by_strips:
            reader = StripReader(tmp_path / "a.png")
            with StripWriter(tmp_path / name, reader.layout, overwrite=True) as out:
                out.write(0, reader.rows(0, 1))
        else:
            write(found, tmp_path / name, overwrite=True)
        return (tmp_path / name).read_bytes()

    assert told in save("b.png")
    assert not caplog.records
    save("b.tif")
    sentence = "b.tif: its colours are not those of sRGB, which without a profile only PNG can tell"
    assert (sentence in caplog.text) == (told not in (SRGB, NEARLY))


def test_a_profile_goes_before_what_else_is_told_of_colours(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    profile = chunk(b"iCCP", b"x\0\0" + zlib.compress(PROFILE))
    damaged = GAMMA[:-1] + bytes([GAMMA[-1] ^ 1])
    assert read(png(2, 1, 8, 2, bytes(7), GAMMA, profile)).colours is None
    assert read(png(2, 1, 8, 2, bytes(7), damaged)).colours is None
    caplog.clear()  # libvips has complained of it
    write(picture(3, icc=PROFILE, colours=GAMMA), tmp_path / "a.png")
    write(picture(3, icc=PROFILE, colours=GAMMA), tmp_path / "a.tif")
    assert b"gAMA" not in (tmp_path / "a.png").read_bytes()
    assert not caplog.records


def test_colours_of_avif(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    buffer = io.BytesIO()
    Image.fromarray(samples(3)).save(buffer, "AVIF")
    data = buffer.getvalue()
    assert data.count(b"colrnclx\0\1\0\r") == 1  # sRGB
    assert read(data).colours is None
    wide = read(data.replace(b"colrnclx\0\1", b"colrnclx\0\x0c"))
    write(wide, tmp_path / "a.png")
    assert CICP in (tmp_path / "a.png").read_bytes()
    assert not caplog.records
    write(wide, tmp_path / "a.jpg")
    assert "a.jpg: its colours are not those of sRGB" in caplog.text


def test_a_transparent_colour_at_16_bits() -> None:
    data = png(
        2, 1, 16, 2, b"\0" + struct.pack(">6H", 1, 2, 3, 500, 600, 700), chunk(b"tRNS", struct.pack(">3H", 1, 2, 3))
    )
    got = read(data)
    np.testing.assert_array_equal(got.alpha, [[0, 65535]])
    np.testing.assert_array_equal(got.pixels[0], [[1, 2, 3], [500, 600, 700]])


@pytest.mark.parametrize("channels", [1, 3])
def test_float_tiff(tmp_path: Path, channels: int) -> None:
    values = np.linspace(0, 1, 20 * 30 * channels, dtype=np.float32).reshape(20, 30, channels)
    pyvips.Image.new_from_array(values).tiffsave(str(tmp_path / "a.tif"))
    np.testing.assert_array_equal(read(tmp_path / "a.tif").pixels, np.floor(values.astype(float) * 65535 + 0.5))
    pyvips.Image.new_from_array(values * 40).tiffsave(str(tmp_path / "b.tif"))
    with pytest.raises(FinescaleError, match=r"b\.tif: holds floating-point samples from 0 to 40"):
        read(tmp_path / "b.tif")


def test_other_formats_of_floats_are_named_too(tmp_path: Path) -> None:
    (tmp_path / "a.pfm").write_bytes(b"Pf\n1 1\n-1.0\n" + struct.pack("<f", 7))
    with pytest.raises(FinescaleError, match=r"a\.pfm: holds floating-point samples from 7 to 7"):
        read(tmp_path / "a.pfm")


@pytest.mark.parametrize("open_it", [read, StripReader])
@pytest.mark.parametrize(
    ("bands", "kind", "orientation"), [(5, "srgb", 1), (6, "multiband", 6), (6, "cmyk", 1), (100, "b-w", 1)]
)
def test_too_many_channels_are_refused_before_they_are_decoded(
    tmp_path: Path, open_it: Callable[[Path], object], bands: int, kind: str, orientation: int
) -> None:
    image = pyvips.Image.new_from_array(np.zeros((64, 64, bands), np.uint16), interpretation=kind).copy()
    image.set_type(pyvips.GValue.gint_type, "orientation", orientation)
    image.tiffsave(str(tmp_path / "a.tif"), compression="deflate")
    data = bytearray((tmp_path / "a.tif").read_bytes())
    data[8:40] = bytes(32)  # of the first samples, over which decoding fails
    (tmp_path / "a.tif").write_bytes(data)
    sentence = rf"a\.tif: holds {bands - (kind == 'cmyk')} channels, and only grey, RGB and CMYK with alpha are read$"
    with pytest.raises(FinescaleError, match=sentence):
        open_it(tmp_path / "a.tif")


@pytest.mark.parametrize("extension", ["gif", "webp", "png", "avif", "tif"])
def test_the_first_of_several_frames_with_a_warning(
    tmp_path: Path, extension: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / f"a.{extension}"
    first, second = (Image.fromarray(np.full((16, 16, 3), v, np.uint8)) for v in (40, 200))
    first.save(path, save_all=True, append_images=[second])
    assert abs(int(read(path).pixels.mean()) - 40) <= 2
    assert "first is read" in caplog.text
    assert probe(path).frames == 2


def test_names_of_animations_and_of_packed_pictures() -> None:
    assert READABLE[".apng"] == "png"
    assert {".cbz", ".cbr"} <= NOT_READ


def test_warnings_go_to_the_listener_of_their_own_thread(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    frames = [Image.fromarray(np.full((16, 16), v, np.uint8)) for v in (40, 200)]
    heard: dict[str, list[str]] = {"a": [], "b": []}
    both = threading.Barrier(2)

    def listen(name: str) -> None:
        with warnings_to(heard[name].append):
            both.wait(10)  # now both listen
            read(tmp_path / f"{name}.gif")
            both.wait(10)

    for name in heard:
        frames[0].save(tmp_path / f"{name}.gif", save_all=True, append_images=frames[1:])
    threads = [threading.Thread(target=listen, args=[name]) for name in heard]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert heard == {n: [f"{tmp_path / n}.gif: has several frames or pages; only the first is read"] for n in heard}
    assert not caplog.records
    read(tmp_path / "a.gif")
    assert [record.getMessage() for record in caplog.records] == heard["a"]


def segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def ultra_hdr(base: bytes, gain: bytes) -> bytes:
    """A JPEG with a gain map behind it (ISO 21496-1), as phones write it."""
    name = b"urn:iso:std:iso:ts:21496:-1\0"
    gain = (
        gain[:2]
        + segment(0xE2, name + struct.pack(">HHB14I", 0, 0, 64, 0, *[1] * 3, 0, *[1] * 5, 0, 1, 0, 1))
        + gain[2:]
    )
    base = base[:2] + segment(0xE2, name + bytes(4)) + base[2:]
    place = 2 + 4 + 4  # from where offsets count: the start, the head of the segment, its name
    tags = {0xB000: (7, 4, b"0100"), 0xB001: (4, 1, struct.pack("<I", 2)), 0xB002: (7, 32, bytes(32))}
    size = len(base) + 4 + 4 + 8 + len(directories(Tags(main=tags), 8))  # in whole, with the segment
    entries = struct.pack("<8I", 0x30000, size, 0, 0, 0, len(gain), size - place, 0)
    several = b"II*\0" + struct.pack("<I", 8) + directories(Tags(main=tags | {0xB002: (7, 32, entries)}), 8)
    return base[:2] + segment(0xE2, b"MPF\0" + several) + base[2:] + gain


def test_of_ultra_hdr_the_picture_in_it_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    buffers = [io.BytesIO(), io.BytesIO()]
    Image.fromarray(samples(3)).save(buffers[0], "JPEG")
    Image.new("L", (16, 12), 90).save(buffers[1], "JPEG")
    base, gain = (buffer.getvalue() for buffer in buffers)
    data = ultra_hdr(base, gain)
    np.testing.assert_array_equal(read(data).pixels, read(base).pixels)
    (tmp_path / "a.jpg").write_bytes(data)
    assert probe(tmp_path / "a.jpg") == (53, 37, "jpeg", 3, 8, 1)
    assert not caplog.records


def test_a_changed_file_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    for value in (1, 2):
        write(Picture(np.full((4, 4, 3), value, np.uint8)), path, overwrite=True)
        assert read(path).pixels.max() == value


def test_bytes_open_files_and_odd_names(tmp_path: Path) -> None:
    for name in ("a [Q=3].png", "ünï ☃.png", "100%.png", "a.png[page=2].png"):
        write(picture(3), tmp_path / name)
        np.testing.assert_array_equal(read(str(tmp_path / name)).pixels, samples(3))
    data = (tmp_path / "100%.png").read_bytes()
    np.testing.assert_array_equal(read(data).pixels, samples(3))
    with open(tmp_path / "100%.png", "rb") as file:
        np.testing.assert_array_equal(read(file).pixels, samples(3))


def test_files_opened_as_text_are_refused(tmp_path: Path) -> None:
    write(picture(3), tmp_path / "a.png")
    (tmp_path / "a.txt").write_text(str(tmp_path / "a.png"))  # a text is no path either
    for name in ("a.png", "a.txt"):
        with open(tmp_path / name) as file, pytest.raises(UsageError, match=rf"{name}: is opened as text; .*'rb'"):
            read(file)  # type: ignore[arg-type]


def test_every_real_picture(shared_data: Path) -> None:
    found = [path for path in sorted((shared_data / "bench" / "real").rglob("*")) if path.is_file()]
    assert len(found) == 29
    for path in found:
        got, info = read(path), probe(path)
        assert (*got.size, got.samples.shape[2], got.bits) == (info.width, info.height, info.channels, info.bits)
        if got.bits == 8:
            with Image.open(path) as image:
                difference = np.abs(np.asarray(image).reshape(got.samples.shape).astype(int) - got.samples)
            assert difference.max() <= 4, path  # JPEG decoders may differ by a little


# -- what cannot be read


def damaged(tmp_path: Path) -> dict[str, Path]:
    """Files that are no good pictures."""
    for extension in EXTENSIONS:
        whole = tmp_path / f"whole.{extension}"
        write(picture(3), whole)
        (tmp_path / f"cut.{extension}").write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
        (tmp_path / f"stub.{extension}").write_bytes(whole.read_bytes()[:20])
    (tmp_path / "text.png").write_text("this is no picture\n" * 20)
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder.png").mkdir()
    names = ["text.png", "empty.png", "folder.png", "missing.png"]
    names += [f"{kind}.{extension}" for kind in ("cut", "stub") for extension in EXTENSIONS]
    return {name: tmp_path / name for name in names}


def test_bad_files_are_one_sentence_each(tmp_path: Path) -> None:
    for name, path in damaged(tmp_path).items():
        with pytest.raises(FinescaleError) as caught:
            read(path)
        message = str(caught.value)
        assert message.startswith(f"{path}: "), name
        assert len(message.splitlines()) == 1, name


def tiff_saying(tag: int, value: int) -> bytes:
    """A grey TIFF of 16 x 16 pixels in which one tag of two bytes says something else."""
    buffer = io.BytesIO()
    Image.new("L", (16, 16)).save(buffer, "TIFF")
    data = bytearray(buffer.getvalue())
    place = data.index(struct.pack("<HHI", tag, 3, 1)) + 8
    data[place : place + 2] = struct.pack("<H", value)
    return bytes(data)


def test_what_a_tiff_says_when_opened_is_not_told_of_the_next_picture() -> None:
    assert probe(tiff_saying(259, 50000)).width == 16  # compressed with ZSTD, over which libtiff complains already here
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(buffer, "JPEG")
    with pytest.raises(FinescaleError, match="premature end of JPEG"):
        read(buffer.getvalue()[:900])


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("length", [4, 8, 100, 2000])
def test_a_tiff_without_its_directory_is_cut_off(big: bool, length: int) -> None:
    # libvips writes the directory last
    whole = pyvips.Image.new_from_array(samples(1)[..., 0]).tiffsave_buffer(bigtiff=big)
    with pytest.raises(FinescaleError, match=r"^the picture: damaged or cut off \(its directory is missing\)$"):
        read(whole[:length])


def test_a_tiff_whose_directory_lies_beyond_any_file_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 1 << 62))
    with pytest.raises(FinescaleError, match=r"a\.tif: damaged or cut off \(its directory is missing\)$"):
        read(path)


def tiff_of(values: NDArray[Any], **more: int) -> bytes:
    """An uncompressed TIFF of samples (H, W, C) of any type, by default grey; `more` are tags of it: `t338=2`."""
    data, channels = values.tobytes(), values.shape[2] if values.ndim == 3 else 1
    kind = {"u": 1, "i": 2, "f": 3, "c": 6}[values.dtype.kind]
    main = {256: values.shape[1], 257: values.shape[0], 259: 1, 262: 1, 273: 8, 277: channels, 279: len(data)}
    main |= {int(tag[1:]): value for tag, value in more.items()}
    entries = {tag: (4, 1, struct.pack("<I", value)) for tag, value in main.items()}
    for tag, value in ((258, 8 * values.itemsize), (339, kind)):
        entries[tag] = (3, channels, struct.pack("<H", value) * channels)
    return struct.pack("<2sHI", b"II", 42, 8 + len(data)) + data + directories(Tags(main=entries), 8 + len(data))


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        ("f8", "floats of 64 bits"),
        ("u8", "integers of 64 bits"),
        ("c8", "complex numbers"),
        ("i1", "signed integers of 8 bits, whose white is not defined"),
        ("u4", "integers of 32 bits, whose white is not defined"),
        ("i4", "integers of 32 bits, whose white is not defined"),
    ],
)
def test_samples_that_are_not_read_are_named(kind: str, what: str) -> None:
    for file in (tiff_of(np.ones((4, 4), kind)), tiff_of(np.zeros((1, 1), kind))):
        with pytest.raises(FinescaleError, match=rf"^the picture: of a kind that is not supported \({what}\)$"):
            probe(file)


@pytest.mark.parametrize(
    "more",
    [{"t254": 1, "t330": 8}, {"t50706": 1025}],
    ids=["of Nikon and others", "DNG"],
)
def test_camera_raw_is_refused_and_not_read_as_its_preview(more: dict[str, int]) -> None:
    with pytest.raises(FinescaleError, match=r"^the picture: .*camera RAW.*; develop it to TIFF or JPEG first\)$"):
        probe(tiff_of(np.ones((4, 4), "u1"), **more))
    assert probe(tiff_of(np.ones((4, 4), "u1"), t254=0, t330=8)).width == 4  # a pyramid of microscopes


def test_camera_raw_of_canon_is_refused() -> None:
    data = bytearray(tiff_of(np.zeros((4, 4), "u1")))
    data[8:12] = b"CR\2\0"
    with pytest.raises(FinescaleError, match="camera RAW"):
        probe(bytes(data))


@pytest.mark.parametrize("by_strips", [False, True])
@pytest.mark.parametrize("named", [None, 0, 1, 2])
@pytest.mark.parametrize(("channels", "kind"), [(2, 1), (4, 2), (5, 5)], ids=["grey", "RGB", "CMYK"])
def test_a_channel_that_is_not_called_transparency_is_left_out(
    tmp_path: Path, channels: int, kind: int, named: int | None, by_strips: bool, caplog: pytest.LogCaptureFixture
) -> None:
    path, values = tmp_path / "a.tif", samples(channels, 16)
    path.write_bytes(tiff_of(values, t262=kind, **({} if named is None else {"t338": named})))
    if by_strips:
        strips = StripReader(path)
        found = strips.rows(0, strips.layout.height)
    else:
        found = read(path).samples
    colours = {1: 1, 2: 3, 5: 3}[kind]
    assert found.shape[2] == probe(path).channels == colours + bool(named)
    if kind != 5 and named != 1:
        np.testing.assert_array_equal(found, values[..., : found.shape[2]])
    elif named == 2:
        np.testing.assert_array_equal(found[..., -1], values[..., -1])
    sentence = f"{path}: a channel not called transparency"
    said = [record.getMessage() for record in caplog.records if record.name == "finescale"]
    assert [message.startswith(sentence) for message in said] == ([] if named else [True])


def test_the_alpha_among_several_more_channels(caplog: pytest.LogCaptureFixture) -> None:
    values = samples(5, 8)
    data = tiff_of(values, t262=2, t338=0x20000)  # two numbers of 16 bits: not named, alpha
    entry = struct.pack("<HHII", 338, 4, 1, 0x20000)
    found = read(data.replace(entry, struct.pack("<HHIHH", 338, 3, 2, 0, 2)))
    np.testing.assert_array_equal(found.samples, values[..., [0, 1, 2, 4]])
    assert "left out" in caplog.text
    with pytest.raises(FinescaleError, match="holds 5 channels"):  # of which none is the picture
        read(tiff_of(values, t262=1))


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_transparency_that_pillow_writes_stays_transparency(mode: str, caplog: pytest.LogCaptureFixture) -> None:
    buffer = io.BytesIO()
    Image.fromarray(samples(len(mode)), mode).save(buffer, "TIFF")
    np.testing.assert_array_equal(read(buffer.getvalue()).samples, samples(len(mode)))
    assert not caplog.records


@pytest.mark.parametrize(("kind", "white"), [("f2", 65535), ("f4", 65535), ("u2", 1), ("i2", 1)])
def test_samples_of_16_bits_and_short_floats(kind: str, white: int) -> None:
    assert read(tiff_of(np.ones((4, 4), kind))).pixels.max() == white


@pytest.mark.parametrize(("tag", "value"), [(258, 12), (258, 64), (259, 50000), (259, 34925), (259, 34712), (262, 9)])
def test_whole_tiffs_of_unknown_kinds_are_not_called_damaged(tag: int, value: int) -> None:
    with pytest.raises(FinescaleError, match="of a kind that is not supported"):
        read(tiff_saying(tag, value))


def test_one_grey_pixel(tmp_path: Path) -> None:
    for extension in EXTENSIONS:
        file = tmp_path / f"one.{extension}"
        write(Picture(np.full((1, 1, 1), 77, np.uint8)), file, quality=100 if extension != "jpg" else 95)
        assert abs(int(read(file).pixels[0, 0, 0]) - 77) <= 1


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_no_resolution_is_invented(tmp_path: Path, format: str) -> None:
    path = tmp_path / f"a.{format.lower()}"
    image = Image.new("RGB", (20, 20))
    for dpi in (None, (72, 72)):
        if dpi:
            image.save(path, dpi=dpi)
        else:
            image.save(path)
        assert read(path).resolution == (None if format == "WEBP" else dpi and pytest.approx(dpi, abs=0.02))
    whole = path.read_bytes()
    if format == "TIFF":
        unit = struct.pack("<HHI", 296, 3, 1)
        path.write_bytes(whole.replace(unit + b"\2", unit + b"\1"))
    elif format == "PNG":
        scale = whole[whole.index(b"pHYs") + 4 :][:8]
        path.write_bytes(whole.replace(chunk(b"pHYs", scale + b"\1"), chunk(b"pHYs", scale + b"\0")))
    if format in ("TIFF", "PNG"):
        assert path.read_bytes() != whole
        assert read(path).resolution is None  # of no unit
    tags = Image.Exif()
    tags[282], tags[283], tags[296] = 300.0, 300.0, 2
    if format == "JPEG":
        image.save(path, exif=tags)
        assert read(path).resolution == (300, 300)


@pytest.mark.parametrize("dpi", [1e-6, 70_000.0, 500_000.0, 1e9, 1e12])
def test_any_resolution_can_be_written(tmp_path: Path, dpi: float) -> None:
    small = Picture(samples(3), resolution=(dpi, dpi))
    for extension in EXTENSIONS:
        write(small, tmp_path / f"a.{extension}")
        found = read(tmp_path / f"a.{extension}").resolution
        assert extension not in ("png", "tif") or dpi > 1e6 or dpi < 1 or found == pytest.approx((dpi, dpi), rel=1e-3)


@pytest.mark.parametrize("length", [65_533, 65_534, 200_000])
def test_exif_is_left_out_of_jpeg_where_it_is_too_large(
    tmp_path: Path, length: int, caplog: pytest.LogCaptureFixture
) -> None:
    path, own = tmp_path / "a.jpg", exif()
    write(picture(3, icc=PROFILE, exif=own + bytes(length - len(own))), path)
    found = read(path)
    assert found.icc == PROFILE
    if length == 65_533:
        assert tags(found.exif) == tags(own)
        assert not caplog.records
    else:
        assert found.exif is None
        assert caplog.messages == [f"{path}: its EXIF block is too large for JPEG and is left out"]


def test_noise_as_jpeg(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (700, 900, 3), np.uint8)
    for quality in (95, 100):
        write(Picture(noise), tmp_path / "n.jpg", quality=quality, overwrite=True)
    assert np.abs(read(tmp_path / "n.jpg").pixels.astype(int) - noise).mean() < 2


def test_long_names(tmp_path: Path) -> None:
    name = "名" * 78 + ".png"  # 238 bytes
    write(Picture(samples(1)), tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.slow
def test_any_damaged_byte_of_an_avif_is_one_sentence() -> None:
    # three libraries have a word in these, each with errors of its own kind
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[274] = 6
    Image.fromarray(samples(3)).save(buffer, "AVIF", exif=exif)
    whole = buffer.getvalue()
    refused = 0
    for i in range(700):  # the header; the samples follow
        try:
            read(whole[:i] + b"\xff" + whole[i + 1 :], max_pixels=10_000)
        except FinescaleError:
            refused += 1
    assert 100 < refused < 700


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_what_is_read_from_memory_is_kept_as_long_as_the_picture(kind: str) -> None:
    """Else libvips reads what was freed, and the program ends without a word."""
    pixels = np.random.default_rng(0).integers(0, 256, (600, 800, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, quality=90)
    opened = Opened(buffer.getvalue())
    source = weakref.ref(next(one for one in opened.image._references if isinstance(one, pyvips.Source)))
    image = opened.image.copy()
    del opened
    gc.collect()
    assert source() is not None
    assert image.height == 600


def test_no_permission(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write(picture(1), path)
    folder = tmp_path / "closed"
    folder.mkdir()
    path.chmod(0)
    folder.chmod(0o500)
    with bound_by_permissions():
        with pytest.raises(FinescaleError, match=r"a\.png: permission denied"):
            read(path)
        with pytest.raises(FinescaleError, match=r"b\.png: cannot be written \(permission denied\)"):
            write(picture(1), folder / "b.png")
    folder.chmod(0o700)


def test_bombs_are_refused_by_their_header(tmp_path: Path) -> None:
    bomb = png(200_000, 200_000, 8, 2, bytes(100_000))
    assert probe(bomb)[:2] == (200_000, 200_000)
    with pytest.raises(TooLargeError, match="200000 x 200000 pixels, more than the limit"):
        read(bomb)
    with pytest.raises(FinescaleError, match="more than the limit of 100"):
        read(png(11, 10, 8, 0, bytes(120)), max_pixels=100)
    assert read(png(10, 10, 8, 0, bytes(110)), max_pixels=100).size == (10, 10)
    buffer = io.BytesIO()
    Image.new("L", (11, 10)).save(buffer, "bmp")
    with pytest.raises(TooLargeError, match="more than the limit of 100"):
        read(buffer.getvalue(), max_pixels=100)


@pytest.mark.parametrize("inside", ['width="9" height="9"', ""])
def test_what_is_no_plain_picture_is_not_called_damaged(inside: str) -> None:
    with pytest.raises(FinescaleError, match=r"^the picture: not a picture in a format that is read here$"):
        read(f'<svg xmlns="http://www.w3.org/2000/svg" {inside}></svg>'.encode())


def test_the_limit_of_pixels_is_the_same_for_what_pillow_opens(tmp_path: Path) -> None:
    """It has one of its own, of 179 million."""
    assert probe(b"P5 20000 20000 255\n" + bytes(9)).width == 20_000
    for head in (b"P5 30000 20000 255\n", b"BM" + struct.pack("<8xIIiiHH24x", 54, 40, 30_000, 20_000, 1, 24)):
        (tmp_path / "a.bmp").write_bytes(head + bytes(9))
        for open_it in (read, StripReader):
            with pytest.raises(FinescaleError, match="30000 x 20000 pixels, more than the limit of 500000000"):
                open_it(tmp_path / "a.bmp")


# -- what cannot be written


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"precious")
    with pytest.raises(FinescaleError, match=r"a\.png: already exists"):
        write(picture(1), path)
    assert path.read_bytes() == b"precious"
    write(picture(1), path, overwrite=True)
    assert read(path).size == (53, 37)
    assert names(tmp_path) == ["a.png"]


def test_a_file_that_appears_meanwhile_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with pytest.raises(FinescaleError, match="already exists"), new_file(path):
        path.write_bytes(b"precious")
    assert path.read_bytes() == b"precious"
    assert names(tmp_path) == ["a.txt"]


def test_links_are_followed_and_permissions_usual(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "link.png"
    link.symlink_to(tmp_path / "real" / "a.png")
    (tmp_path / "real" / "a.png").touch()
    write(picture(1), link, overwrite=True)
    assert link.is_symlink()
    assert read(tmp_path / "real" / "a.png").size == (53, 37)
    mask = os.umask(0)
    os.umask(mask)
    assert link.stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_a_full_disk_leaves_nothing(tmp_path: Path, extension: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    path = tmp_path / f"a.{extension}"
    with disk_of(1000), pytest.raises(FinescaleError) as caught:
        write(Picture(noise), path)
    assert str(caught.value).startswith(f"{path}: cannot be written (")
    assert names(tmp_path) == []


def test_a_kill_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"precious")
    code = (
        "import os, signal, sys, numpy as np\n"
        "from finescale.images import files, picture\n"
        "files.os.fsync = lambda number: os.kill(os.getpid(), signal.SIGKILL)\n"
        "files.write(picture.Picture(np.zeros((9, 9, 3), np.uint8)), sys.argv[1], overwrite=True)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code, str(path)], env=environment)
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"precious"


def test_impossible_requests(tmp_path: Path) -> None:
    for name, options, reason in (
        ("a.xyz", {}, "cannot write the format 'xyz'"),
        ("a", {}, "no extension"),
        ("a.png", {"format": "jpg2"}, "cannot write the format 'jpg2'"),
        ("a.jpg", {"quality": 0}, "quality"),
        ("a.jpg", {"quality": 101}, "quality"),
        ("a.jpg", {"quality": True}, "quality"),
        ("a.jpg", {"quality": 90.0}, "quality"),
    ):
        with pytest.raises(UsageError, match=reason):
            write(picture(1), tmp_path / name, **options)
    with pytest.raises(FinescaleError, match=r"a\.webp: WEBP holds at most 16383 pixels per side, not 20000"):
        write(Picture(np.zeros((1, 20000, 1), np.uint8)), tmp_path / "a.webp")
    for channels, side in ((3, 37_840), (1, 65_536)):
        check_size("a.bmp", "bmp", (side - 40, side), channels)
        with pytest.raises(
            FinescaleError, match=rf"a\.bmp: BMP holds at most 4 GiB, too few for {side} x {side} pixels"
        ):
            check_size("a.bmp", "bmp", (side, side), channels)
    with pytest.raises(FinescaleError, match="no such file"):
        write(picture(1), tmp_path / "missing" / "a.png")
    with pytest.raises(FinescaleError, match="is a folder"):
        write(picture(1), tmp_path, format="png")


@pytest.mark.parametrize("name", ["a.jpg", "a.webp", "a.avif"])
@pytest.mark.parametrize("quality", [60, 100])
def test_a_quality_of_numpy_is_one(tmp_path: Path, name: str, quality: int) -> None:
    write(picture(3), tmp_path / name, quality=quality)
    write(picture(3), tmp_path / f"same-{name}", quality=np.int64(quality))  # type: ignore[arg-type]
    assert (tmp_path / f"same-{name}").read_bytes() == (tmp_path / name).read_bytes()


def test_what_an_encoder_refuses_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def save(*given: Any, **options: Any) -> None:
        raise ValueError("encoding error 6")  # of WebP, over large noise

    monkeypatch.setattr(Image.Image, "save", save)
    with pytest.raises(FinescaleError, match=r"a\.webp: cannot be written \(encoding error 6\)$"):
        write(picture(3), tmp_path / "a.webp")
    assert names(tmp_path) == []


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_bytes_instead_of_a_file_are_the_same(tmp_path: Path, extension: str, caplog: pytest.LogCaptureFixture) -> None:
    deep = picture(4, 16, exif=exif(), icc=PROFILE, resolution=(300.0, 300.0))
    options: dict[str, Any] = {"quality": 60} if extension in ("jpg", "webp", "avif") else {}
    write(deep, tmp_path / f"a.{extension}", **options)
    told = [message.partition(": ")[2] for message in caplog.messages]
    caplog.clear()
    assert encode(deep, extension, **options) == (tmp_path / f"a.{extension}").read_bytes()
    assert caplog.messages == [f"the picture: {sentence}" for sentence in told]


def test_what_no_bytes_can_be_made_of() -> None:
    for format, quality, reason in (("gif", None, "cannot write the format 'gif'"), ("jpg", 101, "quality must be")):
        with pytest.raises(UsageError, match=reason):
            encode(picture(1), format, quality=quality)
    with pytest.raises(FinescaleError, match=r"^the picture: WEBP holds at most 16383 pixels per side"):
        encode(Picture(np.zeros((1, 20000, 1), np.uint8)), "webp")
    for target in (io.BytesIO(), b"a.png", 3):
        with pytest.raises(UsageError, match=r"^write takes the name of a file, not (BytesIO|bytes|int); encode gives"):
            write(picture(1), target, format="png")  # type: ignore[arg-type]


@pytest.mark.parametrize("extension", ["png", "jpg", "tif", "webp", "avif"] + ["heic"] * HEIC)
def test_what_tells_of_places_and_persons_can_be_left_out(tmp_path: Path, extension: str) -> None:
    block = Image.Exif()
    block[0x0112] = 6
    block.get_ifd(0x8825).update({1: "N", 2: (52.0, 30.0, 0.0)})  # GPS
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"></x:xmpmeta>'
    path = tmp_path / f"a.{extension}"
    if extension == "heic":
        (path := tmp_path / "a.heic").write_bytes((Path(__file__).parent / "heic" / "turned.heic").read_bytes())
    else:
        texts = PngInfo()
        texts.add_text("Author", "Ines")
        more = {"png": {"pnginfo": texts}, "tif": {}}.get(extension, {"xmp": xmp})
        Image.fromarray(samples(3)).save(path, exif=block.tobytes(), icc_profile=PROFILE, dpi=(300, 300), **more)
    whole = read(path)
    assert whole.exif
    assert whole.texts or extension != "png"
    with stripping():
        bare, strips = read(path), StripReader(path).layout
    with stripping(False):
        assert read(path).exif == whole.exif
    for found in (bare, strips):
        assert (found.exif, found.xmp, found.texts) == (None, None, None)
        assert (found.icc, found.resolution, found.colours) == (whole.icc, whole.resolution, whole.colours)
    np.testing.assert_array_equal(bare.pixels, whole.pixels)  # upright, too
    assert (strips.width, strips.height) == whole.size


def test_the_format_may_differ_from_the_name(tmp_path: Path) -> None:
    write(picture(3), tmp_path / "a.dat", format="TIFF")
    assert read(tmp_path / "a.dat").format == "tiff"


def test_pillow_and_libvips_stay_quiet(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        for extension in EXTENSIONS:
            write(picture(3, icc=PROFILE, exif=exif()), tmp_path / f"a.{extension}")
            read(tmp_path / f"a.{extension}")
    assert not caplog.records


def test_results_that_some_systems_would_take_for_one_file() -> None:
    """Those of pictures that even such a system tells apart; the name itself may have lost in how it is written."""

    def named(*pictures: str) -> list[str]:
        names = {Path(picture): [Path(picture).with_suffix(".tif"), Path(f"{picture}.tif")] for picture in pictures}
        return list(map(str, apart(names).values()))

    assert named("a.jpg", "b.png") == ["a.tif", "b.tif"]
    assert named("a.jpg", "A.png", "b.png") == ["a.jpg.tif", "A.png.tif", "b.tif"]
    assert named("caf\u00e9.jpg", "cafe\u0301.png") == ["caf\u00e9.jpg.tif", "cafe\u0301.png.tif"]
    assert named("a.jpg", "A.jpg") == ["a.tif", "A.tif"]  # here they are two files, and so are their results
    assert named("a.jpg", "A.jpg", "a.png") == ["a.jpg.tif", "A.jpg.tif", "a.png.tif"]
    same = {Path("one/a.jpg"): [Path("a.tif")], Path("two/a.jpg"): [Path("a.tif")]}
    with pytest.raises(UsageError, match=re.escape("would both become a.tif")):
        apart(same)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_reads_and_writes_after_its_parent(tmp_path: Path) -> None:
    picture = Picture(np.random.default_rng(1).integers(0, 256, (48, 64, 3), np.uint8))
    for suffix in ("png", "jpg", "webp", "tif"):
        write(picture, tmp_path / f"a.{suffix}")
    program = """
import multiprocessing, sys
from pathlib import Path
from finescale.errors import FinescaleError
from finescale.images.files import read, write

def child(folder, wanted):
    for _ in range(2):
        assert [read(file).samples.tobytes() for file in sorted(folder.iterdir())] == wanted
    for kind in ("png", "jpg", "webp"):
        write(read(folder / "a.webp"), folder / f"b.{kind}")
    try:
        write(read(folder / "a.png"), folder / "b.avif")
    except FinescaleError as error:
        assert "AVIF cannot be written in a forked process" in str(error)
    else:
        raise AssertionError

folder = Path(sys.argv[1])
wanted = [read(file).samples.tobytes() for file in sorted(folder.iterdir())]
forked = multiprocessing.get_context("fork").Process(target=child, args=(folder, wanted))
forked.start()
forked.join(20)
done = forked.exitcode == 0
forked.kill()
sys.exit(not done)
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], timeout=60, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
