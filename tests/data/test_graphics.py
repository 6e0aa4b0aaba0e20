"""Pictures drawn by chance, to train on."""

from pathlib import Path

import numpy as np
import pytest

from finescale.cli.main import main
from finescale.data import graphics
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


@pytest.mark.parametrize("wrong", [["--count", "0"], ["--seed", "-1"], ["--side", "11"]], ids=lambda one: one[0])
def test_what_cannot_be_drawn(wrong: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "draw", "-o", str(tmp_path / "drawn"), *wrong]) == 2
    said = capsys.readouterr().err
    assert wrong[0] in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "drawn").exists()
