"""Exact bicubic against the published files and against a plain loop."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from finescale.images.files import read
from finescale.images.resize import Border, resize
from finescale.images.scaling import mod_crop, resize_picture

PAIRS = {"Set5": 5, "Set14": 14}


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("name", PAIRS)
def test_published_files_bit_for_bit(shared_data: Path, name: str, scale: int) -> None:
    files = sorted((shared_data / "bench" / "LR" / name / f"x{scale}").iterdir())
    assert len(files) == PAIRS[name]
    for file in files:
        high = read(next((shared_data / "bench" / "HR" / name).glob(f"{file.stem}.*")))
        low = resize_picture(mod_crop(high, scale), scale=1 / scale).pixels
        published = read(file).pixels
        if low.shape[2] < published.shape[2]:
            low = low.repeat(3, 2)
        np.testing.assert_array_equal(low, published, err_msg=str(file))


def by_loops(x: NDArray[np.float64], size: int, border: Border) -> NDArray[np.float64]:
    """One axis (the first), sample by sample, from the definition of the kernel."""
    ratio = size / len(x)
    stretch = min(ratio, 1.0)
    result = np.zeros((size, *x.shape[1:]))
    for i in range(size):
        centre = (i + 0.5) / ratio - 0.5
        total = 0.0
        for j in range(math.floor(centre - 2 / stretch) - 1, math.ceil(centre + 2 / stretch) + 2):
            t = abs(centre - j) * stretch
            weight = (1.5 * t - 2.5) * t * t + 1 if t <= 1 else ((2.5 - 0.5 * t) * t - 4) * t + 2 if t < 2 else 0.0
            k = j
            while not 0 <= k < len(x):
                if border == "mirror":
                    k = -1 - k if k < 0 else 2 * len(x) - 1 - k
                else:
                    k = min(max(k, 0), len(x) - 1)
            result[i] += weight * x[k]
            total += weight
        result[i] /= total
    return result


@pytest.mark.parametrize("border", ["replicate", "mirror"])
@pytest.mark.parametrize("size", [(3, 4), (1, 1), (9, 13), (27, 8), (2, 39)])
def test_equals_plain_loops(border: Border, size: tuple[int, int]) -> None:
    x = np.random.default_rng(0).random((9, 13))
    got = resize(torch.from_numpy(x), size, border=border).numpy()
    expected = by_loops(by_loops(x, size[0], border).T, size[1], border).T
    np.testing.assert_allclose(got, expected, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16])
def test_integers_are_rounded_half_up_after_each_pass(dtype: torch.dtype) -> None:
    top = torch.iinfo(dtype).max
    x = np.random.default_rng(1).integers(0, top + 1, (12, 10)).astype(str(dtype).removeprefix("torch."))
    rows = np.clip(np.floor(by_loops(x.astype(float), 6, "replicate") + 0.5), 0, top)
    expected = np.clip(np.floor(by_loops(rows.T, 5, "replicate").T + 0.5), 0, top)
    np.testing.assert_array_equal(resize(torch.from_numpy(x), (6, 5)).numpy(), expected)


@pytest.mark.parametrize("scale", [0.25, 1 / 3, 2.0])
def test_a_batch_equals_its_pictures(scale: float) -> None:
    x = torch.rand(4, 3, 24, 36, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(resize(x, scale=scale), torch.stack([resize(picture, scale=scale) for picture in x]))
    eight = (x * 255).to(torch.uint8)
    assert torch.equal(resize(eight, scale=scale), torch.stack([resize(picture, scale=scale) for picture in eight]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_the_same_bits_on_a_gpu() -> None:
    x = torch.randint(0, 256, (2, 3, 61, 47), dtype=torch.uint8)
    assert torch.equal(resize(x.cuda(), scale=1 / 3).cpu(), resize(x, scale=1 / 3))


def test_size_and_scale_must_make_sense() -> None:
    x = torch.zeros(1, 4, 4)
    for wrong in ({}, {"size": (2, 2), "scale": 2.0}, {"scale": 0.0}, {"size": (0, 2)}):
        with pytest.raises(ValueError):
            resize(x, **wrong)
    with pytest.raises(ValueError, match="uint8"):
        resize(x.to(torch.int32), scale=2)
