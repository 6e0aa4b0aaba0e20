"""What training is told of a network on pictures it does not see."""

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from finescale.data import store
from finescale.data.degradations import Degradation
from finescale.errors import FinescaleError
from finescale.evaluation.arrays import downscale, to_pixels
from finescale.evaluation.metrics import psnr_y, ssim_y
from finescale.evaluation.sets import find, read_rgb
from finescale.evaluation.validation import Validation
from finescale.images.folders import find_pictures
from finescale.images.picture import mod_crop
from finescale.networks.catalogue import build

CPU = torch.device("cpu")


def test_figures_are_the_means_over_the_pictures(pictures: Path, tmp_path: Path) -> None:
    """Also where pictures of one size go through the network together."""
    for path in sorted(pictures.iterdir()):
        shutil.copy(path, tmp_path)
    with Image.open(pictures / "1.png") as image:
        image.rotate(180).save(tmp_path / "4.png")
    pictures = tmp_path
    network = build("bicubic", scale=4).eval()
    wanted = []
    for path in find(str(pictures)).pictures:
        high = mod_crop(read_rgb(path), 4)
        made = network(downscale(high, 4)[None] / 255)[0].clamp(0, 1).mul(255).add(0.5).to(torch.uint8)
        wanted.append((psnr_y(to_pixels(made), high, 4), ssim_y(to_pixels(made), high, 4)))
    validation = Validation(str(pictures), 4, CPU)
    psnr, ssim, samples = validation(network, True)
    assert (psnr, ssim) == pytest.approx([sum(column) / len(wanted) for column in zip(*wanted)], abs=1e-4)
    assert len(samples) == 3
    quick = validation(network)
    assert quick[0] == psnr
    assert math.isnan(quick[1]), "it was not asked for"


def test_of_large_pictures_the_middle_counts_and_few_at_a_time(tmp_path: Path) -> None:
    y, x = np.mgrid[:1000, :900]
    whole = np.stack([x % 251, y % 241, (x + y) % 239], -1).astype(np.uint8)
    for name in "abc":
        Image.fromarray(whole).save(tmp_path / f"{name}.png")
    validation = Validation(str(tmp_path), 2, CPU)
    assert np.array_equal(validation.high[0], whole[116:884, 66:834])
    batches: list[tuple[int, ...]] = []

    class Nearest(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            batches.append(tuple(x.shape))
            return torch.nn.functional.interpolate(x, scale_factor=2)

    validation(Nearest())
    assert batches == [(1, 3, 384, 384)] * 3


def test_fewer_pictures_are_spread_over_the_set(pictures: Path) -> None:
    files = find(str(pictures)).pictures
    some = Validation(str(pictures), 4, CPU, limit=2)
    assert [high.tolist() for high in some.high] == [mod_crop(read_rgb(files[i]), 4).tolist() for i in (0, 2)]


def test_pairs_of_a_store(tmp_path: Path) -> None:
    """Their own small pictures, of large ones the middle, and both halves of it are of the same place."""
    large, small = tmp_path / "large", tmp_path / "small"
    y, x = np.mgrid[:900, :1000]
    for name, shade in zip("abc", (0, 20, 40)):
        high = np.stack([x // 8 % 200 + shade, y // 8 % 200 + shade, (x + y) // 16 % 200 + shade], -1).astype(np.uint8)
        for folder, pixels in ((large, high), (small, high[::2, ::2] + 1)):
            folder.mkdir(exist_ok=True)
            Image.fromarray(pixels).save(folder / f"{name}.png")
    list(store.prepare(find_pictures([large]), tmp_path / "s", (), small={2: small}))
    validation = Validation(str(tmp_path / "s"), 2, CPU, limit=2)
    packed = store.Store(tmp_path / "s")
    assert len(validation.high) == 2
    for i, high, low in zip((0, 1), validation.high, validation.low):
        whole = packed.picture(i).permute(1, 2, 0).numpy()
        top, left = (450 - 384) // 2 * 2, (498 - 384) // 2 * 2  # of 900 x 996
        assert np.array_equal(high, whole[top : top + 768, left : left + 768])
        assert np.array_equal(low.permute(1, 2, 0).numpy(), high[::2, ::2] + 1)
    degraded = Validation(str(tmp_path / "s"), 2, CPU, limit=2, degradation=Degradation(noise=(9, 9)))
    assert not torch.equal(degraded.low[0], validation.low[0])
    assert np.array_equal(degraded.high[0], validation.high[0])
    with pytest.raises(FinescaleError, match="s: has no pictures for x4, only for x2"):
        Validation(str(tmp_path / "s"), 4, CPU)


def test_degraded_by_something_else(pictures: Path) -> None:
    class Flash:
        NUMBERS, BLOCKS = 1, slice(0)

        def __call__(self, low: torch.Tensor, chance: torch.Tensor) -> torch.Tensor:
            assert chance.shape == (1, 1)
            return low + 1 + chance[0].to(low)

    assert all(bool((low == 255).all()) for low in Validation(str(pictures), 4, CPU, degradation=Flash()).low)


def test_degraded_alike_every_time(pictures: Path) -> None:
    network = build("bicubic", scale=4).eval()
    clean = Validation(str(pictures), 4, CPU)(network)[0]
    degradation = Degradation(noise=(2, 2), jpeg=(20, 40))
    torch.manual_seed(7)
    first = Validation(str(pictures), 4, CPU, degradation=degradation)(network)[0]
    after = torch.rand(1)
    assert first == Validation(str(pictures), 4, CPU, degradation=degradation)(network)[0] < clean
    torch.manual_seed(7)
    assert torch.equal(after, torch.rand(1)), "the run's own chance is left alone"


def test_a_picture_without_faults_does_not_hide_the_others(tmp_path: Path) -> None:
    for name, colour in (("a", "white"), ("b", "grey")):
        image = Image.new("RGB", (32, 32), colour)
        if name == "b":
            image.paste("black", (8, 8, 20, 20))
        image.save(tmp_path / f"{name}.png")
    network = build("bicubic", scale=4).eval()
    psnr = Validation(str(tmp_path), 4, CPU)(network)[0]
    (tmp_path / "a.png").unlink()
    assert psnr == pytest.approx((100 + Validation(str(tmp_path), 4, CPU)(network)[0]) / 2)


@pytest.mark.parametrize("side", [3, 8, 11])
def test_pictures_too_small_to_validate_on_are_named_at_the_start(tmp_path: Path, side: int) -> None:
    Image.new("RGB", (40, side)).save(tmp_path / "a.png")
    with pytest.raises(FinescaleError, match=rf"a\.png: a picture of 40 x {side} is too small to validate on at x4"):
        Validation(str(tmp_path), 4, CPU)


def test_pictures_too_small_for_ssim_still_have_a_psnr(tmp_path: Path) -> None:
    Image.linear_gradient("L").resize((16, 16)).save(tmp_path / "a.png")
    psnr, ssim, _ = Validation(str(tmp_path), 4, CPU)(build("bicubic", scale=4).eval(), True)
    assert psnr > 10
    assert math.isnan(ssim)
