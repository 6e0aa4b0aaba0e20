"""Work from top to bottom: the same pixels as the whole picture, valid or absent files, and resuming."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tests.conftest import bound_by_permissions, disk_of
from tests.images.test_files import names
from tests.images.test_files import samples as smooth
from tests.images.test_xmp import KEPT, TEXTS

from finescale import __version__
from finescale.atomic import locked
from finescale.errors import FinescaleError, ShortOfMemoryError, TakenError, UsageError
from finescale.images import encoders, strips
from finescale.images.encoders import Layout
from finescale.images.files import read, write
from finescale.images.picture import Picture, split
from finescale.images.strips import StripReader, StripWriter

SIZE = (700, 611)


@cache
def samples(channels: int, bits: int) -> NDArray[Any]:
    made = smooth(channels, bits, SIZE)
    made.setflags(write=False)
    return made


def layout_of(pixels: NDArray[Any], **metadata: Any) -> Layout:
    return Layout(pixels.shape[1], pixels.shape[0], pixels.shape[2], 8 * pixels.itemsize, **metadata)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many blocks and tiles also for the small pictures of tests."""
    monkeypatch.setattr(encoders, "_BLOCK", 1 << 16)
    monkeypatch.setattr(encoders, "_TILED_FROM", 1000)
    monkeypatch.setattr(encoders, "_TILE", 64)


@pytest.mark.parametrize("step", [64, 100, 5000])
@pytest.mark.parametrize(
    ("name", "channels", "bits"),
    [("a.png", 3, 8), ("a.png", 2, 16), ("a.tif", 4, 16), ("a.tif", 1, 8), ("a.jpg", 3, 8), ("a.webp", 4, 8)]
    + [("a.bmp", 3, 8), ("a.avif", 3, 16)],
)
def test_strips_are_the_picture(tmp_path: Path, name: str, channels: int, bits: int, step: int) -> None:
    pixels = samples(channels, bits)
    write(Picture(*split(pixels[:80, :90] if name == "a.avif" else pixels)), tmp_path / name)  # AVIF is slow to write
    whole = read(tmp_path / name)
    strips = StripReader(tmp_path / name)
    height = strips.layout.height
    assert (strips.layout.width, height, strips.format) == (*whole.size, whole.format)
    for top in range(0, height, step):  # overlapping, as tiles with margins need them
        start, stop = max(0, top - 20), min(height, top + step + 20)
        np.testing.assert_array_equal(strips.rows(start, stop), whole.samples[start:stop])


def test_going_back_up_is_refused(tmp_path: Path) -> None:
    write(Picture(samples(3, 8)), tmp_path / "a.png")
    strips = StripReader(tmp_path / "a.png")
    strips.rows(100, 200)
    strips.rows(150, 250)
    for start, stop in ((149, 300), (300, 300), (600, 612)):
        with pytest.raises(ValueError, match="rows"):
            strips.rows(start, stop)


@pytest.mark.parametrize("extension", ["jpg", "png", "tif"])
@pytest.mark.parametrize("orientation", [2, 3, 6, 8])
def test_strips_are_upright(tmp_path: Path, extension: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(samples(3, 8)).save(tmp_path / f"a.{extension}", exif=exif.tobytes())
    whole, strips = read(tmp_path / f"a.{extension}"), StripReader(tmp_path / f"a.{extension}")
    assert (strips.layout.width, strips.layout.height) == whole.size
    assert strips.layout.exif == whole.exif
    got = np.concatenate([strips.rows(y, min(y + 90, whole.size[1])) for y in range(0, whole.size[1], 90)])
    np.testing.assert_array_equal(got, whole.pixels)


def test_strips_of_cmyk(tmp_path: Path) -> None:
    Image.fromarray(samples(4, 8), mode="CMYK").save(tmp_path / "a.jpg")
    strips = StripReader(tmp_path / "a.jpg")
    assert strips.layout.channels == 3
    assert strips.layout.icc is None
    np.testing.assert_array_equal(strips.rows(0, 611), read(tmp_path / "a.jpg").pixels)


def test_strips_of_ycbcr(tmp_path: Path) -> None:
    original = Image.fromarray(samples(3, 8)).convert("YCbCr")
    original.save(tmp_path / "a.tif", compression="tiff_lzw")
    rows = StripReader(tmp_path / "a.tif")
    found = np.concatenate([rows.rows(y, min(y + 100, 611)) for y in range(0, 611, 100)])
    assert np.abs(found - np.asarray(original.convert("RGB")).astype(int)).max() <= 1


@pytest.mark.parametrize("extension", ["png", "jpg", "tif"])
def test_a_cut_off_file_is_an_error_when_its_end_is_reached(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"a.{extension}"
    if extension == "tif":  # the directory stands first, as some programs write it
        Image.fromarray(samples(3, 8)).save(path)
    else:
        write(Picture(samples(3, 8)), path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(FinescaleError, match=rf"a\.{extension}: damaged or cut off"):  # noqa: PT012
        strips = StripReader(path)
        for y in range(0, 611, 47):
            strips.rows(y, y + 47)


# -- writing


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("extension", ["png", "tif"])
def test_written_strips_are_the_picture(tmp_path: Path, extension: str, channels: int, bits: int) -> None:
    exif = Image.Exif()
    exif[0x010E] = "words"
    pixels = samples(channels, bits)
    layout = layout_of(pixels, exif=exif.tobytes(), resolution=(300.0, 300.0))
    with StripWriter(tmp_path / f"a.{extension}", layout) as out:
        for y in range(0, SIZE[1], 90):
            out.write(y, pixels[y : y + 90])
    assert names(tmp_path) == [f"a.{extension}"]
    got = read(tmp_path / f"a.{extension}")
    np.testing.assert_array_equal(got.samples, pixels)
    assert got.exif is not None
    again = Image.Exif()
    again.load(got.exif)
    assert again[0x010E] == "words"
    assert got.resolution == pytest.approx((300, 300), abs=0.02)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("tiled", [False, True])
def test_bigtiff(tmp_path: Path, tiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    class Big(encoders.TiffEncoder):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.big = True

    monkeypatch.setitem(encoders.ENCODERS, "tiff", Big)
    monkeypatch.setattr(encoders, "_TILED_FROM", 1000 if tiled else 1 << 30)
    exif = Image.Exif()
    exif[0x010E] = "words"
    exif.get_ifd(0x8769)[0x9286] = b"ASCII\0\0\0comment"
    original = Picture(samples(3, 16), exif=exif.tobytes(), xmp=KEPT)
    write(original, tmp_path / "a.tif")
    assert (tmp_path / "a.tif").read_bytes()[:4] == b"MM\0+"
    got = read(tmp_path / "a.tif")
    np.testing.assert_array_equal(got.pixels, original.pixels)
    assert got.xmp == KEPT
    again = Image.Exif()
    again.load(got.exif or b"")
    assert again[0x010E] == "words"
    assert again.get_ifd(0x8769)[0x9286] == b"ASCII\0\0\0comment"
    eight = (original.pixels // 257).astype(np.uint8)
    write(Picture(eight), tmp_path / "b.tif")
    with Image.open(tmp_path / "b.tif") as image:  # Pillow reads these at 8 bits
        np.testing.assert_array_equal(np.asarray(image), eight)


@pytest.mark.skipif(os.name != "posix", reason="makes links")
@pytest.mark.usefixtures("windows_files")
@pytest.mark.parametrize("kind", ["finished", "planted"])
def test_an_unfinished_file_that_has_another_name_is_not_written_to(tmp_path: Path, kind: str) -> None:
    """A kill came between the two names of a finished one, or somebody put a link there."""
    whole, part = tmp_path / "a.tif", tmp_path / ".a.tif.part"
    whole.write_bytes(b"finished")
    if kind == "finished":
        part.hardlink_to(whole)
    else:
        part.symlink_to(whole)
    layout = Layout(40, 40, 3)

    def make() -> None:
        with StripWriter(whole, layout, overwrite=True, resume="x") as out:
            assert whole.read_bytes() == b"finished"
            out.write(0, np.zeros((40, 40, 3), np.uint8))

    if kind == "planted":
        with pytest.raises(FinescaleError, match=r"a\.tif: cannot be written"):
            make()
        assert whole.read_bytes() == b"finished"
    else:
        make()
        assert read(whole).size == (40, 40)


def test_large_tiffs_are_bigtiff_and_tiled() -> None:
    def encoder(width: int, height: int, bits: int = 8) -> encoders.TiffEncoder:
        return encoders.TiffEncoder(None, Layout(width, height, 3, bits))  # type: ignore[arg-type]

    assert not encoder(1000, 1000).tiled
    assert encoder(20_000, 20_000).tiled
    assert not encoder(28_000, 28_000).big
    assert encoder(28_000, 28_000, 16).big
    assert encoder(37_700, 37_700).big  # the samples would find room, what stands beside them might not


def test_a_failed_block_leaves_nothing(tmp_path: Path) -> None:
    pixels = samples(3, 8)
    with pytest.raises(KeyError), StripWriter(tmp_path / "a.png", layout_of(pixels)) as out:  # noqa: PT012
        out.write(0, pixels[:400])
        raise KeyError
    with pytest.raises(ValueError, match="400 of 611 rows"), StripWriter(tmp_path / "a.png", layout_of(pixels)) as out:
        out.write(0, pixels[:400])
    assert names(tmp_path) == []


def test_wrong_rows_are_refused(tmp_path: Path) -> None:
    pixels = samples(3, 8)
    for y, rows in ((10, pixels[10:20]), (0, pixels[:, :5]), (0, pixels.astype(np.uint16))):
        with pytest.raises(ValueError, match="rows"), StripWriter(tmp_path / "a.png", layout_of(pixels)) as out:
            out.write(y, rows)
    with pytest.raises(UsageError, match=r"a\.jpg: JPEG cannot be written by strips"):
        StripWriter(tmp_path / "a.jpg", layout_of(pixels))
    (tmp_path / "a.png").touch()
    with pytest.raises(FinescaleError, match="already exists"), StripWriter(tmp_path / "a.png", layout_of(pixels)):
        pass
    assert names(tmp_path) == ["a.png"]


@pytest.mark.parametrize("extension", ["png", "tif"])
@pytest.mark.parametrize("room", [10, 3000])
def test_a_full_disk_leaves_nothing(tmp_path: Path, extension: str, room: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    path = tmp_path / f"a.{extension}"
    with disk_of(room), pytest.raises(FinescaleError) as caught, StripWriter(path, layout_of(noise)) as out:  # noqa: PT012
        for y in range(64):
            out.write(y, noise[y : y + 1])
    assert str(caught.value).startswith(f"{path}: cannot be written (")
    assert names(tmp_path) == []


# -- resuming


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("extension", ["png", "tif"])
def test_resumed_after_a_kill_equals_uninterrupted(tmp_path: Path, extension: str) -> None:
    pixels = samples(3, 16)
    np.save(tmp_path / "pixels.npy", pixels)
    layout = layout_of(pixels, xmp=KEPT, texts=TEXTS)
    with StripWriter(tmp_path / f"whole.{extension}", layout, resume="job") as out:
        out.write(0, pixels)
    path = tmp_path / f"a.{extension}"
    code = (
        "from tests.images.test_xmp import KEPT, TEXTS\n"
        "import os, signal, sys, numpy as np\n"
        "from finescale.images import encoders, strips\n"
        "encoders._BLOCK, encoders._TILED_FROM, encoders._TILE = 1 << 16, 1000, 64\n"
        "pixels = np.load(sys.argv[1])\n"
        "layout = encoders.Layout(pixels.shape[1], pixels.shape[0], 3, 16, xmp=KEPT, texts=TEXTS)\n"
        "with strips.StripWriter(sys.argv[2], layout, resume='job') as out:\n"
        "    for y in range(0, 600, 50):\n"
        "        out.write(y, pixels[y : y + 50])\n"
        "        if y == 350:\n"
        "            out._file.write(b'half a block')\n"
        "            out._file.flush()\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "pixels.npy"), str(path)], env=environment)
    assert done.returncode == -signal.SIGKILL
    assert not path.exists()
    with StripWriter(path, layout, resume="job") as out:
        assert 300 <= out.rows <= 400
        for y in range(out.rows - 7, SIZE[1], 50):
            out.write(y, pixels[y : y + 50])
    assert path.read_bytes() == (tmp_path / f"whole.{extension}").read_bytes()
    assert names(tmp_path) == [f"a.{extension}", "pixels.npy", f"whole.{extension}"]


def interrupted(path: Path, pixels: NDArray[Any], key: str, end: int = 400) -> None:
    with pytest.raises(KeyboardInterrupt), StripWriter(path, layout_of(pixels), resume=key) as out:  # noqa: PT012
        out.write(0, pixels[:end])
        raise KeyboardInterrupt


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("extension", ["png", "tif"])
def test_the_journal_notes_what_is_safe_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extension: str
) -> None:
    pixels = np.zeros((*SIZE[::-1], 3), np.uint8)  # blocks so small that they wait in the buffer of the file
    path = tmp_path / f"a.{extension}"
    part, journal = tmp_path / f".{path.name}.part", tmp_path / f".{path.name}.part.journal"
    seen, fsync = list[tuple[str, int, int]](), os.fsync

    def noted(descriptor: int) -> None:
        lines = [json.loads(line) for line in journal.read_bytes().splitlines()[1:]]
        kind = "file" if os.path.samestat(os.fstat(descriptor), part.stat()) else "journal"
        seen.append((kind, part.stat().st_size, sum(sum(line["sizes"]) for line in lines)))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    with StripWriter(path, layout_of(pixels), resume="job") as out:
        head, safe = len(out._encoder._head()), 0
        for y in range(0, SIZE[1], 128):
            out.write(y, pixels[y : y + 128])
            new = sum(sum(block.sizes) for block in out._encoder.blocks)
            assert seen == [("file", head + new, safe), ("journal", head + new, new)]
            seen.clear()
            safe = new
    assert seen == [("file", path.stat().st_size, safe)]


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("extension", ["png", "tif"])
def test_a_full_disk_keeps_the_finished_rows(tmp_path: Path, extension: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, SIZE[::-1], np.uint8)[..., None]
    path = tmp_path / f"a.{extension}"

    def make() -> int:
        with StripWriter(path, layout_of(noise), resume="job") as out:
            start = out.rows
            for y in range(start, SIZE[1], 50):
                out.write(y, noise[y : y + 50])
        return start

    with disk_of(200_000), pytest.raises(FinescaleError, match=r": cannot be written \("):
        make()
    assert names(tmp_path) == [f".{path.name}.part", f".{path.name}.part.journal"]
    assert 150 <= make() <= 300
    np.testing.assert_array_equal(read(path).samples, noise)
    assert names(tmp_path) == [path.name]


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(("error", "kept"), [(FinescaleError, False), (ShortOfMemoryError, True), (KeyError, True)])
def test_a_damaged_input_keeps_nothing(tmp_path: Path, error: type[Exception], kept: bool) -> None:
    pixels = samples(3, 8)
    writer = StripWriter(tmp_path / "a.png", layout_of(pixels), resume="job")
    with pytest.raises(error), writer as out:  # noqa: PT012
        out.write(0, pixels[:400])
        raise error("of the reading")
    assert names(tmp_path) == ([".a.png.part", ".a.png.part.journal"] if kept else [])


@pytest.mark.usefixtures("small_blocks")
def test_rows_that_are_kept_are_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pixels, path = samples(3, 8), tmp_path / "a.png"
    interrupted(path, pixels, "job")
    kept = tmp_path / ".a.png.part"
    assert caplog.messages == [f"{path}: its finished rows are kept in {kept}; the same command goes on from there"]
    assert kept.exists()
    caplog.clear()
    with StripWriter(path, layout_of(pixels), resume="job") as out:
        out.write(0, pixels)
    with pytest.raises(KeyError), StripWriter(tmp_path / "b.png", layout_of(pixels), resume="job"):
        raise KeyError  # before any row
    assert not caplog.records


@pytest.mark.usefixtures("small_blocks")
def test_another_job_starts_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, path = samples(3, 8), tmp_path / "a.png"
    layout = layout_of(pixels)
    for key, wanted, format, version in (
        ("other", layout, "png", __version__),
        ("job", replace(layout, icc=None, resolution=(1, 1)), "png", __version__),
        ("job", replace(layout, xmp=b"other words"), "png", __version__),
        ("job", layout, "tiff", __version__),
        ("job", layout, "png", "another"),
    ):
        monkeypatch.setattr(strips, "__version__", __version__)
        interrupted(path, pixels, "job")
        monkeypatch.setattr(strips, "__version__", version)
        with StripWriter(path, wanted, format=format, resume=key, overwrite=True) as out:
            assert out.rows == 0
            out.write(0, pixels)
        np.testing.assert_array_equal(read(path).pixels, pixels)
        path.unlink()
    interrupted(path, pixels, "job")
    (tmp_path / ".a.png.part").unlink()  # the journal alone is worth nothing
    with StripWriter(path, layout_of(pixels), resume="job") as out:
        assert out.rows == 0
        out.write(0, pixels)
    np.testing.assert_array_equal(read(path).pixels, pixels)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("letter", ["a", "\N{GREEK SMALL LETTER ALPHA}"])
def test_long_names_are_gone_on_with_too(tmp_path: Path, letter: str) -> None:
    pixels, path = samples(3, 8), tmp_path / (letter * (250 // len(letter.encode())) + ".png")
    other = path.with_name(path.name.replace(f"{letter}.png", "b.png"))
    interrupted(path, pixels, "job")
    with StripWriter(other, layout_of(pixels), resume="job") as out:
        assert out.rows == 0
        out.write(0, pixels)
    with StripWriter(path, layout_of(pixels), resume="job") as out:
        assert 0 < out.rows < 400
        out.write(0, pixels)
    np.testing.assert_array_equal(read(path).pixels, pixels)


@pytest.mark.usefixtures("small_blocks")
def test_a_torn_journal_costs_only_its_last_line(tmp_path: Path) -> None:
    pixels, path = samples(1, 8), tmp_path / "a.tif"
    interrupted(path, pixels, "job")
    journal = tmp_path / ".a.tif.part.journal"
    journal.write_bytes(journal.read_bytes()[:-5])
    interrupted(path, pixels, "job", end=600)  # what it notes does not go behind the torn half
    with StripWriter(path, layout_of(pixels), resume="job") as out:
        assert 400 < out.rows < 600
        out.write(0, pixels)
    np.testing.assert_array_equal(read(path).pixels, pixels)


def test_an_unfinished_file_lies_beside_what_a_link_leads_to(tmp_path: Path) -> None:
    pixels, link, elsewhere = samples(1, 8), tmp_path / "link.tif", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "a.tif").write_bytes(b"old")
    link.symlink_to(elsewhere / "a.tif")
    with StripWriter(link, layout_of(pixels), resume="job", overwrite=True) as out:
        assert [path.name for path in tmp_path.iterdir() if path.is_file() and not path.is_symlink()] == []
        with (
            pytest.raises(FinescaleError, match="another process"),
            StripWriter(elsewhere / "a.tif", layout_of(pixels), resume="job", overwrite=True),
        ):
            pass
        out.write(0, pixels)
    assert link.is_symlink()
    assert [path.name for path in elsewhere.iterdir()] == ["a.tif"]
    np.testing.assert_array_equal(read(elsewhere / "a.tif").pixels, pixels)


@pytest.mark.skipif(os.name != "posix", reason="permissions")
@pytest.mark.parametrize("begun", [b"", b"half of it"])
def test_what_somebody_else_has_left_unfinished_is_no_hindrance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.chdir(tmp_path)  # to which not everybody may find the way
    pixels, left = samples(1, 8), tmp_path / ".a.tif.part"
    left.write_bytes(begun)
    left.chmod(0o444)
    tmp_path.chmod(0o777)
    with bound_by_permissions(), StripWriter("a.tif", layout_of(pixels), resume="job") as out:
        out.write(0, pixels)
    np.testing.assert_array_equal(read("a.tif").pixels, pixels)
    assert left.read_bytes() == begun
    tmp_path.chmod(0o555)
    with (
        bound_by_permissions(),
        pytest.raises(FinescaleError, match=r"b\.tif: cannot be written \(permission denied\)"),
        StripWriter("b.tif", layout_of(pixels), resume="job"),
    ):
        pass
    tmp_path.chmod(0o777)


def test_two_writers_of_one_file(tmp_path: Path) -> None:
    pixels, path = samples(1, 8), tmp_path / "a.tif"
    with StripWriter(path, layout_of(pixels), resume="job") as out:
        with pytest.raises(FinescaleError, match="another process"), StripWriter(path, layout_of(pixels), resume="job"):
            pass
        out.write(0, pixels)
    np.testing.assert_array_equal(read(path).pixels, pixels)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_is_finished_between_the_opening_and_the_lock_of_another_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    pixels, path = samples(3, 8), tmp_path / "a.png"
    options: dict[str, Any] = {"overwrite": overwrite, "resume": "job"}
    first = StripWriter(path, layout_of(pixels), **options)
    first.__enter__()
    first.write(0, pixels)

    def late(descriptor: int) -> bool | None:
        monkeypatch.setattr(strips, "locked", locked)
        first.__exit__(None, None, None)
        return locked(descriptor)

    monkeypatch.setattr(strips, "locked", late)
    second = StripWriter(path, layout_of(pixels), **options)
    if overwrite:
        with second:
            assert second.rows == 0
            second.write(0, pixels)
    else:
        with pytest.raises(TakenError, match="already exists"):
            second.__enter__()
    np.testing.assert_array_equal(read(path).pixels, pixels)
    assert names(tmp_path) == ["a.png"]


def test_a_file_that_appears_meanwhile_is_left_alone_and_so_is_nothing_else(tmp_path: Path) -> None:
    pixels, path = samples(3, 8), tmp_path / "a.png"
    out = StripWriter(path, layout_of(pixels), resume="job")
    out.__enter__()
    out.write(0, pixels)
    path.write_bytes(b"somebody's")
    with pytest.raises(TakenError, match="already exists"):
        out.__exit__(None, None, None)
    assert path.read_bytes() == b"somebody's"
    assert names(tmp_path) == ["a.png"]


def test_without_locks_two_writers_do_not_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(descriptor: int, how: int) -> None:
        raise OSError(45, "operation not supported")  # as a Mac says of some shares

    monkeypatch.setattr(pytest.importorskip("fcntl"), "flock", flock)
    rows = np.full((64, 50, 3), 7, np.uint8)
    layout = layout_of(np.concatenate([rows, rows]))
    with StripWriter(tmp_path / "a.tif", layout, overwrite=True, resume="one") as first:
        first.write(0, rows)
        with StripWriter(tmp_path / "a.tif", layout, overwrite=True, resume="two") as second:
            second.write(0, rows)
            first.write(64, rows)
            second.write(64, rows)
    assert (read(tmp_path / "a.tif").pixels == 7).all()
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]
