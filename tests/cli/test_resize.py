"""`finescale resize` as it is typed."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from finescale.cli.main import main
from finescale.images import jpeg
from finescale.images.files import read, write
from finescale.images.picture import Picture, mod_crop
from finescale.images.resize import Piece, Resizing
from finescale.images.scaling import resize_picture


def photo(path: Path, size: tuple[int, int] = (43, 30)) -> Picture:
    picture = Picture(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3)).astype(np.uint8))
    path.parent.mkdir(parents=True, exist_ok=True)
    write(picture, path)
    return picture


def test_scales_exactly(tmp_path: Path) -> None:
    picture = photo(tmp_path / "a.png")
    for text, scale in (("1/4", 0.25), ("0.25", 0.25), ("3", 3.0), ("1/3", 1 / 3)):
        assert main(["resize", str(tmp_path / "a.png"), str(tmp_path / "b.png"), "--scale", text, "--overwrite"]) == 0
        np.testing.assert_array_equal(read(tmp_path / "b.png").pixels, resize_picture(picture, scale=scale).pixels)


def test_mod_crop_and_border(tmp_path: Path) -> None:
    opaque = photo(tmp_path / "a.png")
    picture = replace(opaque, alpha=opaque.pixels[..., 0])
    write(picture, tmp_path / "a.png", overwrite=True)
    options = ["--scale", "1/4", "--mod-crop", "--border", "mirror"]
    assert main(["resize", str(tmp_path / "a.png"), str(tmp_path / "b.tif"), *options]) == 0
    cropped = Picture(mod_crop(picture.pixels, 4), mod_crop(opaque.pixels[..., 0], 4))
    expected, found = resize_picture(cropped, scale=0.25, border="mirror"), read(tmp_path / "b.tif")
    np.testing.assert_array_equal(found.samples, expected.samples)


@pytest.mark.parametrize(
    ("options", "size"),
    [(["--width", "86"], (86, 60)), (["--height", "15"], (22, 15)), (["--fit", "100x15"], (22, 15))],
)
def test_sizes(tmp_path: Path, options: list[str], size: tuple[int, int], capsys: pytest.CaptureFixture[str]) -> None:
    photo(tmp_path / "a.png")
    assert main(["resize", str(tmp_path / "a.png"), str(tmp_path / "b.png"), *options]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'b.png'}: {size[0]} x {size[1]} pixels\n"
    assert read(tmp_path / "b.png").size == size


def test_a_folder_goes_on_after_a_bad_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo(tmp_path / "in" / "a.png")
    photo(tmp_path / "in" / "deep" / "b.png")
    (tmp_path / "in" / "bad.png").write_text("no picture")
    assert main(["resize", str(tmp_path / "in"), str(tmp_path / "out"), "--scale", "2", "--format", "tiff"]) == 1
    said = capsys.readouterr()
    assert "bad.png: not a picture" in said.err
    assert said.out == f"2 pictures resized to {tmp_path / 'out'}, 1 failed\n"
    assert sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.*")) == [
        "a.tiff",
        "deep/b.tiff",
    ]


def test_a_folder_goes_on_where_memory_or_the_system_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, size in (("1.png", (300, 200)), ("2.png", (30, 20)), ("4.png", (30, 20))):
        photo(tmp_path / "in" / name, size)
    photo(tmp_path / "out" / "3.png")
    try:
        (tmp_path / "in" / "3.png").symlink_to("gone")
    except OSError:
        pytest.skip("this system makes no links")
    usual = Resizing.each

    def each(self: Resizing, work: Callable[[Piece], None]) -> None:
        if self.shape == (200, 300):
            raise MemoryError("Unable to allocate 4.00 GiB")
        usual(self, work)

    monkeypatch.setattr(Resizing, "each", each)
    command = ["resize", str(tmp_path / "in"), str(tmp_path / "out"), "--scale", "1/2", "--skip-existing"]
    assert main(command) == 1
    said = capsys.readouterr()
    assert said.out == f"2 pictures resized to {tmp_path / 'out'}, 2 failed\n"
    assert said.err.splitlines() == [
        f"finescale: {tmp_path / 'in' / '1.png'}: there is not enough memory for this picture",
        f"finescale: {tmp_path / 'in' / '3.png'}: no such file or directory",
    ]


def test_a_folder_loses_nothing_to_compression(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.webp", "c.tif", "d.bmp", "e.png"):
        photo(tmp_path / "in" / name)
    assert main(["resize", str(tmp_path / "in"), str(tmp_path / "out"), "--scale", "2"]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "b.png", "c.tif", "d.bmp", "e.png"]


@pytest.mark.parametrize(("options", "wanted"), [([], 95), (["--quality", "30"], 30)])
def test_quality(tmp_path: Path, options: list[str], wanted: int) -> None:
    photo(tmp_path / "in" / "a.png")
    one, folder = tmp_path / "b.jpg", tmp_path / "out"
    assert main(["resize", str(tmp_path / "in" / "a.png"), str(one), "--scale", "2", *options]) == 0
    assert main(["resize", str(tmp_path / "in"), str(folder), "--scale", "2", "--format", "jpeg", *options]) == 0
    assert jpeg.quality(one) == jpeg.quality(folder / "a.jpeg") == wanted


def test_no_two_pictures_with_one_result(tmp_path: Path) -> None:
    for i, name in enumerate(("a.png", "a.jpg", "b.webp", "b.png", "b.webp.png", "c.jpg")):
        photo(tmp_path / "in" / name, (20 + i, 30))
    for options in ([], ["--format", "png"]):
        assert main(["resize", str(tmp_path / "in"), str(tmp_path / "out"), "--scale", "2", *options]) == 0
        sizes = {path.name: read(path).size[0] // 2 for path in (tmp_path / "out").iterdir()}
        found = {"a.png": 20, "a.jpg.png": 21, "b.webp.png": 22, "b.png": 23, "b.webp.png.png": 24, "c.png": 25}
        assert sizes == found
        shutil.rmtree(tmp_path / "out")


def test_results_inside_the_folder_are_not_resized_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    photo(tmp_path / "in" / "a.png")
    for _ in range(2):
        assert main(["resize", str(tmp_path / "in"), "in/out", "--scale", "2", "--overwrite"]) == 0
    assert [path.name for path in (tmp_path / "in" / "out").rglob("*")] == ["a.png"]


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--scale", "0"], 2, "scale must be above 0"),
        (["--scale", "big"], 2, "scale must be a number"),
        (["--scale", "1e999999999"], 2, "scale must be a number"),
        (["--scale", "1" * 400], 2, "scale must be a number"),
        (["--scale", "1e9_9_9_9_9_9_9"], 2, "scale must be a number"),
        (["--fit", f"{'0' * 5000}1x10"], 2, "WIDTHxHEIGHT"),
        (["--fit", "10"], 2, "WIDTHxHEIGHT"),
        (["--fit", f"{'1' * 5000}x10"], 2, "WIDTHxHEIGHT"),
        (["--width", "0"], 2, "above 0"),
        (["--width", "60px"], 2, "width must be a whole number of pixels, such as 1920, not '60px'"),
        (["--scale", "3/4", "--mod-crop"], 2, "1/s"),
        (["--scale", "1/50", "--mod-crop"], 2, "multiple of 50"),
        (["--scale", "1e9"], 2, "43000000000 x 30000000000 pixels, and 500000000 are the limit"),
        (["--width", "99999999"], 2, "are the limit"),
        (["--scale", "1e-10"], 2, "a.png: 43 x 30 pixels cannot be shrunk so much"),
        (["--scale", "2", "--format", "jpeg"], 2, "its name says png, and --format jpeg"),
        (["--scale", "2", "--quality", "50"], 2, "there is no quality to choose"),
    ],
)
def test_impossible_requests_are_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], code: int, words: str
) -> None:
    photo(tmp_path / "a.png")
    assert main(["resize", str(tmp_path / "a.png"), str(tmp_path / "b.png"), *options]) == code
    said = capsys.readouterr().err
    assert said.startswith("finescale: ")
    assert words in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "b.png").exists()


def test_nothing_is_overwritten_unasked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo(tmp_path / "a.png")
    assert main(["resize", str(tmp_path / "a.png"), str(tmp_path / "a.png"), "--scale", "2"]) == 1
    assert "already exists" in capsys.readouterr().err
    assert main(["resize", str(tmp_path / "missing.png"), str(tmp_path / "b.png"), "--scale", "2"]) == 1
    assert "missing.png: no such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [("*.png", 2, "IN takes one picture or one folder, no pattern"), ("in", 1, "no such file or folder")],
)
def test_what_is_not_there_is_named_before_the_output(
    name: str, code: int, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo(tmp_path / "a.png")
    assert main(["resize", str(tmp_path / name), str(tmp_path / "out"), "--scale", "2"]) == code
    assert capsys.readouterr().err == f"finescale: {tmp_path / name}: {words}\n"


def test_a_file_into_a_folder_is_named_like_those_of_a_folder(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    photo(tmp_path / "b.png")
    (tmp_path / "out").mkdir()
    assert main(["resize", str(tmp_path / "a.jpg"), str(tmp_path / "out"), "--scale", "2"]) == 0
    assert main(["resize", str(tmp_path / "b.png"), str(tmp_path / "out"), "--scale", "2", "--format", "jpeg"]) == 0
    assert {path.name: path.read_bytes()[:2] for path in (tmp_path / "out").iterdir()} == {
        "a.png": b"\x89P",
        "b.jpeg": b"\xff\xd8",
    }


@pytest.mark.parametrize("options", [["--width", "0"], ["--scale", "2", "--format", "jpeg", "--quality", "500"]])
def test_a_folder_is_not_begun_with_a_wrong_request(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    for name in ("a", "b"):
        photo(tmp_path / "in" / f"{name}.png")
    assert main(["resize", str(tmp_path / "in"), str(tmp_path / "out"), *options]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_cropped_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo(tmp_path / "in" / "tiny.png", (2, 2))
    photo(tmp_path / "in" / "good.png")
    assert main(["resize", str(tmp_path / "in"), str(tmp_path / "out"), "--scale", "1/4", "--mod-crop"]) == 1
    said = capsys.readouterr()
    assert "tiny.png: " in said.err
    assert said.out == f"1 picture resized to {tmp_path / 'out'}, 1 failed\n"


def test_a_folder_goes_on_where_it_was_and_past_what_is_in_the_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a/1.png", "b/2.png", "3.png"):
        photo(tmp_path / "in" / name)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").touch()  # where a folder belongs
    command = ["resize", str(tmp_path / "in"), str(tmp_path / "out"), "--scale", "2"]
    assert main(command) == 1
    said = capsys.readouterr()
    assert "1.png: cannot be written" in said.err
    assert said.out == f"2 pictures resized to {tmp_path / 'out'}, 1 failed\n"
    before = (tmp_path / "out" / "3.png").stat().st_mtime_ns
    (tmp_path / "out" / "a").unlink()
    assert main(command) == 1  # they may be of another scale
    assert "3.png: already exists" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "out" / "a")
    command.append("--skip-existing")
    assert main(command) == 0
    assert capsys.readouterr().out == f"1 picture resized to {tmp_path / 'out'}, 2 already there\n"
    assert (tmp_path / "out" / "3.png").stat().st_mtime_ns == before
    assert main([*command[:2], *command[1:2], *command[3:]]) == 1  # the pictures themselves are no results
    assert "3.png: already exists" in capsys.readouterr().err
    assert main([*command[:-1], "--overwrite"]) == 0
    assert capsys.readouterr().out == f"3 pictures resized to {tmp_path / 'out'}\n"


def test_a_folder_and_a_file_are_not_taken_for_one_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo(tmp_path / "in" / "a.png")
    assert main(["resize", str(tmp_path / "in"), str(tmp_path / "lr.png"), "--scale", "2"]) == 2
    assert "one file cannot take several pictures" in capsys.readouterr().err
    assert not (tmp_path / "lr.png").exists()
    assert main(["resize", str(tmp_path / "in" / "a.png"), f"{tmp_path / 'new'}/", "--scale", "2"]) == 0
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.png"]


@pytest.mark.parametrize(
    "words",
    [
        ["resize", "", "out", "--scale", "2"],
        ["resize", "a.png", "", "--scale", "2"],
        ["data", "prepare", "", "-o", "store"],
        ["data", "draw", "-o", ""],
        ["score", "--hr", "", "--sr", "x", "--scale", "2"],
        ["train", ""],
    ],
)
def test_an_empty_name_is_not_the_current_folder(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photo(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert "the name is empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
