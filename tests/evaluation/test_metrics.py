import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.signal import convolve2d

from finescale.errors import UsageError
from finescale.evaluation import arrays
from finescale.evaluation.metrics import Pixels, luma, psnr, psnr_y, shave, ssim, ssim_y


def noisy(height: int, width: int, seed: int = 0) -> tuple[Pixels, Pixels]:
    generator = np.random.default_rng(seed)
    a = generator.integers(0, 256, (height, width, 3))
    b = np.clip(a + generator.normal(0, 20, a.shape), 0, 255)
    return a.astype(np.uint8), b.astype(np.uint8)


def plain_luma(rgb: Pixels) -> NDArray[np.float64]:
    return 16 + rgb.astype(np.float64) @ np.array([65.481, 128.553, 24.966]) / 255


def plain_ssim(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """The paper's formula, one two-dimensional window."""
    axis = np.arange(-5, 6)
    window = np.exp(-(axis[:, None] ** 2 + axis[None, :] ** 2) / (2 * 1.5**2))
    window /= window.sum()

    def blur(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(convolve2d(x, window, mode="valid"))

    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    cov = blur(a * b) - mean_a * mean_b
    result = (2 * mean_a * mean_b + c1) * (2 * cov + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    return float(result.mean())


@pytest.mark.parametrize(("height", "width", "border"), [(40, 31, 2), (19, 190, 4), (200, 19, 4), (300, 50, 3)])
def test_agrees_with_a_straightforward_implementation(height: int, width: int, border: int) -> None:
    a, b = noisy(height, width)
    y_a, y_b = (plain_luma(x)[border:-border, border:-border] for x in (a, b))
    assert psnr_y(a, b, border) == pytest.approx(10 * math.log10(255**2 / ((y_a - y_b) ** 2).mean()), abs=1e-10)
    assert ssim_y(a, b, border) == pytest.approx(plain_ssim(y_a, y_b), abs=1e-10)


def test_luma_of_known_colours() -> None:
    colours = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]]], dtype=np.uint8)
    assert luma(colours)[0] == pytest.approx([16, 235, 81.481, 144.553, 40.966], abs=1e-12)


def test_identical_pictures_are_infinitely_alike() -> None:
    a, _ = noisy(30, 30)
    assert psnr_y(a, a.copy(), 2) == math.inf
    assert ssim_y(a, a.copy(), 2) == pytest.approx(1, abs=1e-12)


def test_one_level_of_difference() -> None:
    a = np.full((30, 30), 100.0)
    assert psnr(a, a + 1) == pytest.approx(20 * math.log10(255))


def test_the_border_does_not_count() -> None:
    a, _ = noisy(40, 40)
    b = a.copy()
    b[:4], b[-4:], b[:, :4], b[:, -4:] = 0, 0, 0, 0
    assert psnr_y(a, b, 4) == math.inf
    assert psnr_y(a, b, 3) < 40


def test_arguments_are_not_changed() -> None:
    a, b = noisy(30, 30)
    before = a.copy(), b.copy()
    psnr_y(a, b, 2)
    ssim_y(a, b, 2)
    assert np.array_equal(a, before[0])
    assert np.array_equal(b, before[1])


def test_different_sizes_are_named() -> None:
    a, b = noisy(30, 40)
    with pytest.raises(UsageError, match="differ in size: 40 x 30 and 39 x 30"):
        psnr_y(a, b[:, :-1], 2)


@pytest.mark.parametrize("size", [1, 8])
def test_too_small_for_the_border(size: int) -> None:
    a, b = noisy(size, 50)
    with pytest.raises(UsageError, match="too small to score"):
        psnr_y(a, b, 4)


def test_too_small_for_the_window() -> None:
    a, b = noisy(18, 50)
    assert math.isfinite(psnr_y(a, b, 4))
    with pytest.raises(UsageError, match="50 x 10 is too small for SSIM's window"):
        ssim(luma(a)[4:-4], luma(b)[4:-4])


def test_floats_and_tensors_are_refused() -> None:
    with pytest.raises(UsageError, match=r"8-bit RGB picture \(H, W, 3\), got float64 of shape \(4, 4, 3\)$"):
        luma(np.zeros((4, 4, 3)))  # type: ignore[arg-type]
    x = torch.rand(3, 30, 40)
    with pytest.raises(UsageError, match=r"got torch.float32 of shape .*; finescale\.evaluation\.arrays\.to_pixels"):
        psnr_y(x, x, 2)  # type: ignore[arg-type]
    pixels = arrays.to_pixels(x.mul(255).add(0.5).clamp(0, 255).byte())  # as the message says
    assert psnr_y(pixels, pixels, 2) == math.inf


@pytest.mark.parametrize("measure", [psnr, ssim])
def test_planes_up_to_one_need_their_peak(measure: Callable[..., float]) -> None:
    a, b = (picture[..., 0] for picture in noisy(30, 40))
    wanted = measure(a, b)
    small, other = (a / 255).astype(np.float32), b / 255
    with pytest.raises(UsageError, match=r"look like ones in \[0, 1\]: say peak=1"):
        measure(small, other * 1.1 - 0.05)  # a network's, not clipped
    assert measure(small, other, peak=1) == pytest.approx(wanted, abs=1e-4)
    assert measure(small, other, peak=255) > wanted + 0.01, "who says so gets that"
    dark = np.zeros((30, 40))
    dark[::2] = 1.0  # one grey level of 255
    assert measure(dark, dark[::-1]) == measure(dark.astype(np.uint8), dark[::-1].astype(np.uint8))
    assert measure(dark, np.full_like(dark, 0.3)) > 0.9, "what was made of a black picture, not rounded"
    with pytest.raises(UsageError, match="above 0, not 0"):
        measure(a, b, peak=0)


def test_planes_of_any_type_are_compared_in_double_precision() -> None:
    a, b = (picture[..., 0] for picture in noisy(30, 40))
    for kind in (np.uint8, np.float32):
        assert psnr(a.astype(kind), b.astype(kind)) == psnr(a.astype(np.float64), b.astype(np.float64))
        assert ssim(a.astype(kind), b.astype(kind)) == ssim(a.astype(np.float64), b.astype(np.float64))
    for measure in (psnr, ssim):
        with pytest.raises(UsageError, match=r"expected planes \(H, W\), got shape \(30, 40, 3\)"):
            measure(np.zeros((30, 40, 3)), np.zeros((30, 40, 3)))


def test_a_border_below_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="at least 0 pixels is dropped, not -2"):
        psnr_y(*noisy(30, 40), -2)


def test_shave_is_a_view() -> None:
    plane = np.zeros((9, 9))
    shave(plane, 4)[:] = 7
    assert plane[4, 4] == 7
    assert plane.sum() == 7
