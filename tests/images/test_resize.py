"""Exact bicubic against the published files and against a plain loop."""

import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from finescale.errors import UsageError
from finescale.images import resize as module
from finescale.images.files import read
from finescale.images.picture import Picture, mod_crop
from finescale.images.resize import Resizing, resize
from finescale.images.scaling import resize_picture
from finescale.layers.bicubic import Border, contributions

PAIRS = {"Set5": 5, "Set14": 14}


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("name", PAIRS)
def test_published_files_bit_for_bit(shared_data: Path, name: str, scale: int) -> None:
    files = sorted((shared_data / "bench" / "LR" / name / f"x{scale}").iterdir())
    assert len(files) == PAIRS[name]
    for file in files:
        high = read(next((shared_data / "bench" / "HR" / name).glob(f"{file.stem}.*")))
        low = resize_picture(Picture(mod_crop(high.pixels, scale)), scale=1 / scale).pixels
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
    got = resize(x, size, border=border)
    expected = by_loops(by_loops(x, size[0], border).T, size[1], border).T
    np.testing.assert_allclose(got, expected, atol=1e-12)
    np.testing.assert_array_equal(resize(torch.from_numpy(x), size, border=border).numpy(), got)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16])
def test_integers_are_rounded_half_up_after_each_pass(dtype: torch.dtype) -> None:
    top = torch.iinfo(dtype).max
    x = np.random.default_rng(1).integers(0, top + 1, (12, 10)).astype(str(dtype).removeprefix("torch."))
    rows = np.clip(np.floor(by_loops(x.astype(float), 6, "replicate") + 0.5), 0, top)
    expected = np.clip(np.floor(by_loops(rows.T, 5, "replicate").T + 0.5), 0, top)
    np.testing.assert_array_equal(resize(torch.from_numpy(x), (6, 5)).numpy(), expected)


def in_one_piece(x: NDArray[Any], size: tuple[int, int], scale: float | None, border: Border) -> NDArray[Any]:
    """A plane, (H, W), with every pass over the whole of it in double precision; floats are not rounded."""
    y: NDArray[Any] = x.astype(float)
    ratios = [scale or new / old for new, old in zip(size, x.shape)]
    for axis in (0, 1) if ratios[0] <= ratios[1] else (1, 0):
        taps = zip(*(one.T for one in contributions(x.shape[axis], size[axis], ratios[axis], border)))
        y = sum(y.swapaxes(0, axis)[index] * weight[:, None] for index, weight in taps).swapaxes(0, axis)
        if x.dtype.kind == "u":
            y = np.floor(y + 0.5).clip(0, np.iinfo(x.dtype).max)
    return y.astype(x.dtype)


def picture_in_one_piece(picture: Picture, size: tuple[int, int], scale: float | None, border: Border) -> Picture:
    planes = [np.ascontiguousarray(picture.pixels[..., c]) for c in range(picture.pixels.shape[2])]
    colours = [in_one_piece(plane, size, scale, border) for plane in planes]
    if picture.alpha is None:
        return Picture(np.stack(colours, 2))
    top = np.iinfo(picture.alpha.dtype).max
    weight = picture.alpha / top
    alpha = in_one_piece(weight, size, scale, border)
    seen = alpha > 0.5 / top
    for plane, colour in zip(planes, colours):
        ratio = in_one_piece(plane * weight, size, scale, border)[seen] / alpha[seen]
        colour[seen] = np.floor(ratio.clip(0, top) + 0.5)
    return Picture(np.stack(colours, 2), np.floor(alpha.clip(0, 1) * top + 0.5).astype(picture.alpha.dtype))


@pytest.mark.parametrize("side", [16, 256])
@pytest.mark.parametrize("border", ["replicate", "mirror"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    ("shape", "how"),
    [((33, 47), scale) for scale in (0.04, 0.25, 0.3, 0.5, 0.975, 1, 1.7, 2.0, 3.9)]
    + [((33, 47), size) for size in ((7, 90), (90, 7), (33, 20), (20, 47), (1, 1), (32, 48), (65, 47), (17, 17))]
    + [((1, 1), 3.0), ((1, 1), (1, 1)), ((2, 1), (1, 5)), ((1, 40), 0.5), ((3, 2), (2, 3)), ((2, 3), (40, 1))],
)
def test_pieces_make_the_bits_of_the_whole(
    shape: tuple[int, int],
    how: float | tuple[int, int],
    dtype: type,
    border: Border,
    side: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "SIDE", side)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    random, top = np.random.default_rng(0), np.iinfo(dtype).max
    pixels, alpha = random.integers(0, top, (*shape, 3), dtype, True), random.integers(0, top, shape, dtype, True)
    alpha[: shape[0] // 3] = 0  # pieces that are hidden, opaque, or some of each
    alpha[shape[0] * 2 // 3 :] = top
    size, scale = (how, None) if isinstance(how, tuple) else (Resizing(shape, scale=how).size, how)
    for picture in (Picture(pixels, alpha), Picture(pixels)):
        got = resize_picture(picture, None if scale else size[::-1], scale=scale, border=border)
        np.testing.assert_array_equal(got.samples, picture_in_one_piece(picture, size, scale, border).samples)
    batch = resize(torch.from_numpy(pixels).permute(2, 0, 1), None if scale else size, scale=scale, border=border)
    np.testing.assert_array_equal(batch.permute(1, 2, 0).numpy(), got.pixels)


@pytest.mark.parametrize("how", [0.5, 0.975, 1.3, (700, 300), (300, 700)])
def test_pieces_of_full_size_too(how: float | tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    x = np.random.default_rng(0).integers(0, 256, (611, 523), np.uint8)
    size, scale = (how, None) if isinstance(how, tuple) else (Resizing(x.shape, scale=how).size, how)
    assert len(Resizing(x.shape, size).pieces()) > 1
    got = resize(torch.from_numpy(x), None if scale else size, scale=scale)
    np.testing.assert_array_equal(got.numpy(), in_one_piece(x, size, scale, "replicate"))


GROWTH = """
import numpy as np
from finescale.images.picture import Picture
from finescale.images.scaling import resize_picture

def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmHWM"))

pixels = np.arange(256, dtype=np.uint8).repeat(93_750).reshape(4000, 6000, 1)
alpha = pixels[..., 0] | 1
resize_picture(Picture(pixels[:600], alpha[:600]), scale=0.5)  # threads, and code that is loaded when first needed
before = peak()
large = resize_picture(Picture(pixels, alpha), scale=0.5)
print(peak() - before - large.samples.nbytes / 2**20)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the peak")
def test_memory_is_that_of_the_result() -> None:
    done = subprocess.run([sys.executable, "-c", GROWTH], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 40  # MiB; the whole picture in double precision alone would take 183


@pytest.mark.parametrize("scale", [0.25, 1 / 3, 2.0])
def test_a_batch_equals_its_pictures(scale: float) -> None:
    x = torch.rand(4, 3, 24, 36, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(resize(x, scale=scale), torch.stack([resize(picture, scale=scale) for picture in x]))
    eight = (x * 255).to(torch.uint8)
    assert torch.equal(resize(eight, scale=scale), torch.stack([resize(picture, scale=scale) for picture in eight]))


def test_size_and_scale_must_make_sense() -> None:
    x = torch.zeros(1, 4, 4)
    for wrong in ({}, {"size": (2, 2), "scale": 2.0}, {"scale": 0.0}, {"size": (0, 2)}):
        with pytest.raises(ValueError):
            resize(x, **wrong)
    with pytest.raises(ValueError, match="there is no border 'reflect'"):  # it would be taken for "mirror"
        resize(x, scale=2, border="reflect")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="uint8"):
        resize(x.to(torch.int32), scale=2)


@pytest.mark.parametrize("how", [{"scale": 0.5}, {"scale": 3}, {"size": (7, 50)}, {"scale": 0.3, "border": "mirror"}])
def test_with_a_gradient_the_same_numbers(how: dict[str, Any]) -> None:
    x = torch.rand(2, 3, 24, 35, generator=torch.Generator().manual_seed(0))
    for picture in (x, x.double()):
        got = resize(picture.clone().requires_grad_(), **how)
        assert got.requires_grad
        assert torch.equal(got.detach(), resize(picture, **how))
    small = x[0, :1, :6, :5].double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: resize(x, **how), small)


@pytest.mark.parametrize("shape", [(288, 288, 3), (5, 5, 1), (8, 64, 64, 4)])
def test_pictures_with_the_colours_last_are_refused(shape: tuple[int, ...]) -> None:
    said = rf"not {re.escape(str(shape))}: the colours come first"
    with pytest.raises(UsageError, match=said):
        resize(np.zeros(shape), scale=0.5)
    with pytest.raises(UsageError, match=said):
        resize(torch.zeros(shape), scale=0.5)


@pytest.mark.parametrize("shape", [(9, 3), (3, 9, 4), (1, 9, 1), (4, 90, 2), (2, 3, 90, 4), (20, 3, 3), (0, 9, 3)])
def test_narrow_planes_are_no_colours(shape: tuple[int, ...]) -> None:
    assert resize(np.zeros(shape), scale=2).shape == (*shape[:-2], 2 * shape[-2], 2 * shape[-1])


def test_what_is_no_array_is_refused() -> None:
    for x, what in ((Image.new("RGB", (8, 8)), "Image; of a Pillow"), (np.zeros(5), r"ndarray of shape \(5,\)")):
        with pytest.raises(UsageError, match=f"not {what}"):
            resize(x, scale=0.5)  # type: ignore[type-var]
