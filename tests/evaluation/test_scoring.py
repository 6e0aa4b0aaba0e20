import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from finescale.errors import FinescaleError, UsageError
from finescale.evaluation.metrics import psnr_y
from finescale.evaluation.scoring import Pair, Score, as_json, match, means, score_pair, write_json
from finescale.images.files import read


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir()
    for name in names:
        (folder / name).touch()
    return folder


def paired(high: Path, enlarged: Path, scale: int = 4) -> dict[str, str]:
    return {pair.high.name: pair.enlarged.name for pair in match(high, enlarged, scale)}


def draw(path: Path, width: int, height: int, mode: str = "RGB", seed: int = 0) -> Path:
    generator = np.random.default_rng(seed)
    shape = (height, width, 3) if mode == "RGB" else (height, width)
    Image.fromarray(generator.integers(0, 256, shape).astype(np.uint8)).save(path)
    return path


@pytest.mark.parametrize(
    "name",
    ["baby.png", "Baby.JPG", "baby_x4.png", "babyx4.png", "baby_SR.png", "babyx4_rlt.png", "baby_BI_x4.png"]
    + ["baby_x4_SR.png", "baby_RCAN_x4.png", "baby-4x.png", "baby_BIX4.png", "baby_SRF_4_SR.png", "baby.out.webp"],
)
def test_one_name_of_many_habits(tmp_path: Path, name: str) -> None:
    high = touch(tmp_path / "hr", "baby.png", "bird.png")
    enlarged = touch(tmp_path / "sr", name, "bird.png")
    assert paired(high, enlarged) == {"baby.png": name, "bird.png": "bird.png"}


def test_originals_have_endings_too(tmp_path: Path) -> None:
    high = touch(tmp_path / "hr", "img_001_SRF_4_HR.png", "img_002_SRF_4_HR.png", "comic_GT.bmp")
    enlarged = touch(tmp_path / "sr", "img_001_SRF_4_SR.png", "img_002x4.png", "comic_rlt.png")
    assert list(paired(high, enlarged).values()) == ["comic_rlt.png", "img_001_SRF_4_SR.png", "img_002x4.png"]


def test_the_longest_name_wins(tmp_path: Path) -> None:
    high = touch(tmp_path / "hr", "a.png", "a_b.png", "a_b_c.png", "img_1.png", "img_10.png")
    enlarged = touch(tmp_path / "sr", "a_x4.png", "a_b_x4.png", "a_b_c_net.png", "img_1_net.png", "img_10_net.png")
    for folder, ending in ((high, ""), (enlarged, "_x4")):  # names that end as if they told a scale
        for name in ("fo", "fox1", "fox2"):
            (folder / f"{name}{ending}.png").touch()
    assert paired(high, enlarged) == {
        "a.png": "a_x4.png",
        "a_b.png": "a_b_x4.png",
        "a_b_c.png": "a_b_c_net.png",
        "fo.png": "fo_x4.png",
        "fox1.png": "fox1_x4.png",
        "fox2.png": "fox2_x4.png",
        "img_1.png": "img_1_net.png",
        "img_10.png": "img_10_net.png",
    }


def test_of_several_the_one_of_the_scale_counts(tmp_path: Path) -> None:
    high = touch(tmp_path / "hr", "a.png")
    enlarged = touch(tmp_path / "sr", "a_x2.png", "a_x3.png", "a_x4.png")
    assert paired(high, enlarged, 3) == {"a.png": "a_x3.png"}


def test_what_has_no_partner_is_listed(tmp_path: Path) -> None:
    high = touch(tmp_path / "hr", "a.png", "b.png", "c.png")
    enlarged = touch(tmp_path / "sr", "a_x4.png", "d.png", "c_one.png", "c_two.png", "notes.txt", ".hidden.png")
    with pytest.raises(FinescaleError) as caught:
        match(high, enlarged, 4)
    text = str(caught.value)
    assert f"without a partner in {enlarged}: b.png" in text
    assert f"without a partner in {high}: d.png" in text
    assert "with several partners: c.png (c_one.png, c_two.png)" in text
    assert "a.png" not in text
    assert "\n" not in text


def test_folders_and_files(tmp_path: Path) -> None:
    high = touch(tmp_path / "hr", "a.png")
    empty = touch(tmp_path / "sr", "readme.txt")
    other = touch(tmp_path / "x", "whatever.png") / "whatever.png"
    assert match(high / "a.png", other, 4) == [Pair("a", high / "a.png", other)]
    with pytest.raises(FinescaleError, match="holds no pictures"):
        match(high, empty, 4)
    with pytest.raises(UsageError, match="two folders or two files"):
        match(high, other, 4)
    with pytest.raises(FinescaleError, match="there is no such file or folder"):
        match(high, tmp_path / "nowhere", 4)


@pytest.mark.parametrize("size", [(50, 43), (48, 40), (48, 36)])
def test_originals_are_cropped_to_the_enlarged(tmp_path: Path, size: tuple[int, int]) -> None:
    """The whole size, a multiple of the scale, a multiple of 12."""
    high = draw(tmp_path / "a.png", 50, 43)
    enlarged = tmp_path / "b.png"
    with Image.open(high) as image:
        image.crop((0, 0, *size)).save(enlarged)
    score = score_pair(Pair("a", high, enlarged), 4)
    assert score.psnr == math.inf
    assert score.ssim == pytest.approx(1, abs=1e-12)


def test_the_border_does_not_count(tmp_path: Path) -> None:
    pair = Pair("a", draw(tmp_path / "a.png", 40, 36), draw(tmp_path / "b.png", 40, 36, seed=1))
    high, enlarged = (read(path).pixels for path in (pair.high, pair.enlarged))
    score = score_pair(pair, 4)
    assert score.psnr == pytest.approx(psnr_y(enlarged, high, 4))
    assert score.psnr != pytest.approx(psnr_y(enlarged, high, 0))


def test_wrong_sizes_are_told(tmp_path: Path) -> None:
    pair = Pair("a", draw(tmp_path / "a.png", 50, 43), draw(tmp_path / "b.png", 25, 21))
    with pytest.raises(FinescaleError, match=r"b\.png: it is 25 x 21, the original .*a\.png is 50 x 43; .* 48 x 40$"):
        score_pair(pair, 4)


def test_grey_equals_its_rgb(tmp_path: Path) -> None:
    grey = draw(tmp_path / "a.png", 40, 40, "L")
    with Image.open(grey) as image:
        image.convert("RGB").save(tmp_path / "b.png")
    assert score_pair(Pair("a", grey, tmp_path / "b.png"), 2).psnr == math.inf


def test_unreadable_pictures_are_named(tmp_path: Path) -> None:
    bad = tmp_path / "b.png"
    bad.write_text("no picture")
    with pytest.raises(FinescaleError, match=r"b\.png"):
        score_pair(Pair("a", draw(tmp_path / "a.png", 40, 40), bad), 2)


def test_means_and_json() -> None:
    scores = [Score("a", 30, 0.9, picture_seconds=1), Score("b", 32, 0.8, lpips=0.5, picture_seconds=3)]
    assert means(scores) == pytest.approx({"psnr": 31, "ssim": 0.85, "picture_seconds": 2})
    perfect = as_json([*scores, Score("c", math.inf, 1)])
    assert json.loads(json.dumps(perfect, allow_nan=False))["psnr"] == "Infinity"
    assert perfect["pictures"][0] == {"name": "a", "psnr": 30, "ssim": 0.9, "picture_seconds": 1}


def test_names_that_are_no_unicode_are_written(tmp_path: Path) -> None:
    write_json(tmp_path / "s.json", {"name": "caf\udce9.png"})
    assert json.loads((tmp_path / "s.json").read_text("utf-8")) == {"name": "caf\udce9.png"}
