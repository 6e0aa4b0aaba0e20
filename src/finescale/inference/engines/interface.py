"""What every engine offers."""

import math
import time
from collections.abc import Callable

import numpy as np

from finescale.inference.machine import tile_budget
from finescale.inference.tiling import GRID, Array, Progress

LOOK = 0.05  # seconds between two looks at what computes in another thread


class Engine:
    """A network on a device, ready to compute.

    Attributes:
        name: "torch", "openvino", "mnn" or "onnx".
        precision: "float32", "bfloat16" or "int8".
        scale: of the network.
        bytes_per_pixel: memory that the features need for every input pixel, about.
        margin: input pixels of context that a tile needs, a multiple of 48.
        multiple: pictures are filled up to sides that are multiples of this.
        closeness: dB between its picture of a photograph and float32's, where that is worth telling (int8); else None.
    """

    name: str
    precision: str
    scale: int
    bytes_per_pixel: float
    margin: int
    multiple: int
    closeness: float | None = None
    _exact: "Engine | None" = None

    def run(self, x: Array, tick: Progress | None = None) -> Array:
        """(B, 3, h, w) float32 in [0, 1] -> (B, 3, scale h, scale w) float32.

        Args:
            x: the pictures.
            tick: called again and again meanwhile, in this thread, with the share that is done as far as the engine
                knows it. What it raises ends the call soon, as it is, and the engine stays ready.
        """
        raise NotImplementedError

    def exact(self) -> "Engine | None":
        """The same network in float32, made when it is first needed; None where this one is already."""
        if self.precision == "float32":
            return None
        if self._exact is None:
            self._exact = self.make_exact()
        return self._exact

    def make_exact(self) -> "Engine":
        """The same network in float32; for engines that have other precisions, too."""
        return self

    def rest(self) -> None:
        """Gives memory back that the features of large tiles took; called while nothing is computed."""
        return None

    def tile_budget(self) -> float:
        """Bytes that the features of one tile may take now, see `finescale.inference.machine`; here, on a CPU."""
        return tile_budget()


class Pace:
    """How far engines are that do not tell it: by the clock, and the time that the last pictures took."""

    def __init__(self) -> None:
        self._seconds = 0.0  # for a pixel

    def follow(self, finished: Callable[[float], bool], tick: Progress, pixels: int) -> None:
        """Waits for what another thread computes.

        Args:
            finished: waits for it for at most so many seconds, and gives whether it is there.
            tick: told the share that is done; of the first pictures 0, as nothing is known yet.
            pixels: of the pictures.
        """
        start = time.perf_counter()
        while not finished(LOOK):
            needed = pixels * self._seconds
            tick(min(1.0, (time.perf_counter() - start) / needed) if needed else 0.0)
        self._seconds = (time.perf_counter() - start) / pixels


def grown(x: Array, multiple: int) -> Array:
    """(B, C, H, W) with sides that are multiples of a number, as `finescale.networks.base.pad_to_multiple`."""
    for axis in (2, 3):
        size = x.shape[axis]
        if size % multiple:
            places = np.arange(-(-size // multiple) * multiple)
            x = x.take(np.where(places < size, places, np.maximum(2 * size - 2 - places, 0)), axis)
    return x


def fitting_tile(engine: Engine, budget: float, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of the tiles, without margins, for a picture: all of it if its features fit into `budget` bytes.

    Else those that fit and compute the fewest pixels: margins are computed on both sides of every cut.
    """
    pixels, margins = budget / engine.bytes_per_pixel, 2 * engine.margin
    best, least = (GRID, GRID), math.inf
    for parts in range(1, -(-height // GRID) + 1):
        rows = height if parts == 1 else -(-height // (parts * GRID)) * GRID
        columns = int(pixels / (max(rows, GRID) if parts == 1 else rows + margins))  # few rows are filled up
        if columns < width:
            columns = (columns - margins) // GRID * GRID
            if columns < GRID:
                continue
        work = (height + margins * (parts - 1)) * (width + margins * (-(-width // columns) - 1))
        if work < least:
            best, least = (max(rows, GRID), max(columns, GRID)), work
    return best
