"""What is done to training crops is what cameras and the web do."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from finescale.data.degradations import Degradation, jpeg

HOPPER = Path(__file__).resolve().parents[2] / "docs" / "images" / "hopper.jpg"


def chance(count: int, seed: int = 0) -> Tensor:
    return torch.rand(Degradation.NUMBERS, count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def photograph(side: int) -> Tensor:
    """(3, side, side) whole grey levels."""
    return torch.tensor(np.asarray(Image.open(HOPPER).convert("RGB").resize((side, side)))).permute(2, 0, 1).float()


def by_pillow(x: Tensor, quality: int, subsampling: str) -> Tensor:
    file = io.BytesIO()
    Image.fromarray(x.byte().permute(1, 2, 0).numpy()).save(file, "JPEG", quality=quality, subsampling=subsampling)
    return torch.tensor(np.asarray(Image.open(file))).permute(2, 0, 1).float()


@pytest.mark.parametrize("quality", [5, 30, 50, 75, 95, 100])
def test_jpeg_is_that_of_libjpeg(quality: int) -> None:
    x = photograph(96)
    both = jpeg(torch.stack((x, x)), torch.tensor([quality, quality]), torch.tensor([True, False]))
    for made, subsampling in zip(both, ("4:2:0", "4:4:4")):
        wanted = by_pillow(x, quality, subsampling)
        # a level here and there; where a frequency is rounded the other way, a whole block differs a little
        assert (made - wanted).abs().mean() < 1
        assert (made - wanted).square().mean() < 0.12 * (wanted - x).square().mean() + 1


def test_every_crop_has_its_own_quality_and_the_blocks_lie_anywhere() -> None:
    x = photograph(48).mean(0).floor().expand(8, 3, -1, -1) / 255  # grey: colour has its own losses
    draw = chance(8)
    made = Degradation(jpeg=(5, 60))(x, draw)
    loss = (made - x).square().mean((1, 2, 3))
    assert loss.argsort(descending=True).tolist() == draw[3].argsort().tolist()  # the lower the worse
    assert torch.equal(made, (made * 255).round() / 255), "whole grey levels"
    places = set()
    for seed in range(20):  # where the steps between blocks are
        low = Degradation(jpeg=(8, 8))(photograph(48)[None] / 255, chance(1, seed))
        steps = low.mean((0, 1)).diff(dim=1).abs().mean(0)
        places.add(int(torch.stack([steps[i::8].mean() for i in range(8)]).argmax()))
    assert len(places) > 3


def test_each_part_does_what_it_says() -> None:
    grey = torch.full((512, 3, 16, 16), 0.5)
    noisy = Degradation(noise=(4, 4))(grey, chance(512))
    assert float(noisy.std() * 255) == pytest.approx(4, abs=0.1)
    grainy = Degradation(noise=(4, 4), grain=(0.8, 0.8), grey=0.25)(grey, chance(512))
    assert float(grainy.std() * 255) == pytest.approx(4, abs=0.1), "at the edges as within"
    assert float(grainy[:, :, :, 0].std() * 255) == pytest.approx(4, abs=0.2)
    pairs = torch.stack((grainy[..., 1:].flatten(), grainy[..., :-1].flatten()))
    assert float(torch.corrcoef(pairs)[0, 1]) == pytest.approx(0.68, abs=0.03), "exp(-1 / (4 sigma^2))"
    same = (grainy[:, 0] == grainy[:, 2]).all(dim=(1, 2))
    assert 0.18 < float(same.float().mean()) < 0.32
    spot = torch.zeros(1, 3, 33, 33)
    spot[..., 16, 16] = 1
    blurred = Degradation(blur=(1.5, 1.5))(spot, chance(1))[0, 0]
    across = (torch.arange(33) - 16).square().float()
    assert float((blurred.sum(0) * across).sum() / blurred.sum()) ** 0.5 == pytest.approx(1.5, abs=0.1), (
        "grey levels cut its tails"
    )
    assert torch.equal(Degradation(blur=(0, 0), noise=(0, 0))(spot, chance(1)), spot)


def test_only_a_share_is_degraded() -> None:
    x = torch.rand(400, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    same = (Degradation(0.75, jpeg=(10, 20))(x, chance(400)) == x).all(dim=(1, 2, 3))
    assert 0.18 < float(same.float().mean()) < 0.32


@pytest.mark.parametrize("size", [(1, 1), (5, 70), (16, 16), (17, 2)])
def test_any_size(size: tuple[int, int]) -> None:
    x = torch.full((2, 3, *size), 100 / 255)
    torch.testing.assert_close(Degradation(blur=(0, 2), jpeg=(90, 90))(x, chance(2)), x, rtol=0, atol=2 / 255)
    assert Degradation(noise=(2, 2), grain=(0, 2))(x, chance(2)).shape == x.shape
