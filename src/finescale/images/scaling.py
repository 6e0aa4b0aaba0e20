"""Pictures of another size: exact bicubic for whole pictures, transparency included."""

import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from finescale.atomic import check_target, writing
from finescale.errors import FinescaleError, UsageError, picture_error
from finescale.images.files import (
    FORMATS,
    LOSSLESS,
    MAX_PIXELS,
    check_name,
    check_quality,
    check_size,
    format_of,
    read,
    write,
)
from finescale.images.folders import apart, below
from finescale.images.picture import Picture, mod_crop
from finescale.images.resize import Piece, Resizing
from finescale.images.sizes import Size, target_size
from finescale.layers.bicubic import Border

_LEAST = Fraction(1, 16)  # of a pixel that the longer side becomes: the kernel grows as the scale shrinks


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
    pixels, alpha = picture.pixels, picture.alpha
    how = Resizing(pixels.shape[:2], None if size is None else size[::-1], scale=scale, border=border)
    top = np.iinfo(pixels.dtype).max
    colours = np.empty((*how.size, pixels.shape[2]), pixels.dtype)
    cover = None if alpha is None else np.full(how.size, top, pixels.dtype)
    opaque = alpha is None or alpha.min() == top

    def work(piece: Piece) -> None:
        small, large = pixels[piece.source], colours[piece.target]
        if alpha is None or cover is None or opaque:
            for c in range(pixels.shape[2]):
                large[..., c] = piece.of(small[..., c], top)
            return
        weight = alpha[piece.source] / top
        covered = piece.of(weight)
        cover[piece.target] = np.floor(covered.clip(0, 1) * top + 0.5)
        # where nothing shows, colours stay as they are without weights: no black to bleed in later
        seen = covered > 0.5 / top
        for c in range(pixels.shape[2]):
            if not seen.all():
                large[..., c] = piece.of(small[..., c], top)
            if seen.any():
                ratio = piece.of(small[..., c] * weight)[seen] / covered[seen]
                large[..., c][seen] = np.floor(ratio.clip(0, top) + 0.5)

    how.each(work)
    return replace(picture, pixels=colours, alpha=cover)


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
    check_target(Path(target), overwrite)
    kind = format_of(target, format)
    check_quality(quality)
    picture = read(source)
    if crop:
        if scale is None or scale.numerator != 1:
            raise UsageError("mod-crop needs a scale of 1/s")
        try:
            alpha = None if picture.alpha is None else mod_crop(picture.alpha, scale.denominator)
            picture = replace(picture, pixels=mod_crop(picture.pixels, scale.denominator), alpha=alpha)
        except UsageError as error:
            raise UsageError(f"{source}: {error}") from error
    if scale is not None:
        if scale * max(picture.size) < _LEAST:
            raise UsageError(f"{source}: {picture.size[0]} x {picture.size[1]} pixels cannot be shrunk so much")
        across, down = (math.ceil(scale * side) for side in picture.size)
    else:
        across, down = target_size(picture.size, width=width, height=height, fit=fit)
    if across * down > MAX_PIXELS:
        raise UsageError(f"{source}: the result would hold {across} x {down} pixels, and {MAX_PIXELS} are the limit")
    check_size(target, kind, (across, down))
    if scale is not None:
        result = resize_picture(picture, scale=float(scale), border=border)
    else:
        result = resize_picture(picture, (across, down), border=border)
    write(result, target, format=format, quality=quality, overwrite=overwrite)
    return result.size


def resize_all(
    todo: Iterable[tuple[Path, Path]], *, overwrite: bool = False, skip: bool = False, **options: Any
) -> Iterator[tuple[Path, Size | FinescaleError | None]]:
    """Resizes picture after picture; a bad one does not stop the others.

    Args:
        todo: what to read and what to write, see `pairs`; folders are made.
        overwrite: replace results that are there.
        skip: leave them as they are; with neither they are errors.
        options: see `resize_file`.

    Yields:
        A picture and the size of its result, None where that was there already, or what went wrong.
    """
    for source, target in todo:
        try:
            with writing(target):
                there = target.exists()
                target.parent.mkdir(parents=True, exist_ok=True)
            if there and skip and target.is_file() and not target.samefile(source):
                yield source, None
            else:
                yield source, resize_file(source, target, overwrite=overwrite, **options)
        except Exception as error:
            yield source, picture_error(source, error)


def pairs(source: Path, target: Path, format: str | None = None) -> Iterator[tuple[Path, Path]]:
    """What to read and what to write: the two files, or every picture under a folder and its like under another.

    What lies under `target` inside `source` is left out. Into a folder names are kept; the extension becomes that of
    `format` if given, else .png where the input's cannot be written or loses detail (JPEG, WebP, AVIF). It is added
    where two would have one result: a.jpg and a.png become a.jpg.png and a.png.

    Raises:
        UsageError: the one file's name and `format` say different things.
    """
    if not source.is_dir():
        if target.is_dir():
            target = target / source.with_suffix(_extension(source, format)).name
        else:
            check_name(target, format)
        yield source, target
        return
    names: dict[Path, list[Path]] = {}
    inside = os.path.realpath(target)
    for path in below(source):
        if os.path.realpath(path).startswith(inside + os.sep) and inside != os.path.realpath(source):
            continue
        same = target / path.relative_to(source)
        extension = _extension(path, format)
        new, longer = same.with_suffix(extension), same.with_name(same.name + extension)
        names[path] = [new, longer] if new != same else [same, same, longer]
    yield from apart(names).items()


def _extension(source: Path, format: str | None) -> str:
    """Of the result of a picture, in a folder."""
    lossless = FORMATS.get(source.suffix.lower()) in LOSSLESS
    return f".{format}" if format else source.suffix if lossless else ".png"
