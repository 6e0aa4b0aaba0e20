"""What training is told of a network on pictures it does not see."""

import math
from pathlib import Path

import pytest
import torch
from PIL import Image

from finescale.data.degradations import Degradation
from finescale.evaluation.arrays import downscale, to_pixels
from finescale.evaluation.metrics import psnr_y, ssim_y
from finescale.evaluation.sets import find, read_rgb
from finescale.evaluation.validation import Validation
from finescale.images.picture import mod_crop
from finescale.networks.catalogue import build

CPU = torch.device("cpu")


def test_figures_are_the_means_over_the_pictures(pictures: Path) -> None:
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


def test_pictures_too_small_for_ssim_still_have_a_psnr(tmp_path: Path) -> None:
    Image.linear_gradient("L").resize((16, 16)).save(tmp_path / "a.png")
    psnr, ssim, _ = Validation(str(tmp_path), 4, CPU)(build("bicubic", scale=4).eval(), True)
    assert psnr > 10
    assert math.isnan(ssim)
