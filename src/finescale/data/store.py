"""The packed store: every picture of a training set in one memory-mapped file per scale.

A store is a folder: `index.json` (names, sizes, offsets, licence, and which scales are of pairs), `hr.bin` (uint8, each
picture (H, W, 3), one after another) and for every scale `xS.bin` with the low-resolution pictures in the same order:
exact-bicubic ones, or those of pairs.
"""

import json
import os
import secrets
import shutil
import signal
import sys
import warnings
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from finescale import atomic
from finescale.errors import FinescaleError, UsageError, picture_error, system_reason
from finescale.images.files import read
from finescale.images.picture import on_white
from finescale.images.resize import resize

MULTIPLE = 12  # every picture is cropped to multiples of 12, so that x2, x3 and x4 share one high-resolution file
INDEX = "index.json"
_Scales = Mapping[int, Path | None]  # scale -> folder that small pictures are taken from; None: they are made
_Shrunk = tuple[list[NDArray[np.uint8]], str | None]


@dataclass(frozen=True)
class Item:
    """One picture of a store: its name and its high-resolution size, with the position of its first byte."""

    name: str
    height: int
    width: int
    offset: int


class Store:
    """A packed store opened for reading.

    Attributes:
        items: the pictures.
        scales: the scales it has low-resolution pictures for.
        pairs: those scales whose low-resolution pictures were not made but taken from a folder; of stores that were
            packed before this was recorded, none.
        licence: of the pictures, as given when it was packed.

    Raises:
        FinescaleError: it is not a store, or its files do not have the sizes its index gives.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        try:
            index = json.loads((self.folder / INDEX).read_bytes())
            self.items = [Item(**item) for item in index["items"]]
            self.scales: list[int] = list(index["scales"])
            self.pairs: list[int] = list(index.get("pairs", []))
            self.licence = str(index.get("licence", ""))
            _check(self.items, self.scales)
        except FileNotFoundError as error:
            raise FinescaleError(
                f"{self.folder}: not a packed store (make one with: finescale data prepare FOLDER -o {self.folder})"
            ) from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise FinescaleError(f"{self.folder}: not a packed store ({error})") from error
        for scale in (1, *self.scales):
            path = _binary(self.folder, scale)
            have, want = path.stat().st_size if path.exists() else -1, self.size(scale)
            if have != want:
                raise FinescaleError(f"{path}: damaged store, the file has {max(have, 0)} bytes and should have {want}")

    @property
    def megapixels(self) -> float:
        """Of all high-resolution pictures."""
        return sum(item.height * item.width for item in self.items) / 1e6

    def size(self, scale: int = 1) -> int:
        """Bytes of all pictures at one scale (1: high resolution)."""
        return sum(3 * (item.height // scale) * (item.width // scale) for item in self.items)

    def flat(self, scale: int = 1) -> Tensor:
        """All bytes of one scale (1: high resolution) as a memory-mapped uint8 tensor (N,), only to be read.

        Raises:
            FinescaleError: the store has no pictures for that scale, or its file cannot be mapped.
        """
        if scale != 1 and scale not in self.scales:
            known = ", ".join(f"x{scale}" for scale in self.scales)
            raise FinescaleError(f"{self.folder}: has no pictures for x{scale}, only for {known}")
        path = _binary(self.folder, scale)
        # not `torch.from_file`, which may be written into: systems refuse that for more than there is memory
        try:
            mapped = np.memmap(path, np.uint8, mode="r", shape=(self.size(scale),))
        except OSError as error:
            raise FinescaleError(f"{path}: cannot be mapped into memory ({system_reason(error)})") from error
        with warnings.catch_warnings(action="ignore"):  # that it may not be written into
            return torch.from_numpy(mapped)

    def picture(self, i: int, scale: int = 1) -> Tensor:
        """Picture i at a scale: (3, H / scale, W / scale) uint8; errors as `flat`."""
        item = self.items[i]
        h, w, start = item.height // scale, item.width // scale, item.offset // scale**2
        return self.flat(scale)[start : start + 3 * h * w].reshape(h, w, 3).permute(2, 0, 1)


def is_store(folder: Path | str) -> bool:
    """Whether a folder is meant to be a packed store."""
    return (Path(folder) / INDEX).is_file() and _binary(Path(folder), 1).is_file()  # others have an index, too


def _check(items: Sequence[Item], scales: Sequence[object]) -> None:
    """ValueError where an index says what no store has: its pictures lie one behind the other."""
    start = 0
    for item in items:
        if any(type(n) is not int or n < 1 for n in (item.height, item.width)) or item.offset != start:
            raise ValueError(f"its index is damaged at {item.name}")
        start += 3 * item.height * item.width
    if not items or not set(scales) <= {2, 3, 4}:
        raise ValueError("its index is damaged")


@dataclass(frozen=True)
class Packed:
    """What became of one picture file: its name, and why it was left out (None: it is in the store)."""

    name: str
    problem: str | None = None


def prepare(
    pictures: Sequence[tuple[str, Path]],
    folder: Path,
    scales: Sequence[int],
    *,
    small: Mapping[int, Path] = {},
    shrink_missing: bool = False,
    workers: int = 1,
    licence: str = "",
    overwrite: bool = False,
) -> Iterator[Packed]:
    """Packs picture files into a store, yielding what became of each; a bad file does not stop the rest.

    Written beside `folder` under a temporary name and put in place when complete. The store's bytes do not depend on
    `workers`.

    Args:
        pictures: names and files, see `find_pictures`.
        folder: the store to make.
        scales: scales to make low-resolution pictures for, of 2, 3 and 4.
        small: scale -> a folder of low-resolution pictures to take instead, called as the high-resolution ones.
        shrink_missing: shrink those pictures that have none there, instead of leaving them out.
        workers: processes that decode and shrink.
        licence: of the pictures; told in every weight file trained on them.
        overwrite: replace a store that is there.

    Raises:
        UsageError: `folder` is there, or a scale is not 2, 3 or 4.
        FinescaleError: not one picture could be packed, or the disk is full.
    """
    wanted = {scale: small.get(scale) for scale in sorted({*scales, *small})}
    if not wanted or not set(wanted) <= {2, 3, 4}:
        raise UsageError(f"a store is made for the scales 2, 3 and 4, not {', '.join(map(str, scales)) or 'none'}")
    _check_place(folder, overwrite)
    return _pack(pictures, folder, wanted, shrink_missing, workers, licence, overwrite)


def _check_place(folder: Path, overwrite: bool) -> None:
    if folder.exists() and not overwrite:
        raise UsageError(f"{folder}: is already there; with overwrite it is replaced")
    if folder.exists() and not is_store(folder):
        raise UsageError(f"{folder}: is there and is not a packed store, so it is not replaced")


def _pack(
    pictures: Sequence[tuple[str, Path]],
    folder: Path,
    scales: _Scales,
    shrink_missing: bool,
    workers: int,
    licence: str,
    overwrite: bool,
) -> Iterator[Packed]:
    folder = Path(os.path.realpath(folder))  # which a link may lead to, and "." has no name
    mark = secrets.token_hex(4)
    part, old = (folder.with_name(f".{folder.name}.{mark}.{kind}") for kind in ("part", "old"))
    items: list[Item] = []
    offset = 0
    try:
        part.mkdir(parents=True)
        with ExitStack() as stack:
            files = [stack.enter_context(open(_binary(part, scale), "wb")) for scale in (1, *scales)]
            results = stack.enter_context(closing(_shrunk(pictures, scales, shrink_missing, workers)))
            for (name, _), (planes, problem) in zip(pictures, results):
                if problem is None:
                    for file, plane in zip(files, planes):
                        file.write(plane.tobytes())
                    height, width = planes[0].shape[:2]
                    items.append(Item(name, height, width, offset))
                    offset += 3 * height * width
                yield Packed(name, problem)
        if not items:
            raise FinescaleError(f"{folder}: not one of {len(pictures)} pictures could be packed")
        index: dict[str, Any] = {"scales": list(scales), "licence": licence, "items": [asdict(item) for item in items]}
        if pairs := [scale for scale, place in scales.items() if place]:
            index["pairs"] = pairs
        (part / INDEX).write_text(json.dumps(index))
        _check_place(folder, overwrite)  # once more: another process may have made it meanwhile
        if folder.exists():
            atomic.replace(folder, old)
        try:
            atomic.replace(part, folder)
        except OSError:
            if old.exists():
                atomic.replace(old, folder)
            raise
        shutil.rmtree(old, ignore_errors=True)
    except BrokenProcessPool as error:
        raise FinescaleError(
            f"{folder}: a process that packs ended unexpectedly, perhaps for want of memory (fewer --workers need less)"
        ) from error
    except OSError as error:
        raise FinescaleError(f"{folder}: the store could not be written ({system_reason(error)})") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _shrunk(
    pictures: Sequence[tuple[str, Path]], scales: _Scales, shrink_missing: bool, workers: int
) -> Generator[_Shrunk]:
    """As `_shrink`, of one picture after the other, by processes that are not far ahead of what is taken."""
    if workers < 2:
        yield from (_shrink(name, path, scales, shrink_missing) for name, path in pictures)
        return
    count = min(workers, 61) if sys.platform == "win32" else workers  # the most that Windows waits for
    pool = ProcessPoolExecutor(count, get_context("spawn"), initializer=_begin)  # libvips does not survive a fork
    try:
        ahead: deque[Future[_Shrunk]] = deque()
        for name, path in pictures:
            ahead.append(pool.submit(_shrink, name, path, scales, shrink_missing))
            if len(ahead) > 2 * count:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _begin() -> None:
    """What a process that shrinks does first."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one that packs, which ends this one


def _shrink(name: str, path: Path, scales: _Scales, shrink_missing: bool) -> _Shrunk:
    """A picture at full size and at every scale, (H, W, 3) each; or why it cannot be used."""
    try:
        return _planes(name, path, scales, shrink_missing), None
    except Exception as error:
        return [], str(picture_error(path, error))


def _planes(name: str, path: Path, scales: _Scales, shrink_missing: bool) -> list[NDArray[np.uint8]]:
    pixels = _pixels(path)
    height, width = (n // MULTIPLE * MULTIPLE for n in pixels.shape[:2])
    if min(height, width) < MULTIPLE:
        raise FinescaleError(f"{path}: too small, {pixels.shape[1]} x {pixels.shape[0]}")
    high = pixels[:height, :width]
    lows = [
        resize(high.transpose(2, 0, 1), scale=1 / scale).transpose(1, 2, 0)
        if place is None or (shrink_missing and not os.path.lexists(place / name))
        else _partner(place / name, path, pixels.shape, scale)
        for scale, place in scales.items()
    ]
    return [np.ascontiguousarray(picture) for picture in (high, *lows)]


def _partner(path: Path, large: Path, shape: tuple[int, ...], scale: int) -> NDArray[np.uint8]:
    """The small picture of a pair, cropped as the large one, which has this shape, will be."""
    try:
        found = _pixels(path)
    except FinescaleError as error:
        raise FinescaleError(f"{large}: has no x{scale} picture ({error})") from error
    (height, width), (h, w) = shape[:2], found.shape[:2]
    if h not in (height // scale, -(-height // scale)) or w not in (width // scale, -(-width // scale)):
        raise FinescaleError(f"{path}: {w} x {h} is not the size of {large}, {width} x {height}, divided by {scale}")
    height, width = (n // MULTIPLE * MULTIPLE // scale for n in (height, width))
    return found[:height, :width]


def _pixels(path: Path) -> NDArray[np.uint8]:
    picture = read(path)
    if picture.alpha is not None:  # hidden colours are often noise
        picture = replace(picture, pixels=on_white(picture.pixels, picture.alpha), alpha=None)
    return picture.rgb


def _binary(folder: Path, scale: int) -> Path:
    return folder / ("hr.bin" if scale == 1 else f"x{scale}.bin")
