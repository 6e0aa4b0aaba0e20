"""Pictures of another size: exact bicubic for whole pictures, transparency included."""

import math
import os
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from finescale.errors import UsageError
from finescale.images.files import FORMATS, LOSSLESS, MAX_PIXELS, below, check_free, read, write
from finescale.images.picture import Picture, Samples
from finescale.images.resize import Border, resize
from finescale.images.sizes import Size, target_size


def resize_picture(
    picture: Picture, size: Size | None = None, *, scale: float | None = None, border: Border = "replicate"
) -> Picture:
    """A picture resized bicubically, as `resize` does it, without fringes where it is transparent.

    Opaque pictures get the exact integer arithmetic of the benchmarks' files. With transparency, colours are weighted
    by their alpha (premultiplied, resized, divided again), in double precision, rounded once.

    Args:
        picture: what to resize.
        size: (width, height) of the result; give this or `scale`.
        scale: factor for both sides; the result has ceil(scale * side) pixels.
        border: what stands outside the picture: "replicate" or "mirror".
    """
    target = None if size is None else size[::-1]

    def resized(plane: Samples) -> Samples:
        return resize(torch.from_numpy(plane), target, scale=scale, border=border).numpy()

    planes = [np.ascontiguousarray(picture.pixels[..., c]) for c in range(picture.pixels.shape[2])]
    colours = [resized(plane) for plane in planes]
    if picture.alpha is None:
        return replace(picture, pixels=np.stack(colours, 2))
    top = np.iinfo(picture.alpha.dtype).max
    if picture.alpha.min() == top:
        return replace(picture, pixels=np.stack(colours, 2), alpha=np.full_like(colours[0], top))
    weight = picture.alpha / top
    alpha = resized(weight)
    seen = (
        alpha > 0.5 / top
    )  # where nothing shows, colours stay as they are without weights: no black to bleed in later
    for c, plane in enumerate(planes):
        ratio = resized(plane * weight)[seen] / alpha[seen]
        colours[c][seen] = np.floor(ratio.clip(0, top) + 0.5)
    rounded = np.floor(alpha.clip(0, 1) * top + 0.5).astype(picture.alpha.dtype)
    return replace(picture, pixels=np.stack(colours, 2), alpha=rounded)


def mod_crop(picture: Picture, multiple: int) -> Picture:
    """The picture without what its right and bottom have beyond a multiple of some pixels, as benchmarks crop it.

    Raises:
        UsageError: nothing would be left.
    """
    width, height = (side - side % multiple for side in picture.size)
    if not width or not height:
        raise UsageError(f"a picture of {picture.size[0]} x {picture.size[1]} holds no multiple of {multiple} pixels")
    alpha = None if picture.alpha is None else picture.alpha[:height, :width]
    return replace(picture, pixels=picture.pixels[:height, :width], alpha=alpha)


def resize_file(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    scale: Fraction | None = None,
    width: int | None = None,
    height: int | None = None,
    fit: Size | None = None,
    border: Border = "replicate",
    crop: bool = False,
    format: str | None = None,
    quality: int | None = None,
    overwrite: bool = False,
) -> Size:
    """Reads a picture, resizes it and writes it; returns the new size.

    Args:
        source, target: the files.
        scale: the factor, or one of
        width, height, fit: as `target_size` takes them.
        border: "replicate" or "mirror".
        crop: first crop right and bottom to a multiple of s, for a scale of 1/s.
        format, quality, overwrite: as `files.write` takes them.

    Raises:
        UsageError: the request makes no sense.
        FinescaleError: a file cannot be read or written.
    """
    check_free(Path(target), overwrite)
    picture = read(source)
    if crop:
        if scale is None or scale.numerator != 1:
            raise UsageError("mod-crop needs a scale of 1/s")
        picture = mod_crop(picture, scale.denominator)
    if scale is not None:
        across, down = (math.ceil(scale * side) for side in picture.size)
    else:
        across, down = target_size(picture.size, width=width, height=height, fit=fit)
    if across * down > MAX_PIXELS:
        raise UsageError(f"{source}: the result would hold {across} x {down} pixels, and {MAX_PIXELS} are the limit")
    if scale is not None:
        result = resize_picture(picture, scale=float(scale), border=border)
    else:
        result = resize_picture(picture, (across, down), border=border)
    write(result, target, format=format, quality=quality, overwrite=overwrite)
    return result.size


def pairs(source: Path, target: Path, format: str | None = None) -> Iterator[tuple[Path, Path]]:
    """What to read and what to write: the two files, or every picture under a folder and its like under another.

    What lies under `target` inside `source` is left out. Names are kept; the extension becomes that of `format` if
    given, else .png where the input's cannot be written or loses detail (JPEG, WebP, AVIF).

    Raises:
        UsageError: two pictures would have one result.
    """
    if not source.is_dir():
        yield source, target / source.name if target.is_dir() else target
        return
    made: dict[Path, Path] = {}
    inside = os.path.realpath(target)
    for path in below(source):
        if os.path.realpath(path).startswith(inside + os.sep) and inside != os.path.realpath(source):
            continue
        new = target / path.relative_to(source)
        if format:
            new = new.with_suffix(f".{format}")
        elif FORMATS.get(path.suffix.lower()) not in LOSSLESS:
            new = new.with_suffix(".png")
        if new in made:
            raise UsageError(f"{made[new]} and {path} would both become {new}")
        made[new] = path
    yield from ((path, new) for new, path in made.items())
