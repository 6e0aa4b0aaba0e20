"""A picture of any size through a network, tile by tile, with the same result as in one piece.

Tiles begin at multiples of 48 input pixels (the grid of the local windows, see `finescale.layers.statistics`) and are
computed with a margin of real context on every side, which is cut away. Only the tile goes to the device.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np

from finescale.errors import FinescaleError, ShortOfMemoryError, UsageError, is_out_of_memory

Array = np.ndarray[Any, Any]
Progress = Callable[[float], None]

GRID = 48
LARGEST_WINDOW = 4096  # larger ones need more memory to look at a photograph than to enlarge one
_ROWS = 64
_PAUSE = 0.05  # seconds between two reports of one tile


class Cancelled(Exception):
    """Raised by a progress callback to stop an enlargement; nothing is kept."""


def check_window(side: int | None) -> None:
    """Refuses windows of local statistics above `LARGEST_WINDOW`; None is the whole picture.

    Raises:
        UsageError: it is larger.
    """
    if side is not None and side > LARGEST_WINDOW:
        raise UsageError(f"windows have at most {LARGEST_WINDOW} pixels a side, not {side}")


class Runner(Protocol):
    """What tiling needs of an engine."""

    scale: int

    def run(self, x: Array, tick: Progress | None = None) -> Array:
        """(B, 3, h, w) float32 in [0, 1] -> (B, 3, scale h, scale w) float32; `tick` is told the share that is done."""
        ...

    def exact(self) -> "Runner | None":
        """The same network in float32, or None where this one is already."""
        ...


@dataclass(frozen=True)
class Tile:
    """A rectangle of the input, in pixels: rows [top, bottom), columns [left, right)."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def pixels(self) -> int:
        """Number of input pixels."""
        return (self.bottom - self.top) * (self.right - self.left)


def steps(start: int, stop: int, tile: int) -> Iterator[tuple[int, int]]:
    """Cuts [start, stop), unless it fits, into nearly equal parts of at most `tile`, at multiples of the grid."""
    size = stop - start
    count = 1 if size <= tile else -(-size // max(GRID, tile // GRID * GRID))
    step = -(-size // (count * GRID)) * GRID
    for first in range(start, stop, step):
        yield first, min(first + step, stop)


def plan(area: Tile, tile: tuple[int, int]) -> list[Tile]:
    """Tiles of at most about `tile` (rows, columns) that cover `area` (its corner on the grid)."""
    return [
        Tile(top, left, bottom, right)
        for top, bottom in steps(area.top, area.bottom, tile[0])
        for left, right in steps(area.left, area.right, tile[1])
    ]


def enlarge(
    x: Array,
    engine: Runner,
    *,
    tile: int | tuple[int, int],
    margin: int,
    rows: tuple[int, int] | None = None,
    below: int = 0,
    ensemble: bool = False,
    divisible: bool = True,
    progress: Progress | None = None,
) -> Array:
    """Enlarges a picture, or some of its rows, by the network's scale.

    Args:
        x: (H, W, 3): uint8, uint16, or float32 in [0, 1]. Any array that can be sliced, a memory map too.
        engine: the network.
        tile: side of the tiles in input pixels, without margin, or their (rows, columns); cut down to a multiple of
            48 where the picture is larger.
        margin: input pixels of context around a tile, a multiple of 48.
        rows: only these of `x`, from the first up to but without the last; the others are context. The first is a
            multiple of 48.
        below: rows of the picture that follow those of `x`; where there are any, `x` goes on for at least `margin` + 48
            after the last of `rows`.
        ensemble: the mean over the eight flips and turns of the picture (arXiv 1511.02228).
        divisible: tiles may become smaller where memory runs out; not so where statistics are of the whole picture.
        progress: called with the share that is done, which never falls and ends at 1: after each tile, and within one
            about every 0.05 seconds, between two of the network's operations or while another thread computes them.
            What it raises ends the call. Without it nothing is asked of the engine but the picture.

    Returns:
        (scale rows, scale W, 3) of the type of `x`; integers rounded half up and clipped, floats left as they are.

    Raises:
        ShortOfMemoryError: a tile of 48 pixels does not fit into memory, or the picture where it is not `divisible`.
        FinescaleError: values are not finite even in float32.
    """
    if margin % GRID:
        raise ValueError(f"the margin must be a multiple of {GRID}, not {margin}")
    height, width = x.shape[:2]
    s = engine.scale
    top, bottom = rows or (0, height)
    out = np.empty(((bottom - top) * s, width * s, 3), x.dtype)
    waiting = plan(Tile(top, 0, bottom, width), (tile, tile) if isinstance(tile, int) else tile)[::-1]
    report = None if progress is None else _Report(progress, (bottom - top) * width)
    while waiting:
        area = waiting.pop()
        part_of = partial(report.within, area) if report else None
        try:
            if ensemble:
                y = _mean_of_turns(x, area, engine, margin, below, part_of)
            else:
                y = _compute(x, area, engine, margin, tick=part_of)
        except Exception as error:  # each engine has a class of its own for want of memory
            if (report and report.raised) or not is_out_of_memory(error):
                raise
            if not divisible:
                raise ShortOfMemoryError(
                    "there is not enough memory for this picture in one piece, as statistics over all of it need"
                ) from error
            side = max(area.bottom - area.top, area.right - area.left)
            if side <= GRID:
                raise ShortOfMemoryError("out of memory even for a tile of 48 x 48 pixels") from error
            waiting = [part for t in (*waiting, area) for part in plan(t, (side // 2, side // 2))[::-1]]
            continue
        part = out[(area.top - top) * s : (area.bottom - top) * s, area.left * s : area.right * s]
        for first in range(0, len(part), _ROWS):  # by few rows: no large copies, and they stay in the cache
            for colour in range(3):  # planes, as they lie in memory
                part[first : first + _ROWS, :, colour] = from_unit(y[first : first + _ROWS, :, colour], x.dtype)
        if report:
            report.after(area)
    return out


class _Report:
    """Makes shares of all the work of shares of tiles.

    Args:
        progress: told the shares.
        pixels: of all the tiles.

    Attributes:
        raised: whether `progress` has raised something.
    """

    def __init__(self, progress: Progress, pixels: int) -> None:
        self._progress, self._pixels = progress, pixels
        self._done, self._share, self._told = 0, 0.0, time.perf_counter()
        self.raised = False

    def within(self, area: Tile, share: float) -> None:
        """Tells that a share of a tile is done, unless something was told a moment ago."""
        if time.perf_counter() - self._told >= _PAUSE:
            self._tell(self._done + area.pixels * min(share, 0.99))  # the tile's end is told by itself

    def after(self, area: Tile) -> None:
        """Tells that a tile is done."""
        self._done += area.pixels
        self._tell(self._done)

    def _tell(self, pixels: float) -> None:
        self._share = max(self._share, pixels / self._pixels)  # a tile may have to be computed again
        try:
            self._progress(self._share)
        except BaseException:
            self.raised = True
            raise
        self._told = time.perf_counter()


def _compute(
    x: Array,
    area: Tile,
    engine: Runner,
    margin: int,
    before: tuple[int, int] = (0, 0),
    tick: Progress | None = None,
) -> Array:
    """One tile: cut out with its margin, enlarged, the margin cut away; (h, w, 3) float32.

    The cut lies on the grid, which begins `before` (rows, columns) before the first of `x`.
    """
    top, bottom = _cut(area.top - margin, area.bottom + margin, before[0], x.shape[0])
    left, right = _cut(area.left - margin, area.right + margin, before[1], x.shape[1])
    y = _finite(to_unit(x[top:bottom, left:right]).transpose(2, 0, 1)[None], engine, tick)
    s = engine.scale
    y = y[0, :, (area.top - top) * s : (area.bottom - top) * s, (area.left - left) * s : (area.right - left) * s]
    return y.transpose(1, 2, 0)


def _cut(first: int, last: int, before: int, size: int) -> tuple[int, int]:
    """[first, last) grown to the grid, inside [0, size)."""
    start, stop = (first + before) // GRID * GRID - before, -(-(last + before) // GRID) * GRID - before
    return max(0, start), min(size, stop)


def _mean_of_turns(
    x: Array, area: Tile, engine: Runner, margin: int, below: int, tick: Progress | None = None
) -> Array:
    """As `_compute`: the mean of what the tile becomes in the eight flips and turns of the picture.

    Each of them has the grid of the turned picture, so the result does not depend on the tiles.
    """
    height, width = x.shape[:2]
    total: Array | None = None
    for k in range(8):
        turned, before = _turn(x, k), (below if k & 2 else 0, 0)
        rows = (height - area.bottom, height - area.top) if k & 2 else (area.top, area.bottom)
        columns = (width - area.right, width - area.left) if k & 1 else (area.left, area.right)
        if k & 4:
            rows, columns, before = columns, rows, before[::-1]
        turn = Tile(rows[0], columns[0], rows[1], columns[1])
        part = _turn_back(_compute(turned, turn, engine, margin, before, _eighth(tick, k)), k)
        total = part.copy() if total is None else np.add(total, part, out=total)
        if tick:
            tick((k + 1) / 8)
    assert total is not None
    return np.divide(total, np.float32(8), out=total)


def _eighth(tick: Progress | None, k: int) -> Progress | None:
    """What is told the share of one of the eight turns, from 0 on."""
    return None if tick is None else lambda share: tick((k + min(share, 1)) / 8)


def _turn(x: Array, k: int) -> Array:
    """One of the eight flips and turns of (H, W, C)."""
    x = x[:, ::-1] if k & 1 else x
    x = x[::-1] if k & 2 else x
    return x.swapaxes(0, 1) if k & 4 else x


def _turn_back(x: Array, k: int) -> Array:
    x = x.swapaxes(0, 1) if k & 4 else x
    x = x[::-1] if k & 2 else x
    return x[:, ::-1] if k & 1 else x


def _finite(batch: Array, engine: Runner, tick: Progress | None) -> Array:
    """(B, 3, h, w) enlarged; again in float32 where values are not finite."""
    told = () if tick is None else (tick,)
    y = engine.run(batch, *told)
    if not np.isfinite(y).all():
        exact = engine.exact()
        y = y if exact is None else exact.run(batch, *told)
        if not np.isfinite(y).all():
            raise FinescaleError("the network gives values that are not finite for this picture, even in float32")
    return y


def to_unit(x: Array) -> Array:
    """Integers to float32 in [0, 1]; floats to float32."""
    if np.issubdtype(x.dtype, np.integer):
        return x.astype(np.float32) * np.float32(1 / np.iinfo(x.dtype).max)
    return x.astype(np.float32)


def from_unit(y: Array, dtype: Any) -> Array:
    """Float32 about [0, 1] to a type: integers rounded half up and clipped, floats only converted."""
    if np.issubdtype(dtype, np.integer):
        limit = np.iinfo(dtype).max
        y = y * np.float32(limit)
        y += np.float32(0.5)
        np.clip(y, 0, limit, out=y)
    return y.astype(dtype)
