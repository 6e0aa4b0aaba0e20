"""Pictures by strips: the same as in one piece, in bounded memory, resumable after a kill."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms
from tests.conftest import tiny_network
from tests.images.test_xmp import KEPT
from tests.inference.test_tiling import picture

from finescale.cli.main import main
from finescale.errors import FinescaleError
from finescale.images import encoders
from finescale.images.files import read, write
from finescale.images.picture import Picture
from finescale.inference import strips, tiling
from finescale.inference.strips import upscale_strips
from finescale.inference.tiling import Array, Cancelled
from finescale.inference.upscale import Upscaler
from finescale.weights.files import save


@pytest.fixture
def upscaler(monkeypatch: pytest.MonkeyPatch) -> Upscaler:
    monkeypatch.setattr(strips, "STRIP_BYTES", 1)  # as thin as strips get
    return Upscaler(tiny_network(2), engine="torch", precision="float32")


@pytest.mark.parametrize("name", ["b.png", "b.tif"])
@pytest.mark.parametrize("kind", ["colour", "grey and alpha", "16 bits"])
def test_strips_equal_the_whole(tmp_path: Path, upscaler: Upscaler, kind: str, name: str) -> None:
    pixels = picture(205, 70, np.uint16 if kind == "16 bits" else np.uint8)
    small = Picture(pixels)
    if kind == "grey and alpha":
        small = Picture(pixels[..., :1], np.where(pixels[..., 1] > 140, 255, pixels[..., 1]).astype(np.uint8))
    write(small, tmp_path / "a.png")
    upscale_strips(tmp_path / "a.png", tmp_path / name, upscaler)
    large, whole = read(tmp_path / name), upscaler.picture(small)
    step = 257 if kind == "16 bits" else 1
    assert np.abs(large.samples.astype(int) - whole.samples.astype(int)).max() <= step
    assert (large.samples % step).any() == (step > 1), "16 bits are not 8, made wide"
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", name}


@pytest.mark.parametrize(
    ("kind", "parts"), [("colour", [240]), ("grey", [240]), ("16 bits", [96, 192, 288])], ids=lambda kind: str(kind)
)
def test_strips_are_as_high_as_their_bytes_allow(
    tmp_path: Path, upscaler: Upscaler, monkeypatch: pytest.MonkeyPatch, kind: str, parts: list[int]
) -> None:
    """At x2, 300 kB are 250 rows of 100 pixels with 8 bits, on the grid of 48; grey is computed as colour."""
    monkeypatch.setattr(strips, "STRIP_BYTES", 300_000)
    monkeypatch.setattr(tiling, "_PAUSE", math.inf)  # of slow machines
    pixels = picture(300, 100, np.uint16 if kind == "16 bits" else np.uint8)
    write(Picture(pixels[..., :1] if kind == "grey" else pixels), tmp_path / "a.png")
    seen: list[float] = []
    upscale_strips(tmp_path / "a.png", tmp_path / "b.png", upscaler, progress=seen.append)
    assert [round(300 * share) for share in seen] == [*parts, 300]  # each of one tile


@pytest.mark.usefixtures("windows_files")
@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.jpg"])
def test_a_picture_may_be_replaced_by_its_own_enlargement(tmp_path: Path, upscaler: Upscaler, name: str) -> None:
    write(Picture(picture(205, 70)), tmp_path / name)
    upscale_strips(tmp_path / name, tmp_path / name, upscaler, format="png", overwrite=True)
    assert read(tmp_path / name).size == (140, 410)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("height", [205, 96])
def test_strips_of_the_self_ensemble_equal_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, height: int
) -> None:
    monkeypatch.setattr(strips, "STRIP_BYTES", 1)
    eight = Upscaler(tiny_network(2), engine="torch", ensemble=True)
    small = Picture(picture(height, 70))
    write(small, tmp_path / "a.png")
    upscale_strips(tmp_path / "a.png", tmp_path / "b.png", eight)
    found, whole = read(tmp_path / "b.png").pixels.astype(int), eight.picture(small).pixels.astype(int)
    assert np.abs(found - whole).max() <= 1
    assert np.abs(found - whole).mean() < 0.01  # rounding alone: another grid would move many


@pytest.mark.parametrize("pause", [0, math.inf], ids=["within tiles", "after tiles"])
def test_goes_on_where_it_stopped(
    tmp_path: Path, upscaler: Upscaler, monkeypatch: pytest.MonkeyPatch, pause: float
) -> None:
    monkeypatch.setattr(tiling, "_PAUSE", pause)
    monkeypatch.setattr(encoders, "_BLOCK", 1 << 14)  # blocks are what is kept; here they hold the whole picture
    write(Picture(picture(300, 60)), tmp_path / "a.png")
    seen: list[float] = []

    def stop(done: float) -> None:
        seen.append(done)
        if done > 0.95:
            raise Cancelled

    with pytest.raises(Cancelled):
        upscale_strips(tmp_path / "a.png", tmp_path / "b.tif", upscaler, progress=stop)
    assert not (tmp_path / "b.tif").exists()
    again: list[float] = []
    upscale_strips(tmp_path / "a.png", tmp_path / "b.tif", upscaler, progress=again.append)
    assert seen[0] < 0.2
    assert again[0] > 0.2  # the first strips were not made again
    upscale_strips(tmp_path / "a.png", tmp_path / "c.tif", upscaler)
    assert (tmp_path / "b.tif").read_bytes() == (tmp_path / "c.tif").read_bytes()
    other = Upscaler(tiny_network(2, blocks=1), engine="torch", precision="float32")
    with pytest.raises(Cancelled):
        upscale_strips(tmp_path / "a.png", tmp_path / "d.tif", upscaler, progress=stop)
    fresh: list[float] = []
    upscale_strips(tmp_path / "a.png", tmp_path / "d.tif", other, progress=fresh.append)
    assert fresh[0] < 0.2  # strips of another network are not used


def test_weights_need_not_be_there_any_more(tmp_path: Path, upscaler: Upscaler) -> None:
    file = tmp_path / "mine.safetensors"
    save(tiny_network(2), file)
    loaded = Upscaler(file, engine="torch", precision="float32")
    file.unlink()
    write(Picture(picture(60, 50)), tmp_path / "a.png")
    upscale_strips(tmp_path / "a.png", tmp_path / "b.png", loaded)
    assert read(tmp_path / "b.png").size == (100, 120)


@pytest.mark.filterwarnings("ignore:bfloat16 is much slower")
@pytest.mark.parametrize("change", ["picture", "self-ensemble", "precision"])
def test_strips_of_another_picture_or_way_are_not_used(
    tmp_path: Path, upscaler: Upscaler, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    monkeypatch.setattr(encoders, "_BLOCK", 1 << 14)
    write(Picture(picture(300, 60)), tmp_path / "a.png")

    def stop(done: float) -> None:
        if done > 0.95:
            raise Cancelled

    with pytest.raises(Cancelled):
        upscale_strips(tmp_path / "a.png", tmp_path / "b.tif", upscaler, progress=stop)
    if change == "picture":
        write(Picture(picture(300, 60)[::-1]), tmp_path / "a.png", overwrite=True)
    elif change == "precision":
        upscaler = Upscaler(upscaler.network, engine="torch", precision="bfloat16")
    else:
        upscaler = Upscaler(upscaler.network, engine="torch", precision="float32", ensemble=True)
    fresh: list[float] = []
    upscale_strips(tmp_path / "a.png", tmp_path / "b.tif", upscaler, progress=fresh.append)
    assert fresh[0] < 0.2
    upscale_strips(tmp_path / "a.png", tmp_path / "c.tif", upscaler)
    assert (tmp_path / "b.tif").read_bytes() == (tmp_path / "c.tif").read_bytes()


def test_large_pictures_go_by_strips(
    tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch, upscaler: Upscaler
) -> None:
    monkeypatch.setenv("FINESCALE_WEIGHTS", str(tiny_weights))
    monkeypatch.setattr(strips, "FROM_PIXELS", 1000)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA002] = 60  # the width
    small = replace(Picture(picture(100, 60)), resolution=(72.0, 72.0), icc=profile, exif=exif.tobytes(), xmp=KEPT)
    write(small, tmp_path / "a.tif")
    assert main(["upscale", str(tmp_path / "a.tif"), "--scale", "2", "--engine", "torch"]) == 0
    large = read(tmp_path / "a_x2.tif")
    assert large.size == (120, 200)
    assert (large.icc, large.xmp) == (profile, KEPT)
    with Image.open(tmp_path / "a_x2.tif") as image:
        assert image.getexif().get_ifd(0x8769)[0xA002] == 120


def test_hidden_colours_are_filled_in_strips_as_in_the_whole(tmp_path: Path, upscaler: Upscaler) -> None:
    y, x = np.mgrid[:300, :70]
    pixels = np.dstack([y * 255 // 300, x * 3, 255 - y * 255 // 300]).astype(np.uint8)
    alpha = np.where((y - 150) ** 2 / 9 + (x - 35) ** 2 < 900, 255, 0).astype(np.uint8)
    pixels[alpha == 0] = (255, 0, 255)
    small = Picture(pixels, alpha)
    write(small, tmp_path / "a.png")
    upscale_strips(tmp_path / "a.png", tmp_path / "b.png", upscaler)
    large, whole = read(tmp_path / "b.png"), upscaler.picture(small)
    assert np.abs(large.samples.astype(int) - whole.samples.astype(int)).max() <= 1


def test_rows_are_kept_where_memory_ran_out(
    tmp_path: Path, upscaler: Upscaler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoders, "_BLOCK", 1 << 14)
    write(Picture(picture(600, 100)), tmp_path / "a.png")
    run, calls = upscaler.engine.run, 0

    def failing(x: Array) -> Array:
        nonlocal calls
        calls += 1
        if calls > 8:
            raise MemoryError
        return run(x)

    monkeypatch.setattr(upscaler.engine, "run", failing)
    with pytest.raises(FinescaleError, match="out of memory even for a tile"):
        upscale_strips(tmp_path / "a.png", tmp_path / "b.tif", upscaler)
    assert len(list(tmp_path.glob(".b.tif*"))) == 2  # the rows, and the journal of them
    monkeypatch.setattr(upscaler.engine, "run", run)
    again: list[float] = []
    upscale_strips(tmp_path / "a.png", tmp_path / "b.tif", upscaler, progress=again.append)
    assert again[0] > 0.2
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "b.tif"}
