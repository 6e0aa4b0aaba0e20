"""Bicubic enlargement inside networks against the exact resize of pictures."""

import pytest
import torch

from finescale.images.resize import resize
from finescale.layers.resampling import BicubicEnlargement


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (3, 2), (17, 23)])
def test_equals_the_resize_of_pictures(scale: int, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    x = torch.rand(2, 3, *size, dtype=torch.float64)
    torch.testing.assert_close(BicubicEnlargement(scale)(x), resize(x, scale=scale), atol=1e-6, rtol=0)
    assert BicubicEnlargement(scale)(x.bfloat16()).dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):  # a picture is not rounded to 8 bits of mantissa
        torch.testing.assert_close(BicubicEnlargement(scale)(x), resize(x, scale=scale), atol=1e-6, rtol=0)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_plane_stays_a_plane(scale: int) -> None:
    rows, columns = torch.meshgrid(torch.arange(12.0), torch.arange(12.0), indexing="ij")
    y = BicubicEnlargement(scale)((rows + 2 * columns)[None, None])[
        0, 0, 3 * scale : -3 * scale, 3 * scale : -3 * scale
    ]
    steps = torch.diff(y, dim=0), torch.diff(y, dim=1)
    torch.testing.assert_close(steps[0], torch.full_like(steps[0], 1 / scale), atol=1e-4, rtol=0)
    torch.testing.assert_close(steps[1], torch.full_like(steps[1], 2 / scale), atol=1e-4, rtol=0)
