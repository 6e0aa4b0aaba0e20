"""PSNR and SSIM on luma, to the last digit as super-resolution papers print them.

Everything is computed in float64. Luma is MATLAB's `rgb2ycbcr` without its rounding, SSIM is that of Wang et al. (IEEE
Trans. Image Processing 13(4), 2004) with the authors' window and 'valid' filtering.
"""

import math

import numpy as np
from numpy.typing import NDArray

from finescale.errors import UsageError

Pixels = NDArray[np.uint8]
Plane = NDArray[np.float64]

WINDOW = 11  # side of SSIM's Gaussian window
_SIGMA = 1.5
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
_STRIP = 64  # rows of SSIM's map made at a time: the strip stays in the processor's cache


def check_rgb(rgb: Pixels) -> None:
    """Refuses what is not a picture (H, W, 3) uint8.

    Raises:
        UsageError: another shape or type.
    """
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
        cure = (
            "; finescale.evaluation.arrays.to_pixels makes one of a tensor (3, H, W) of uint8,"
            " x.mul(255).add(0.5).clamp(0, 255).byte() that of floats in [0, 1]"
        )
        raise UsageError(
            f"expected an 8-bit RGB picture (H, W, 3), got {rgb.dtype} of shape {tuple(rgb.shape)}"
            f"{'' if isinstance(rgb, np.ndarray) else cure}"
        )


def luma(rgb: Pixels) -> Plane:
    """ITU-R BT.601 luma, not rounded: (H, W, 3) uint8 -> (H, W) float64 in [16, 235].

    Raises:
        UsageError: another shape or type.
    """
    check_rgb(rgb)
    y: Plane = rgb[..., 0].astype(np.float64) * 65.481
    y += rgb[..., 1] * 128.553
    y += rgb[..., 2] * 24.966
    y /= 255
    y += 16
    return y


def shave(plane: Plane, border: int) -> Plane:
    """Drops `border` pixels on each side of (H, W); the result is a view.

    Raises:
        UsageError: nothing would be left, or the border is below 0.
    """
    height, width = plane.shape
    if border < 0:
        raise UsageError(f"a border of at least 0 pixels is dropped, not {border}")
    if min(height, width) <= 2 * border:
        raise UsageError(
            f"a picture of {width} x {height} is too small to score: {border} pixels on each side are dropped"
        )
    return plane[border : height - border, border : width - border]


def psnr(a: Plane, b: Plane, *, peak: float | None = None) -> float:
    """Peak signal-to-noise ratio in dB of two planes (H, W); infinity if they are identical.

    Args:
        a, b: values in [0, `peak`].
        peak: 1 for planes in [0, 1]; None: 255, and floats that look like those are refused.

    Raises:
        UsageError: different sizes, no planes, planes in [0, 1] without a `peak`, or one that is not above 0.
    """
    a, b = _planes(a, b, peak)
    error = float(np.mean(np.square(a - b)))
    return 10 * math.log10(255**2 / error) if error else math.inf


def ssim(a: Plane, b: Plane, *, peak: float | None = None) -> float:
    """Mean structural similarity of two planes (H, W); at most 1, which is identity. Arguments as `psnr`.

    Raises:
        UsageError: as `psnr`, or smaller than the window of 11 x 11.
    """
    a, b = _planes(a, b, peak)
    height, width = a.shape
    if min(height, width) < WINDOW:
        raise UsageError(f"a picture of {width} x {height} is too small for SSIM's window of {WINDOW} x {WINDOW}")
    total = 0.0
    rows, columns = height - WINDOW + 1, width - WINDOW + 1
    for top in range(0, rows, _STRIP):
        strip = slice(top, min(top + _STRIP, rows) + WINDOW - 1)
        total += float(_ssim_map(a[strip], b[strip]).sum())
    return total / (rows * columns)


def psnr_y(sr: Pixels, hr: Pixels, border: int) -> float:
    """PSNR in dB on luma without the border; infinity if the pictures are identical.

    Args:
        sr: the enlarged picture, (H, W, 3) uint8.
        hr: the original, same size.
        border: pixels dropped on each side: the scale, by the published protocol.

    Raises:
        UsageError: different sizes, too small, not 8-bit RGB, or a border below 0.
    """
    _check(sr, hr)
    return psnr(shave(luma(sr), border), shave(luma(hr), border))


def ssim_y(sr: Pixels, hr: Pixels, border: int) -> float:
    """SSIM on luma without the border; arguments and errors as `psnr_y`."""
    _check(sr, hr)
    return ssim(shave(luma(sr), border), shave(luma(hr), border))


def _check(a: NDArray[np.generic], b: NDArray[np.generic]) -> None:
    if a.shape != b.shape:
        raise UsageError(f"the pictures differ in size: {_size(a)} and {_size(b)}")


def _planes(a: Plane, b: Plane, peak: float | None) -> tuple[Plane, Plane]:
    """Both in float64, whatever they were (bytes would overflow), with values in [0, 255].

    Those in [0, 1] are told by fractions, as 8-bit pictures may be black, too; what networks give overshoots a little.
    """
    _check(a, b)
    if a.ndim != 2:
        raise UsageError(f"expected planes (H, W), got shape {tuple(a.shape)}")
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if peak is None:
        if all(x.min(initial=0) > -0.5 and x.max(initial=0) < 1.5 and (x % 1).any() for x in (a, b)):
            raise UsageError("these planes look like ones in [0, 1]: say peak=1 (or peak=255, if they are not)")
        return a, b
    if not peak > 0:
        raise UsageError(f"the peak is above 0, not {peak}")
    return (a, b) if peak == 255 else (a * (255 / peak), b * (255 / peak))


def _size(a: NDArray[np.generic]) -> str:
    return f"{a.shape[1]} x {a.shape[0]}" if a.ndim >= 2 else f"shape {a.shape}"


def _gaussian() -> list[float]:
    weights = [math.exp(-((i - WINDOW // 2) ** 2) / (2 * _SIGMA**2)) for i in range(WINDOW)]
    return [weight / sum(weights) for weight in weights]


_TAPS = _gaussian()


def _blur(x: Plane) -> Plane:
    """The Gaussian window applied as two one-dimensional ones, 'valid': (H, W) -> (H - 10, W - 10)."""
    for axis in (0, 1):
        size = x.shape[axis] - WINDOW + 1

        def shifted(i: int, x: Plane = x, axis: int = axis, size: int = size) -> Plane:
            return x[i : i + size] if axis == 0 else x[:, i : i + size]

        half = WINDOW // 2
        total: Plane = shifted(half) * _TAPS[half]
        for i in range(half):  # the window is symmetric: one product for two samples
            total += (shifted(i) + shifted(WINDOW - 1 - i)) * _TAPS[i]
        x = total
    return x


def _ssim_map(a: Plane, b: Plane) -> Plane:
    """Equation 13 of the paper at every position; only the sum of the two variances is needed, not each."""
    mean_a, mean_b = _blur(a), _blur(b)
    product, squares = mean_a * mean_b, mean_a * mean_a + mean_b * mean_b
    covariance = _blur(a * b) - product
    variances = _blur(a * a + b * b) - squares
    result: Plane = (2 * product + _C1) * (2 * covariance + _C2) / ((squares + _C1) * (variances + _C2))
    return result
