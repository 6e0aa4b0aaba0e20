"""Pictures as phones store them. The files were written by pillow-heif, without loss, from what `scene` gives."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.images.test_xmp import PLAIN, said

from finescale.cli.main import main
from finescale.errors import FinescaleError
from finescale.images.files import probe, read, write
from finescale.images.picture import Samples, unmultiplied
from finescale.images.strips import StripReader

FILES = Path(__file__).parent / "heic"


def scene() -> Samples:
    y, x = np.mgrid[:24, :32]
    return np.dstack((x * 8, y * 10, (x // 4 + y // 4) % 2 * 200)).astype(np.uint8)


def test_phones_store_the_turn_beside_the_pixels() -> None:
    found = read(FILES / "turned.heic")
    assert np.array_equal(found.pixels, np.rot90(scene(), -1))
    assert found.size == probe(FILES / "turned.heic")[:2] == (24, 32)
    assert found.icc is not None
    assert found.exif is not None
    assert b"Maker" in found.exif
    assert b"\x01\x12\x00\x03\x00\x00\x00\x01\x00\x01" in found.exif  # the orientation: nothing is left to turn


def test_transparency() -> None:
    found = read((FILES / "alpha.heic").read_bytes())
    assert np.array_equal(found.pixels, scene())
    assert found.alpha is not None
    assert np.array_equal(found.alpha, scene()[..., 0])


def test_grey_stays_grey() -> None:
    found = read(FILES / "grey.heic")
    assert found.pixels.shape == (24, 32, 1)
    assert np.array_equal(found.pixels[..., 0], scene()[..., 0])


def test_ten_bits_are_kept_and_reach_white() -> None:
    assert probe(FILES / "ten.heic").bits == 16
    found = read(FILES / "ten.heic").pixels
    assert found.dtype == np.uint16
    wanted = (scene().astype(np.uint32) * 257 >> 6) * 65535 / 1023
    assert np.abs(found - wanted).max() <= 0.5


def test_of_several_the_main_one_is_read(caplog: pytest.LogCaptureFixture) -> None:
    assert np.array_equal(read(FILES / "second.heic").pixels, scene()[::-1])
    assert "only the main one is read" in caplog.text


def test_wide_colours_are_told_in_png(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = (FILES / "alpha.heic").read_bytes()
    assert read(whole).colours is None
    (tmp_path / "wide.heic").write_bytes(whole.replace(b"colrnclx\0\1", b"colrnclx\0\x0c"))
    found = read(tmp_path / "wide.heic")
    assert found.colours is not None
    assert found.colours == StripReader(tmp_path / "wide.heic").layout.colours
    write(found, tmp_path / "a.png")
    assert b"cICP\x0c\x0d\0\1" in (tmp_path / "a.png").read_bytes()
    assert not caplog.records
    write(found, tmp_path / "a.tif")
    assert "a.tif: its colours are not those of sRGB" in caplog.text


def test_xmp_is_kept_but_for_what_is_not_true_any_more() -> None:
    found = read(FILES / "described.heic")  # with the block of test_xmp, but for the orientation
    assert np.array_equal(found.pixels, scene())
    assert said(found.xmp) == PLAIN
    assert StripReader(FILES / "described.heic").layout.xmp == found.xmp


def test_by_strips_as_whole() -> None:
    with_strips = StripReader(FILES / "turned.heic")
    assert np.array_equal(with_strips.rows(0, 32), read(FILES / "turned.heic").pixels)


def test_damaged_files_are_refused_by_name(tmp_path: Path) -> None:
    whole = (FILES / "turned.heic").read_bytes()
    file = tmp_path / "phone.heic"
    for length in range(24, len(whole), 61):
        file.write_bytes(whole[:length])
        with pytest.raises(FinescaleError, match=r"phone\.heic: damaged or cut off"):
            read(file)


def test_flipped_bytes_are_a_picture_or_one_sentence() -> None:
    whole = (FILES / "turned.heic").read_bytes()
    random = np.random.default_rng(0)
    refused = []
    for _ in range(100):
        data = bytearray(whole)
        for place in random.integers(8, len(whole), 3):
            data[place] ^= int(random.integers(1, 256))
        try:
            read(bytes(data))
        except FinescaleError as error:
            refused.append(str(error))
    assert 0 < len(refused) < 100
    assert all(sentence.startswith("the picture: ") and "\n" not in sentence for sentence in refused)


def test_too_many_pixels_are_refused_from_the_header() -> None:
    with pytest.raises(FinescaleError, match="holds 24 x 32 pixels, more than the limit of 700"):
        read(FILES / "turned.heic", max_pixels=700)


def test_a_folder_from_a_phone(tmp_path: Path) -> None:
    folder = tmp_path / "phone"
    folder.mkdir()
    (folder / "IMG_1.HEIC").write_bytes((FILES / "turned.heic").read_bytes())
    assert main(["upscale", str(folder), "-o", str(tmp_path / "out"), "--scale", "2", "--network", "bicubic"]) == 0
    large = read(tmp_path / "out" / "IMG_1_x2.png")
    assert large.size == (48, 64)
    assert large.exif is not None
    assert large.icc is not None


@pytest.mark.parametrize("top", [255, 65535])
def test_multiplied_colours_are_divided_again(top: int) -> None:
    kind = np.uint8 if top == 255 else np.uint16
    colours = np.array([[[top, top // 2, 0], [top, top // 3, 7]]], kind)
    alpha = np.array([[top, top // 2]], kind)
    multiplied = (colours.astype(float) * alpha[..., None] / top).round().astype(kind)
    assert np.abs(unmultiplied(multiplied, alpha).astype(int) - colours).max() <= 2
    assert not unmultiplied(np.zeros((1, 1, 3), kind), np.zeros((1, 1), kind)).any()


def test_without_the_extra(tmp_path: Path) -> None:
    """In a process that cannot find pillow-heif."""
    hide = "import importlib.util as u; f = u.find_spec; u.find_spec = lambda n, *a: None if 'heif' in n else f(n, *a)"
    run = "import sys; from finescale.cli.main import main"
    run += "; print(*[main(['upscale', one, '-o', sys.argv[1]]) for one in sys.argv[2:]])"
    file = FILES / "turned.heic"
    words = [sys.executable, "-c", f"{hide}; {run}", str(tmp_path / "out.png"), str(file), str(FILES)]
    found = subprocess.run(words, capture_output=True, text=True)
    needs = 'pip install "finescale[heic]"'
    assert found.stdout == "1 2\n", found.stderr
    of_file, of_folder = found.stderr.splitlines()
    assert of_file == f"finescale: {file}: HEIC pictures need another package: {needs}"
    assert of_folder.endswith(f"of a kind that is read (but 6 .heic; HEIC needs: {needs})")


def test_it_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(FinescaleError, match="cannot write the format 'heic'"):
        write(read(FILES / "grey.heic"), tmp_path / "a.heic")
