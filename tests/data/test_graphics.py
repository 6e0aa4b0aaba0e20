"""Pictures drawn by chance, to train on."""

from pathlib import Path

import numpy as np
import pytest

from finescale.cli.main import main
from finescale.data import graphics, native
from finescale.images.files import read


def test_a_seed_is_a_picture() -> None:
    first = graphics.picture(7, 360)
    assert first.shape == (360, 360, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, graphics.picture(7, 360))
    assert (first != graphics.picture(8, 360)).any()


@pytest.mark.parametrize("drawing", dict.fromkeys(graphics.DRAWINGS))
@pytest.mark.parametrize("size", [(160, 420), (97, 12), (1, 1)], ids=str)
def test_every_drawing_fills_any_box(drawing: graphics.Drawing, size: tuple[int, int]) -> None:
    for seed in range(3):
        pixels = drawing(graphics.Chance(seed), *size)
        assert pixels.shape == (*size, 3)
        assert pixels.dtype == np.uint8


def test_they_are_unlike_photographs() -> None:
    for seed in range(4):
        pixels = graphics.picture(seed, 480).astype(int)
        assert (abs(np.diff(pixels, axis=1)).max(2) == 0).mean() > 0.5  # flat ground
        assert len(np.unique(pixels.reshape(-1, 3)[::7], axis=0)) > 4


def test_draw(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "new" / "drawn"
    command = ["data", "draw", "-o", str(folder), "--count", "2", "--seed", "41", "--side", "60"]
    assert main(command) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["drawn-000041.png", "drawn-000042.png"]
    np.testing.assert_array_equal(read(folder / "drawn-000042.png").rgb, graphics.picture(42, 60))
    before = (folder / "drawn-000041.png").stat().st_mtime_ns
    capsys.readouterr()
    assert main(command) == 1
    exists = "already exists; with overwrite it is replaced"  # right for --overwrite and for overwrite=True
    assert capsys.readouterr().err == f"finescale: {folder}/drawn-000041.png: {exists}\n"
    assert (folder / "drawn-000041.png").stat().st_mtime_ns == before
    assert main([*command, "--overwrite"]) == 0


def test_pairs_are_the_same_things_in_two_sizes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By their means over the small one's pixels; and what is shrunk of the large one is not what a screen shows."""
    command = ["data", "draw", "-o", str(tmp_path / "p"), "--count", "2", "--seed", "5", "--side", "96", "--pairs", "3"]
    assert main(command) == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path}/p: 2 pairs of 96 x 96 and 288 x 288")
    for seed in (5, 6):
        small, large = (read(tmp_path / "p" / size / f"screen-00000{seed}.png").rgb for size in ("small", "large"))
        np.testing.assert_array_equal(small, native.picture(seed, 1, 96))
        np.testing.assert_array_equal(large, native.picture(seed, 3, 96))
        assert (large != native.picture(seed + 10, 3, 96)).any()
        means = large.reshape(96, 3, 96, 3, 3).mean((1, 3))
        assert np.corrcoef(means.ravel(), small.ravel())[0, 1] > 0.8
    store = tmp_path / "store"
    assert main(["data", "prepare", f"{tmp_path}/p/large", "-o", str(store), "--small", f"3={tmp_path}/p/small"]) == 0


@pytest.mark.parametrize("size", [(60, 100), (7, 3), (1, 1)], ids=str)
def test_every_drawing_of_pairs_fills_any_box(size: tuple[int, int]) -> None:
    for drawing in dict.fromkeys(native.NATIVE):
        for seed, zoom in ((0, 1), (1, 2), (2, 4)):
            pixels = drawing(graphics.Chance(seed), *size, zoom)
            assert pixels.shape == (zoom * size[0], zoom * size[1], 3)


def test_sprites_of_pairs_have_square_pixels() -> None:
    (sprites,) = (one for one in native.NATIVE if "sprites" in one.__name__)
    small, large = (sprites(graphics.Chance(3), 40, 50, zoom) for zoom in (1, 4))
    np.testing.assert_array_equal(large, small.repeat(4, 0).repeat(4, 1))
    assert len(np.unique(small.reshape(-1, 3), axis=0)) > 2


@pytest.mark.parametrize("wrong", [["--count", "0"], ["--seed", "-1"], ["--side", "11"]], ids=lambda one: one[0])
def test_what_cannot_be_drawn(wrong: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "draw", "-o", str(tmp_path / "drawn"), *wrong]) == 2
    said = capsys.readouterr().err
    assert wrong[0] in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "drawn").exists()
