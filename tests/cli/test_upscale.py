"""`finescale upscale` as it is typed."""

import io
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import chdir
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image
from tests.conftest import Terminal, bound_by_permissions, hearing_signals
from tests.inference.test_tiling import picture

import finescale
from finescale.cli.main import main
from finescale.data import graphics
from finescale.evaluation.metrics import psnr_y
from finescale.images import files, jpeg
from finescale.images.files import read, write
from finescale.images.picture import Picture
from finescale.inference.flow import Flow
from finescale.inference.photograph import PHOTOGRAPH
from finescale.inference.upscale import Upscaler
from finescale.networks import DEFAULT
from finescale.weights.files import load

pytestmark = pytest.mark.usefixtures("_here")


def photo(name: str, height: int = 20, width: int = 30) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write(Picture(picture(height, width)), path)
    return path


def upscale(*arguments: str) -> int:
    return main(["upscale", "--engine", "torch", *arguments])


def listing() -> list[str]:
    return sorted(str(path) for path in Path().rglob("*") if path.is_file())


def finished(folder: str) -> list[str]:
    """Names of the complete files in a folder, which may not be there yet."""
    return sorted(path.name for path in Path(folder).glob("[!.]*"))


def test_beside_the_picture() -> None:
    photo("photo.jpg")
    assert upscale("photo.jpg") == 0
    assert listing() == ["photo.jpg", "photo_x4.png"]
    assert read("photo_x4.png").size == (120, 80)


def test_what_is_said_of_the_networks_that_were_chosen(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_weights, "weights")
    for file in Path("weights").glob("*.safetensors"):
        for kind in ("jpeg", "graphics"):
            shutil.copy(file, file.with_name(file.name.replace("-x", f"-{kind}-x")))
    monkeypatch.setenv("FINESCALE_WEIGHTS", "weights")
    for name, quality in (("a.jpg", 40), ("many/b.jpg", 30), ("many/c.jpg", 74), ("many/d.jpg", 95)):
        Path(name).parent.mkdir(exist_ok=True)
        Image.fromarray(picture(20, 30)).save(name, quality=quality)
    Image.fromarray(graphics.picture(3, 60)).save("page.png")
    said: dict[str, str] = {}
    for given in (
        ["a.jpg"],
        ["page.png"],
        ["a.jpg", "page.png"],
        ["many"],
        ["many/d.jpg"],
        ["a.jpg", "--network", "bicubic"],
        ["a.jpg", "--network", "sa-rcan-light"],
        ["a.jpg", "--quiet"],
        ["a.jpg", "--width", "29"],  # no network looks at it
    ):
        size = () if "--width" in given else ("--scale", "2")
        assert upscale(*given, *size, "-o", f"out{len(said)}/") == 0
        said[" ".join(given)] = capsys.readouterr().err
    by_jpeg = "network: sa-rcan-light-jpeg, which takes the traces of JPEG away\n"
    assert said.pop("a.jpg") == f"a.jpg: a JPEG of quality 40; {by_jpeg}"
    page = "page.png: looks drawn; network: sa-rcan-light-graphics, which is made for text, charts and pixel art\n"
    assert said.pop("page.png") == page
    assert sorted(said.pop("a.jpg page.png").splitlines(keepends=True)) == [
        f"a.jpg: a JPEG of quality 40; {by_jpeg}",
        page,
    ]
    assert f"2 of them are JPEGs of low quality; {by_jpeg}" in said.pop("many")
    assert not any("JPEG" in text or "drawn" in text for text in said.values())


def test_each_picture_by_the_network_that_suits_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FINESCALE_WEIGHTS")
    clean = read(PHOTOGRAPH).pixels[:96, :128]
    for kind in ("jpg", "png"):
        Image.fromarray(clean).save(f"a.{kind}", quality=40)
    by = {"a.jpg": "sa-rcan-light-jpeg", "a.png": "sa-rcan-light"}
    assert upscale("a.jpg", "a.png", "--scale", "2", "-o", "out", "--json", "--quiet") == 0
    made = json.loads(capsys.readouterr().out)["written"]
    assert {one["picture"]: one["network"] for one in made} == by
    for one in made:
        assert (
            upscale(one["picture"], "--scale", "2", "--network", one["network"], "-o", "named.png", "--overwrite") == 0
        )
        np.testing.assert_array_equal(read("named.png").pixels, read(one["result"]).pixels)


def test_a_broken_network_that_nobody_named_stops_nothing(
    tiny_weights: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(tiny_weights, "weights")
    Path("weights/sa-rcan-light-jpeg-x2.safetensors").write_bytes(b"cut off")
    monkeypatch.setenv("FINESCALE_WEIGHTS", "weights")
    for name in ("in/a.png", "in/b.jpg", "in/c.png", "in/d.jpg"):
        photo(name)
    for name in ("in/b.jpg", "in/d.jpg"):
        Image.open(name).save(name, quality=40)
    assert upscale("in", "-o", "out", "--scale", "2") == 0
    assert finished("out") == ["a_x2.png", "b_x2.png", "c_x2.png", "d_x2.png"]
    assert [text.partition(":")[0] for text in caplog.messages] == ["weights/sa-rcan-light-jpeg-x2.safetensors"]


def test_networks_that_restore_also_clean_at_the_same_size(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FINESCALE_WEIGHTS")
    clean = read(PHOTOGRAPH).pixels[:96, :128]
    Image.fromarray(clean).save("a.jpg", quality=40)
    damaged = read("a.jpg").pixels
    jpeg = "sa-rcan-light-jpeg"
    for given, used in (((), jpeg), (("--network", jpeg), jpeg), (("--network", "sa-rcan-light"), "bicubic")):
        assert upscale("a.jpg", *given, "--scale", "1", "-o", "b.png", "--overwrite", "--json") == 0
        assert json.loads(capsys.readouterr().out)["written"][0]["network"] == used
        result = read("b.png").pixels
        if used == "bicubic":
            np.testing.assert_array_equal(result, damaged)
        else:
            assert psnr_y(result, clean, 1) > psnr_y(damaged, clean, 1) + 1
    assert upscale("a.jpg", "--network", jpeg, "--scale", "0.5", "-o", "b.png", "--overwrite", "--json") == 0
    assert json.loads(capsys.readouterr().out)["written"][0]["network"] == "bicubic"


@pytest.mark.parametrize(
    ("options", "name", "size"),
    [
        (["--scale", "2"], "a_x2.png", (60, 40)),
        (["--scale", "2.5"], "a_x2.5.png", (75, 50)),
        (["--width", "100"], "a_100w.png", (100, 67)),
        (["--height", "50"], "a_50h.png", (75, 50)),
        (["--fit", "90x90"], "a_fit90x90.png", (90, 60)),
        (["--format", "webp"], "a_x4.webp", (120, 80)),
        (["--format", "jpg", "--quality", "80"], "a_x4.jpg", (120, 80)),
        (["-o", "b.tif"], "b.tif", (120, 80)),
        (["-o", "new/folder"], "new/folder/a_x4.png", (120, 80)),
    ],
)
def test_names_and_sizes(options: list[str], name: str, size: tuple[int, int]) -> None:
    photo("a.bmp")
    assert upscale("a.bmp", *options) == 0
    assert read(name).size == size
    assert len(listing()) == 2
    assert jpeg.quality(Path(name)) == (80 if "--quality" in options else None)


def test_a_bar_at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    photo("in/a.png")
    photo("in/b.png")
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert upscale("in", "--scale", "2") == 0
    seen = cast(Terminal, sys.stderr).getvalue()
    assert re.search(r"[ab]\.png", seen), seen[-400:]
    assert "100 %" in seen
    assert seen.count("\x1b[?25l") == seen.count("\x1b[?25h") == 1, "the cursor is back"


def test_without_a_size_a_network_enlarges_once(tiny_weights: Path) -> None:
    photo("in/a.png")
    assert upscale("in", "--network", str(tiny_weights / f"{DEFAULT}-x2.safetensors")) == 0
    assert read("in/a_x2.png").size == (60, 40)
    assert len(listing()) == 2


def test_small_pictures_are_made_smaller_or_stay_as_large(capsys: pytest.CaptureFixture[str]) -> None:
    photo("in/a.png")
    photo("in/b.png")
    for options, name, size in (
        (["--scale", "0.5"], "a_x0.5.png", (15, 10)),
        (["--scale", "1"], "a_x1.png", (30, 20)),
        (["--width", "10"], "a_10w.png", (10, 7)),
    ):
        assert upscale("in", *options, "-o", "out/") == 0
        assert read(f"out/{name}").size == size
        remark = {
            "a_x0.5.png": "",  # a factor says it itself
            "a_x1.png": "2 of 2 as large as asked for, so only copied (--network sa-rcan-light-jpeg or "
            "sa-rcan-light-noise cleans without enlarging)\n",
            "a_10w.png": "2 of 2 larger than asked for, so made smaller\n",
        }[name]
        assert capsys.readouterr().err == remark
    photo("in/c.png", 5, 10)
    assert upscale("in", "--fit", "15x15", "-o", "boxes/") == 0
    assert capsys.readouterr().err == "2 of 3 larger than asked for, so made smaller\n"
    assert upscale("in/a.png", "--fit", "15x15") == 0
    assert capsys.readouterr().err == "in/a.png: larger than asked for, so made smaller\n"
    assert upscale("in/a.png", "--width", "30") == 0
    assert capsys.readouterr().err.startswith("in/a.png: as large as asked for, so only copied (")


def test_never_overwrites(capsys: pytest.CaptureFixture[str]) -> None:
    photo("a.png")
    Path("a_x4.png").write_bytes(b"precious")
    assert upscale("a.png") == 1
    assert "already exists" in capsys.readouterr().err
    assert Path("a_x4.png").read_bytes() == b"precious"
    assert upscale("a.png", "--overwrite") == 0
    assert read("a_x4.png").size == (120, 80)


def test_one_picture_again_where_that_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    photo("a.png")
    assert upscale("a.png") == 0
    before = Path("a_x4.png").stat().st_mtime_ns
    assert upscale("a.png", "--skip-existing") == 0
    assert "1 of 1 skipped" in capsys.readouterr().err
    assert Path("a_x4.png").stat().st_mtime_ns == before
    with pytest.raises(SystemExit, match="2"):
        upscale("a.png", "--skip-existing", "--overwrite")


def test_a_folder_keeps_its_structure_and_resumes(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("in/a.png", "in/deep/b.jpg", "in/deep/er/c.tif"):
        photo(name)
    Path("in/notes.txt").write_text("no picture")
    assert upscale("in", "-o", "out", "--scale", "2") == 0
    results = ["out/a_x2.png", "out/deep/b_x2.png", "out/deep/er/c_x2.tif"]
    assert [name for name in listing() if name.startswith("out")] == results
    times = [Path(name).stat().st_mtime_ns for name in results]
    Path(results[1]).unlink()
    assert upscale("in", "-o", "out", "--scale", "2") == 0
    assert "2 of 3 skipped" in capsys.readouterr().err
    assert [Path(results[i]).stat().st_mtime_ns for i in (0, 2)] == [times[0], times[2]]
    assert Path(results[1]).exists()


def test_results_are_no_pictures_to_enlarge(capsys: pytest.CaptureFixture[str]) -> None:
    photo("in/a.png")
    assert upscale("in", "--scale", "2") == 0
    assert upscale("in", "--scale", "2") == 0
    assert listing() == ["in/a.png", "in/a_x2.png"]
    assert "left out" not in capsys.readouterr().err


def test_results_of_another_size_are_no_pictures_to_enlarge_either(capsys: pytest.CaptureFixture[str]) -> None:
    photo("in/a.png")
    photo("in/lonely_x2.png")
    assert upscale("in", "--width", "50") == 0
    assert upscale("in", "--scale", "2") == 0
    assert listing() == [
        "in/a.png",
        "in/a_50w.png",
        "in/a_x2.png",
        "in/lonely_x2.png",
        "in/lonely_x2_50w.png",
        "in/lonely_x2_x2.png",
    ]
    assert "2 left out" in capsys.readouterr().err
    assert upscale("in/a_x2.png", "--scale", "2") == 0  # named outright
    assert read("in/a_x2_x2.png").size == (120, 80)


def test_results_in_a_folder_of_their_own_are_none_either(capsys: pytest.CaptureFixture[str]) -> None:
    photo("in/deep/a.png")
    photo("in/large/b_x2.png")  # of nothing here
    assert upscale("in", "-o", "in/large", "--scale", "2") == 0
    assert "left out" not in capsys.readouterr().err
    assert upscale("in", "-o", "in/huge", "--scale", "3") == 0
    assert [name for name in listing() if "huge" in name] == ["in/huge/deep/a_x3.png", "in/huge/large/b_x2_x3.png"]
    assert "1 left out" in capsys.readouterr().err


def test_suffixes_and_formats_of_ones_own(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.png", "a.jpg", "b.webp", "c.tif", "d.bmp"):
        photo(f"in/{name}")
    Image.open("in/a.png").save("in/e.gif")
    large = ["in", "--scale", "2", "--format", "same"]
    assert upscale(*large, "-o", "out", "--suffix", "") == 0
    assert finished("out") == ["a.jpg", "a.png", "b.webp", "c.tif", "d.bmp", "e.png"]
    assert {file: files.probe(f"out/{file}").format for file in ("a.jpg", "b.webp")} == {
        "a.jpg": "jpeg",
        "b.webp": "webp",
    }
    for _ in range(2):  # the second time there is nothing to do
        assert upscale(*large, "--suffix", "_hd") == 0
        assert sum("_hd" in name for name in finished("in")) == 6
    assert "6 of 6 skipped" in capsys.readouterr().err
    for given, said in (
        (["--suffix", ""], "without a suffix results need a folder of their own: name it by -o"),
        (["--suffix", "", "-o", "in"], "in/a.jpg: its result would have its name; name another folder or a suffix"),
        (["--suffix", "a/b"], "--suffix a/b: should be part of a name, such as _large"),
    ):
        assert upscale(*large, *given) == 2
        assert said in capsys.readouterr().err
    assert upscale("in/a.png", "-o", "b.png", "--suffix", "_hd") == 2
    assert "b.png: is the whole name of the result; leave out --suffix" in capsys.readouterr().err
    assert upscale("in/a.png", "-o", "b.jpg", "--format", "same") == 0
    assert files.probe("b.jpg").format == "jpeg"


def test_sixteen_bits_are_not_lost_in_silence(caplog: pytest.LogCaptureFixture) -> None:
    write(Picture(picture(20, 30).astype(np.uint16) * 257), "a.png")
    assert upscale("a.png", "--scale", "2") == 0
    assert not caplog.messages
    assert upscale("a.png", "--scale", "2", "--format", "jpeg") == 0
    assert "a_x2.jpg: JPEG holds 8 bits" in caplog.text


def test_pictures_of_other_kinds_in_a_folder_are_not_passed_over_in_silence(capsys: pytest.CaptureFixture[str]) -> None:
    photo("in/a.png")
    for name in ("in/b.JXL", "in/deep/c.jxl", "in/d.pcx", "in/notes.txt", "in/.hidden.jxl"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(b"x")
    assert upscale("in", "-o", "out") == 0
    assert capsys.readouterr().err == "2 .jxl, 1 .pcx left out: not among the kinds that are read\n"
    Image.new("L", (9, 9)).save("in/many.gif", save_all=True, append_images=[Image.new("L", (9, 9), 255)])
    assert upscale("in", "-o", "out", "--quiet") == 0
    assert capsys.readouterr().err == ""
    Path("in/many.gif").unlink()
    Path("in/a.png").unlink()
    assert upscale("in", "-o", "out") == 2
    said = capsys.readouterr().err
    assert said == "finescale: in: there are no pictures in this folder of a kind that is read (but 2 .jxl, 1 .pcx)\n"


def test_programs_are_told_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    photo("in/a.png")
    photo("in/b.png")
    Path("in/c.png").write_bytes(b"x")
    assert upscale("in/b.png", "--scale", "2", "-o", "out/") == 0
    capsys.readouterr()
    assert upscale("in", "-o", "out", "--scale", "2", "--json", "--quiet") == 1
    said = capsys.readouterr()
    reason = "in/c.png: not a picture in a format that is read here"
    width, height = (2 * side for side in read("in/a.png").size)
    assert json.loads(said.out) == {
        "written": [
            {
                "picture": "in/a.png",
                "result": "out/a_x2.png",
                "width": width,
                "height": height,
                "network": "sa-rcan-light",
            }
        ],
        "skipped": [{"picture": "in/b.png", "result": "out/b_x2.png"}],
        "failed": [{"picture": "in/c.png", "reason": reason}],
        "warnings": [],
    }
    assert reason in said.err
    Image.new("RGBA", (9, 9)).save("clear.png")
    for quiet in ([], ["--quiet"]):
        assert upscale("clear.png", "-o", "clear.jpg", "--overwrite", "--json", *quiet) == 0
        said = capsys.readouterr()
        warned = ["clear.jpg: JPEG holds no transparency; the picture is laid on white"]
        assert json.loads(said.out)["warnings"] == warned


def test_one_picture_that_is_refused_is_told_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    photo("a.png")
    assert upscale("a.png", "--width", "100000", "--format", "jpeg", "--json") == 2
    said = capsys.readouterr()
    assert [one["picture"] for one in json.loads(said.out)["failed"]] == ["a.png"]
    assert said.err == "finescale: 30 x 20 pixels can be enlarged 16 times, not 3333\n"


def test_ctrl_c_leaves_the_json_of_what_was_made(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for i in range(5):
        photo(f"in/{i}.png", 20 + i)
    compute, write_plainly, begun = Flow._compute, files.write, threading.Event()
    running: list[Flow] = []

    def interrupted(flow: Flow, task: Any, *rest: Any) -> None:
        if task.job.source.name == "3.png":
            running.append(flow)
            assert begun.wait(20)
            raise KeyboardInterrupt
        compute(flow, task, *rest)

    def slow(picture: Picture, path: Path, **options: Any) -> None:
        if path.name[0] == "1":
            begun.set()
            until = time.monotonic() + 20
            while time.monotonic() < until and (
                not running or any(task.job.source.name == "2.png" for task, *_ in list(running[0]._writes))
            ):
                time.sleep(0.01)  # until the next one, which waits meanwhile, is given up
        write_plainly(picture, path, **options)

    monkeypatch.setattr(Flow, "_compute", interrupted)
    monkeypatch.setattr(files, "write", slow)
    assert upscale("in", "-o", "out", "--scale", "2", "--json") == 130
    said = capsys.readouterr()
    assert said.err == "finescale: interrupted\n"
    assert [one["result"] for one in json.loads(said.out)["written"]] == ["out/0_x2.png", "out/1_x2.png"]
    assert finished("out") == ["0_x2.png", "1_x2.png"]


def test_a_folder_may_have_any_name() -> None:
    photo("a.png")
    assert upscale("a.png", "--scale", "2", "-o", "v1.5/") == 0
    assert upscale("a.png", "--scale", "3/2", "-o", "v1.5") == 0
    assert listing() == ["a.png", "v1.5/a_x1.5.png", "v1.5/a_x2.png"]


def test_patterns() -> None:
    for name in ("a.png", "b.png", "c.jpg"):
        photo(name)
    assert upscale("*.png", "-o", "out", "--scale", "2") == 0
    assert [name for name in listing() if name.startswith("out")] == ["out/a_x2.png", "out/b_x2.png"]


def test_a_pattern_of_folders_names_them(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("one/a.png", "one/deep/b.png", "other/c.png"):
        photo(name)
    Path("other/d.jxl").write_bytes(b"x")
    bicubic = ("--network", "bicubic", "--scale", "2")
    assert upscale("o*", "-o", "one/out", *bicubic) == 0
    assert finished("one/out") == ["a_x2.png", "c_x2.png", "deep"]
    assert "1 .jxl left out" in capsys.readouterr().err
    assert upscale("o*", "-o", "one/out", *bicubic) == 0  # what lies in the output is no picture to enlarge
    assert "3 of 3 skipped" in capsys.readouterr().err
    Path("other/c.png").unlink()
    assert upscale("oth*", *bicubic) == 2
    assert "oth*: there are no pictures in this folder of a kind that is read (but 1 .jxl)" in capsys.readouterr().err


def test_a_name_that_is_too_long_is_that_of_the_result(capsys: pytest.CaptureFixture[str]) -> None:
    name = "n" * 250
    photo(f"in/{name}.png")
    photo("in/a.png")
    assert upscale("in", "--scale", "2", "--network", "bicubic") == 1
    assert f"  in/{name}_x2.png: cannot be written (file name too long)\n" in capsys.readouterr().err


def test_hidden_files_only_by_their_name(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("in/.b.png", "in/a.png", "in/.hidden/deep/c.png"):
        photo(name)
    Path("in/.hidden/d.jxl").write_bytes(b"x")
    assert upscale("in", "in/*", "in/a.png", "-o", "out", "--scale", "2") == 0
    assert [name for name in listing() if name.startswith("out")] == ["out/a_x2.png"]
    assert "left out" not in capsys.readouterr().err
    assert upscale("in/.hidden", "-o", "hidden", "--scale", "2", "--network", "bicubic") == 0  # named, so meant
    assert finished("hidden/deep") == ["c_x2.png"]
    assert upscale("in/.b.png", "-o", "b.png", "--scale", "2") == 0
    assert Path("b.png").exists()


def test_a_bad_file_does_not_stop_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    photo("in/a.png")
    photo("in/z.png")
    Path("in/text.png").write_text("I am no picture")
    whole = photo("in/long.png", 60, 60).read_bytes()
    Path("in/truncated.png").write_bytes(whole[: len(whole) // 2])
    Path("in/empty.jpg").write_bytes(b"")
    assert upscale("in", "-o", "out", "--scale", "2") == 1
    text = capsys.readouterr().err
    assert "3 of 6 pictures failed" in text
    for name in ("text.png", "truncated.png", "empty.jpg"):
        assert sum(f"in/{name}:" in line for line in text.splitlines()) == 1
    assert "Traceback" not in text
    assert finished("out") == ["a_x2.png", "long_x2.png", "z_x2.png"]


_NO_PICTURE = "a picture's name ends in one of .png, .jpg, "
_NO_QUALITY = "there is no quality to choose, its format keeps everything (jpeg, webp and avif have one)"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.png"], "nowhere.png: there is no such file, folder or pattern"),
        (["a.png", "--scale", "0"], "scale must be above 0, not 0"),
        (["a.png", "--scale", "99"], "scale must be above 0 and at most 16, not 99"),
        (["a.png", "--fit", "12"], "a size is WIDTHxHEIGHT, such as 1920x1080, not '12'"),
        (["a.png", "--network", "sa-rcan-ligth"], "did you mean 'sa-rcan-light'?"),
        (["a.png", "--network", ""], "'' is neither a network nor a weight file"),
        (["a.png", "--device", "quantum"], "there is no device 'quantum' here, only cpu"),
        (["a.png", "-o", "b.xyz", "--format", "xyz"], f"b.xyz: {_NO_PICTURE}"),
        (["a.png", "b.png", "-o", "one.png"], "one.png: one file cannot take several pictures"),
        (["a.png", "--quality", "101", "--format", "jpg"], "quality must be a whole number between 1 and 100, not 101"),
        (["a.png", "--tile", "0"], "tiles have at least 1 pixel a side, not 0"),
        (["a.png", "b.png", "--tile", "0"], "tiles have at least 1 pixel a side, not 0"),
        (["a.png", "b.png", "--device", "quantum"], "there is no device 'quantum' here, only cpu"),
        (["a.png", "b.png", "--quality", "101", "--format", "jpg"], "between 1 and 100, not 101"),
        (["a.png", "--width", "1" * 400], "the result can be at most 1,000,000,000 pixels wide and high"),
        (["a.png", "--width", "3000px"], "width must be a whole number of pixels, such as 1920, not '3000px'"),
        (["a.png", "--height", "0"], "the result must be at least 1 pixel wide and high"),
        (["a.png", "-o", ""], "the name of the output is empty"),
        (["a.png", "-o", "/dev/null"], "/dev/null: is no folder, and its name has no extension of a picture"),
        (["a.png", "a.png", "-o", "-"], "standard input and output take one picture"),
        (["*.png", "-o", "-"], "standard input and output take one picture"),
        (["a.png", "-o", "-", "--suffix", "_large"], "standard output has no name that --suffix could end"),
        (["a.png", "-o", "-", "--json"], "the picture goes to standard output, where --json would go as well"),
        (["a.png", "-o", "b.gif"], f"b.gif: {_NO_PICTURE}"),
        (["a.png", "-o", ".png"], ".png: is an extension without a name before it"),
        (["a.png", "b.png", "-o", "out/.JPG"], "out/.JPG: is an extension without a name before it"),
        (["a.png", "-o", "b.xyz"], f"b.xyz: {_NO_PICTURE}"),
        (["a.png", "b.png", "-o", "b.gif"], f"b.gif: {_NO_PICTURE}"),
        (["a.png", "-o", "c.png", "--format", "jpeg"], "c.png: its name says png, and --format jpeg"),
        (["a.png", "-o", "c.png", "--quality", "80"], f"c.png: {_NO_QUALITY}"),
        (["a.png", "--quality", "80"], f"a_x4.png: {_NO_QUALITY}"),
        (["a.png", "--scale", "2,5"], "scale must be a number such as 3, 0.25 or 1/4, not '2,5'"),
        (["a.png", "--scale", "1e999999999"], "scale must be a number such as 3, 0.25 or 1/4, not '1e999999999'"),
        ([""], "an empty name: there is no such file, folder or pattern"),
        (["-", "a.png"], "standard input and output take one picture"),
        (["-", "-o", "large"], "large: a picture by standard input has no name; name a file for its result"),
    ],
)
def test_impossible_requests(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    photo("a.png")
    photo("b.png")
    assert upscale(*arguments) == 2
    text = capsys.readouterr().err
    assert text.startswith("finescale: ")
    assert said in text
    assert text.count("\n") == 1
    assert listing() == ["a.png", "b.png"]


def test_a_folder_in_the_place_of_a_result_is_no_result(capsys: pytest.CaptureFixture[str]) -> None:
    photo("in/a.png")
    Path("in/a_x2.png").mkdir()
    assert upscale("in", "--scale", "2", "--network", "bicubic") == 1
    assert "in/a_x2.png: is a folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "settings"), [(["--ensemble"], {"ensemble": True}), (["--window", "8"], {"window": 8})], ids=str
)
def test_settings_as_they_are_typed(options: list[str], settings: dict[str, Any], tiny_weights: Path) -> None:
    photo("a.png")
    assert upscale("a.png", "--scale", "2", "-o", "plain.png") == 0
    assert upscale("a.png", "--scale", "2", *options, "-o", "typed.png") == 0
    finescale.upscale("a.png", 2, engine="torch", **settings).save("called.png")
    finescale.upscale_file("a.png", "file.png", 2, engine="torch", **settings)
    network = load(tiny_weights / f"{DEFAULT}-x2.safetensors")
    wanted = Upscaler(network, engine="torch", **settings).pixels(read("a.png").pixels)
    for name in ("typed", "called", "file"):
        made = read(f"{name}.png").pixels.astype(int)
        assert np.abs(made - wanted).max() <= 1
        assert np.abs(made - read("plain.png").pixels).max() > 1


def test_without_weights(capsys: pytest.CaptureFixture[str]) -> None:
    photo("a.png")
    assert upscale("a.png", "--network", "rcan", "--scale", "2") == 1
    assert "no trained weights for rcan on this machine" in capsys.readouterr().err  # x4 was not asked for


@pytest.mark.parametrize("by", ["name", "file"])
def test_a_changed_weight_file_is_refused(
    monkeypatch: pytest.MonkeyPatch, tiny_weights: Path, capsys: pytest.CaptureFixture[str], by: str
) -> None:
    photo("a.png")
    file = Path(shutil.copytree(tiny_weights, "weights")) / f"{DEFAULT}-x2.safetensors"
    file.with_name("index.json").write_text(json.dumps({file.name: {"sha256": "0" * 64}}))
    monkeypatch.setenv("FINESCALE_WEIGHTS", "weights")
    assert upscale("a.png", "--scale", "2", *(["--network", str(file)] if by == "file" else [])) == 1
    said = capsys.readouterr().err
    assert f"{file}: its SHA-256 is not the one listed" in said
    assert said.count("\n") == 1
    assert not Path("a_x2.png").exists()


def awkward() -> dict[str, bytes]:
    """Pictures of awkward kinds, as files."""
    rgb = picture(21, 34)
    palette = Image.fromarray(rgb).quantize(16)
    cmyk = Image.fromarray(rgb).convert("CMYK")
    turned, exif = Image.fromarray(rgb), Image.Exif()
    exif[0x0112] = 6
    files: dict[str, bytes] = {}
    for name, image, options in (
        ("palette.png", palette, {"transparency": 3}),
        ("cmyk.jpg", cmyk, {}),
        ("rotated.jpg", turned, {"exif": exif}),
        ("one.png", Image.fromarray(rgb[:1, :1]), {}),
        ("line.png", Image.fromarray(picture(3, 700)), {}),
        ("bits.png", Image.fromarray(rgb[..., 0] > 128), {}),
    ):
        buffer = io.BytesIO()
        image.save(buffer, format={"png": "PNG", "jpg": "JPEG"}[name[-3:]], **options)
        files[name] = buffer.getvalue()
    return files


@pytest.mark.parametrize(
    ("name", "size", "alpha"),
    [
        ("palette.png", (68, 42), True),
        ("cmyk.jpg", (68, 42), False),
        ("rotated.jpg", (42, 68), False),
        ("one.png", (2, 2), False),
        ("line.png", (1400, 6), False),
        ("bits.png", (68, 42), False),
    ],
)
def test_awkward_kinds(name: str, size: tuple[int, int], alpha: bool) -> None:
    Path(name).write_bytes(awkward()[name])
    assert upscale(name, "--scale", "2", "-o", "out.png") == 0
    small, large = read(name), read("out.png")
    assert large.size == size
    assert (large.alpha is not None) is alpha
    assert large.pixels.shape[2] == small.pixels.shape[2]
    if alpha:
        assert large.alpha is not None
        assert large.alpha.max() == 255  # exactly, where all neighbours are opaque
        assert large.alpha.min() < 64


def test_sixteen_bit_grey_with_alpha() -> None:
    grey = picture(20, 25, np.uint16)
    write(Picture(grey[..., :1], grey[..., 1]), "deep.png")
    assert upscale("deep.png", "--scale", "2") == 0
    large = read("deep_x2.png")
    assert large.bits == 16
    assert large.pixels.shape == (40, 50, 1)
    assert large.alpha is not None


def test_profile_and_exif_are_kept() -> None:
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x010F] = "Finescale"
    Image.fromarray(picture(20, 30)).save("a.jpg", icc_profile=profile, exif=exif)
    assert upscale("a.jpg", "--scale", "2") == 0
    with Image.open("a_x2.png") as image:
        assert image.info["icc_profile"] == profile
        assert image.getexif()[0x010F] == "Finescale"
    assert upscale("a.jpg", "--scale", "2", "--strip", "--overwrite") == 0
    with Image.open("a_x2.png") as image:
        assert image.info["icc_profile"] == profile
        assert not image.getexif()


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_without_permission(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with tempfile.TemporaryDirectory() as folder, chdir(folder):  # pytest's own are closed to others
        monkeypatch.setenv("FINESCALE_WEIGHTS", folder)
        monkeypatch.setenv("XDG_CACHE_HOME", folder)
        for name in ("in/a.png", "in/closed/b.png", "in/secret.png"):
            photo(name)
        for name, mode in ((".", 0o755), ("in/closed", 0), ("in/secret.png", 0), ("out", 0o777), ("fixed", 0o555)):
            path = Path(name)
            if not path.exists():
                path.mkdir()
            path.chmod(mode)
        bicubic = ("--network", "bicubic", "--scale", "2")
        with bound_by_permissions():
            assert upscale("in", "-o", "out", *bicubic) == 1
            lines = capsys.readouterr().err.splitlines()
            assert lines == [
                "finescale: 2 of 3 pictures failed:",
                "  in/closed: permission denied",
                "  in/secret.png: permission denied",
            ]
            assert upscale("in/a.png", "-o", "fixed/new/a.png", *bicubic) == 1
            assert capsys.readouterr().err == "finescale: fixed/new/a.png: cannot be written (permission denied)\n"
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Flow, "_compute", None)  # it is told before the work
                assert upscale("in/a.png", "-o", "fixed/a.png", *bicubic) == 1
            assert capsys.readouterr().err.startswith("finescale: in/a.png: fixed: no file can be written there (perm")
            assert upscale("in/closed", *bicubic) == 1
            assert capsys.readouterr().err == "finescale: in/closed: cannot be listed (permission denied)\n"
            assert upscale("in/closed/b.png", *bicubic) == 1
            assert capsys.readouterr().err == "finescale: in/closed/b.png: permission denied\n"
        Path("in/closed").chmod(0o700)
        assert [name for name in listing() if name[:2] != "in"] == ["out/a_x2.png"]


@pytest.mark.skipif(os.name != "posix", reason="links")
def test_one_picture_by_two_names_is_one() -> None:
    photo("in/a.png")
    Path("in/b.png").symlink_to("a.png")
    Path("linked").symlink_to("in")
    names = ["in/a.png", "in/../in/a.png", str(Path("in/a.png").absolute()), "linked/a.png", "linked", "in/b.png"]
    assert upscale(*names, "-o", "out", "--scale", "2") == 0
    assert finished("out") == ["a_x2.png", "b_x2.png"]


def test_an_output_folder_inside_the_input() -> None:
    photo("in/a.png")
    photo("in/deep/b.png")
    for scale in ("2", "3", "2"):
        assert upscale("in", "-o", "in/out", "--network", "bicubic", "--scale", scale) == 0
    assert finished("in/out") == ["a_x2.png", "a_x3.png", "deep"]
    assert finished("in/out/deep") == ["b_x2.png", "b_x3.png"]
    assert upscale("in/out", "-o", "in/out", "--network", "bicubic", "--width", "100") == 0  # named, so meant
    assert len(finished("in/out")) == 5


def test_nothing_but_results_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    photo("in/out/a.png")
    assert upscale("in", "-o", "in/out") == 2
    assert "there are no pictures but in in/out, where the results go" in capsys.readouterr().err


def test_pictures_that_differ_in_their_extension() -> None:
    for name in ("in/a.png", "in/a.bmp", "in/b.png"):
        photo(name)
    assert upscale("in", "-o", "out", "--scale", "2") == 0
    assert finished("out") == ["a.bmp_x2.png", "a.png_x2.png", "b_x2.png"]
    for name in ("three/a.jpg", "three/a.png", "three/a.jpg.png"):
        photo(name)
    made = ["a.jpg.png_x2.png", "a.jpg_x2.png", "a.png_x2.png"]
    for _ in range(2):
        assert upscale("three", "--scale", "2") == 0
        assert [name for name in finished("three") if "_" in name] == made
    photo("other/a.png")
    assert upscale("*/a.png", "-o", "out", "--scale", "2") == 2


@pytest.mark.skipif(os.name != "posix", reason="links and pipes")
def test_links_to_folders_elsewhere_are_told(caplog: pytest.LogCaptureFixture) -> None:
    for name in ("in/a.png", "in/deep/b.png", "there/c.png"):
        photo(name)
    Path("in/here").symlink_to("deep")  # comes by anyway
    Path("in/deep/away").symlink_to("../../there")
    bicubic = ("--network", "bicubic", "--scale", "2")
    assert upscale("in", "-o", "out", *bicubic) == 0
    assert caplog.messages == ["in/deep/away left out: a link to another place; name it to include what lies there"]
    Path("in/up").symlink_to("..")
    assert upscale("in", "-o", "out", *bicubic) == 0
    assert caplog.messages[1:] == [
        "in/deep/away and 1 more left out: links to other places; name them to include what lies there"
    ]
    assert listing() == ["in/a.png", "in/deep/b.png", "out/a_x2.png", "out/deep/b_x2.png", "there/c.png"]


@pytest.mark.skipif(os.name != "posix", reason="links and pipes")
def test_links_and_pipes(capsys: pytest.CaptureFixture[str]) -> None:
    photo("in/a.png")
    for name, target in (("circle", "."), ("b.png", "c.png"), ("c.png", "b.png"), ("d.png", "gone.png")):
        Path("in", name).symlink_to(target)
    os.mkfifo("in/pipe.png")
    assert upscale("in", "-o", "out", "--scale", "2") == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "finescale: 3 of 4 pictures failed:"
    assert [line.split()[0] for line in lines[1:]] == ["in/b.png:", "in/c.png:", "in/d.png:"]
    assert finished("out") == ["a_x2.png"]
    assert upscale("in/pipe.png") == 2
    assert capsys.readouterr().err == "finescale: in/pipe.png: is neither a file nor a folder\n"


@pytest.mark.parametrize("name", ["-a.png", "a\nb.png", "ä 🦊.png", "[b].png", "[bold]a.png", "A.PNG", "a"])
def test_odd_names(name: str) -> None:
    Path(name).write_bytes(photo("photo.png").read_bytes())
    Path("photo.png").unlink()
    assert upscale("--scale", "2", "--", name) == 0
    assert read(f"{Path(name).stem}_x2.png").size == (60, 40)


@pytest.mark.skipif(os.name != "posix", reason="any bytes in names")
def test_names_that_standard_output_cannot_show(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.TextIOWrapper(io.BytesIO(), "latin-1", errors="strict")
    monkeypatch.setattr(sys, "stdout", out)
    photo("ü☃\udcff.png")
    assert upscale("ü☃\udcff.png", "--scale", "2", "--network", "bicubic") == 0
    out.seek(0)
    assert out.read() == "ü\\u2603\\udcff_x2.png: 60 x 40 pixels\n"


def test_without_standard_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    photo("in/a.png")
    Path("in/b.png").write_bytes(b"x")
    with monkeypatch.context() as closed:
        closed.setattr(sys, "stderr", None)
        assert upscale("in", "--scale", "2", "--network", "bicubic") == 1
    assert capsys.readouterr().out == "in/a_x2.png: 60 x 40 pixels\n"


def test_a_damaged_large_picture_leaves_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    whole = photo("whole.png", 60, 60).read_bytes()
    Path("bomb.png").write_bytes(whole[:16] + struct.pack(">II", 90_000, 90_000) + whole[24:])
    assert upscale("bomb.png", "--scale", "2") == 1
    assert capsys.readouterr().err.startswith("finescale: bomb.png: damaged or cut off")
    assert listing() == ["bomb.png", "whole.png"]


def test_says_what_it_made_and_where(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.png", "in/b.png", "in/deep/c.png", "in/deep/d.png"):
        photo(name)

    def made(*names: str, size: str = "60 x 40") -> str:
        return "".join(f"{name}: {size} pixels\n" for name in names)

    assert upscale("a.png", "--scale", "2") == 0
    assert capfd.readouterr() == (made("a_x2.png"), "")  # and no bar where there is no terminal
    assert upscale("in", "--scale", "2") == 0
    results = "in/b_x2.png", "in/deep/c_x2.png", "in/deep/d_x2.png"
    assert capfd.readouterr() == (made(*results) + "3 pictures written to in\n", "")
    assert upscale("in/b.png", "a.png", "--scale", "3", "-o", "out") == 0
    assert capfd.readouterr() == (
        made("out/b_x3.png", "out/a_x3.png", size="90 x 60") + "2 pictures written to out\n",
        "",
    )
    assert upscale("in/b.png", str(Path("a.png").absolute()), "--scale", "4") == 0  # these have no folder in common
    assert capfd.readouterr().out.endswith("2 pictures written to 2 folders\n")
    assert upscale("a.png", "--scale", "3", "--quiet") == 0
    assert capfd.readouterr() == ("", "")
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert upscale("in", "--scale", "5") == 0
    assert capfd.readouterr().out == "3 pictures written to in\n"  # the bar has told the rest


def test_results_are_said_as_soon_as_they_are_there() -> None:
    for i in range(3):
        photo(f"in/{i}.png")
    command = [sys.executable, "-m", "finescale", "upscale", "in", "--engine", "torch", "--scale", "2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout
    assert process.stdout.readline() == b"in/0_x2.png: 60 x 40 pixels\n"
    process.stdout.close()  # who reads it has seen enough; the work goes on
    process.wait()
    assert finished("in") == ["0.png", "0_x2.png", "1.png", "1_x2.png", "2.png", "2_x2.png"]


def test_from_standard_input_to_standard_output(
    monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    photo("a.jpg")
    given = Path("a.jpg").read_bytes()

    def piped(*options: str, given: bytes = given) -> tuple[int, bytes, bytes]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
        code = upscale(*options)
        return code, *capsysbinary.readouterr()

    assert piped("a.jpg", "--scale", "2", "--quiet") == (0, b"", b"")
    wanted = Path("a_x2.png").read_bytes()
    command = [sys.executable, "-m", "finescale", "upscale", "--engine", "torch", "-", "--scale", "2"]
    done = subprocess.run(command, input=given, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, wanted, b"")
    assert piped("a.jpg", "--scale", "2", "-o", "-") == (0, wanted, b"")
    assert piped("-", "--scale", "2", "-o", "b.png") == (0, b"b.png: 60 x 40 pixels\n", b"")
    assert Path("b.png").read_bytes() == wanted
    assert Image.open(io.BytesIO(piped("-", "--scale", "2", "--format", "same")[1])).format == "JPEG"
    told = json.loads(piped("-", "--scale", "2", "-o", "b.png", "--overwrite", "--json")[1])
    assert [one["picture"] for one in told["written"]] == ["standard input.jpeg"]
    told = json.loads(piped("-", "--scale", "2", "-o", "b.png", "--skip-existing", "--json")[1])
    assert told["skipped"] == [{"picture": "standard input.jpeg", "result": "b.png"}]
    assert b"standard output.png: there is no quality" in piped("a.jpg", "-o", "-", "--quality", "9")[2]
    refused = b"finescale: standard input: not a picture in a format that is read here\n"
    assert piped("-", given=b"no picture") == (1, b"", refused)
    assert listing() == ["a.jpg", "a_x2.png", "b.png"]


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_interrupted_cleanly(name: str) -> None:
    number = getattr(signal, name)
    for i in range(40):  # of many sizes, so that no group of them is done at once
        photo(f"in/{i:02}.png", 240, 200 + i)
    command = [sys.executable, "-m", "finescale", "upscale", "in", "-o", "out", "--engine", "torch"]
    with hearing_signals():
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not finished("out") and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + number
    assert error == ("finescale: interrupted\n" if number == signal.SIGINT else "")
    done = finished("out")
    assert [path.name for path in Path("out").iterdir() if path.name not in done] == []
    assert 0 < len(done) < 40
    assert all(read(Path("out", name)).size == (4 * (200 + int(name.removesuffix("_x4.png"))), 960) for name in done)


@pytest.mark.slow
def test_the_fast_path_imports_no_torch() -> None:
    pytest.importorskip("openvino")
    photo("a.png")
    file = shutil.copy(Path(os.environ["FINESCALE_WEIGHTS"]) / f"{DEFAULT}-x4.safetensors", "mine.safetensors")
    upscaling = ["upscale", "a.png", "--device", "cpu"]
    for words in (
        upscaling,
        [*upscaling, "--network", file],
        [*upscaling, "--width", "100"],  # not the network's own size
        ["resize", "a.png", "b.png", "--scale", "1/2"],
    ):
        arguments = [*words, "--overwrite"]
        assert main(arguments) == 0
        code = (
            f"import sys; from finescale.cli.main import main; code = main({arguments}); "
            "sys.exit(code or 'torch' in sys.modules)"
        )
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
