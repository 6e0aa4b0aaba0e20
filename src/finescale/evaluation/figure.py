"""Comparison figures in the style of papers: the picture with a box, and the box from every network side by side."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from finescale.atomic import check_target
from finescale.errors import FinescaleError, UsageError
from finescale.evaluation import sets
from finescale.evaluation.arrays import CLEAN, Damage, downscale, to_pixels, to_tensor
from finescale.evaluation.contenders import PAPERS_BICUBIC, REFERENCES, Contender
from finescale.evaluation.metrics import WINDOW, Pixels, luma, psnr, ssim
from finescale.evaluation.plots import DPI, STYLE, require, save
from finescale.images.files import check_size
from finescale.images.picture import mod_crop
from finescale.images.resize import resize

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("png", "pdf", "svg", "webp")
COLOURS = ("#e11d48", "#0284c7", "#ca8a04", "#16a34a", "#9333ea", "#ea580c")  # of the boxes, in turn

# All lengths are in pixels of the PNG; text sizes in points.
_TILE = 340  # about the longer side of a tile; every pixel of the box becomes a square of whole pixels
_GAP = 18
_LABEL = 80  # two lines of text under a tile
_MARGIN = 26


@dataclass(frozen=True)
class Box:
    """A rectangle of the high-resolution picture, in pixels."""

    left: int
    top: int
    width: int
    height: int

    def of(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """The part of (H, W, ...) inside."""
        return pixels[self.top : self.top + self.height, self.left : self.left + self.width]


@dataclass(frozen=True)
class Tile:
    """What one network made of a box; figures are on luma, of the box alone.

    There are none without an original, and no SSIM of less than 11 x 11 pixels.
    """

    name: str
    pixels: Pixels
    psnr: float | None = None
    ssim: float | None = None


@dataclass(frozen=True)
class Scene:
    """A picture and what every network made of its low-resolution version.

    Attributes:
        name: for the caption.
        scale: enlargement factor.
        high: the original, (H, W, 3) uint8; of a real photograph, its bicubic enlargement.
        enlarged: by every network, in order; each like `high`.
        real: a real photograph was enlarged, so there is no original.
    """

    name: str
    scale: int
    high: Pixels
    enlarged: dict[str, Pixels]
    real: bool = False

    def tiles(self, box: Box) -> list[Tile]:
        """The box from every network."""
        if self.real:
            return [Tile(name, box.of(pixels)) for name, pixels in self.enlarged.items()]
        original = box.of(luma(self.high))
        result = []
        for name, pixels in self.enlarged.items():
            made = box.of(luma(pixels))
            similarity = ssim(made, original) if min(made.shape) >= WINDOW else None
            result.append(Tile(name, box.of(pixels), psnr(made, original), similarity))
        return result


def scene(
    picture: Path,
    contenders: Sequence[Contender],
    scale: int,
    *,
    high: Path | None = None,
    real: bool = False,
    damage: Damage = CLEAN,
    boxes: Sequence[Box] = (),
) -> Scene:
    """Enlarges a picture with every contender.

    Args:
        picture: the original, which is shrunk first; with `high`, the low-resolution picture itself.
        contenders: see `finescale.evaluation.contenders.contender`.
        scale: 2, 3 or 4.
        high: the original of a low-resolution `picture`.
        real: enlarge `picture` itself, which has no original.
        damage: what the shrunk picture has been through.
        boxes: that will be shown, and are looked at before the work.

    Raises:
        UsageError: a contender that has no colours, or a box outside the picture.
        FinescaleError: a picture cannot be read, or its size is not the scale times that of the other.
    """
    if any(entrant.name == PAPERS_BICUBIC for entrant in contenders):
        raise UsageError(f"'{PAPERS_BICUBIC}' has no colours to show; use 'bicubic'")
    if real:
        low = to_tensor(sets.read_rgb(picture))
        bicubic = to_pixels(resize(low, scale=scale))
        for box in boxes:
            check_box(box, bicubic)
        enlarged = {entrant.name: to_pixels(entrant.enlarge(low)) for entrant in contenders}
        return Scene(picture.stem, scale, bicubic, enlarged, real=True)
    try:
        original = mod_crop(sets.read_rgb(high or picture), scale)
    except UsageError as error:
        raise FinescaleError(f"{high or picture}: {error}") from error
    for box in boxes:
        check_box(box, original)
    if high:
        small = sets.read_rgb(picture)
        if (small.shape[0] * scale, small.shape[1] * scale) != original.shape[:2]:
            raise FinescaleError(
                f"{high}: it is {original.shape[1]} x {original.shape[0]}, not {scale} times {picture}, "
                f"which is {small.shape[1]} x {small.shape[0]}"
            )
        low = to_tensor(small)
    else:
        low = downscale(original, scale, damage=damage)
    enlarged = {entrant.name: to_pixels(entrant.enlarge(low)) for entrant in contenders}
    return Scene((high or picture).stem, scale, original, enlarged)


def check_file(file: Path, *, overwrite: bool = False) -> None:
    """Makes sure, before the work, that a figure can be written.

    Raises:
        UsageError: another extension than those of `FORMATS`.
        FinescaleError: the file exists or cannot be written, or matplotlib is missing.
    """
    if file.suffix.lower()[1:] not in FORMATS:
        raise UsageError(f"{file}: figures are written as {', '.join(FORMATS)}")
    require()
    check_target(file, overwrite)


def check_box(box: Box, high: Pixels) -> None:
    """Refuses boxes that are not inside the picture.

    Raises:
        UsageError: it is empty or reaches over the edge.
    """
    height, width = high.shape[:2]
    inside = box.left >= 0 and box.top >= 0 and box.left + box.width <= width and box.top + box.height <= height
    if not inside or min(box.width, box.height) < 1:
        raise UsageError(
            f"the box {box.left},{box.top},{box.width},{box.height} is not inside the picture of {width} x {height}"
        )


def most_different_boxes(made: Scene, count: int, size: tuple[int, int] | None = None) -> list[Box]:
    """The boxes where the networks differ most: the largest variance of luma among them, without overlaps.

    Bicubic and nearest count only if there are fewer than two networks besides them.

    Args:
        made: the scene.
        count: how many; fewer if the picture has no room.
        size: (width, height) of the boxes; by default a fifth of the picture's shorter side, 4 : 3.

    Raises:
        UsageError: boxes of that size hold no pixel, or do not fit into the picture.
    """
    height, width = made.high.shape[:2]
    if size is None:
        tall = max(min(height, width, 24), min(height, width) // 5)
        size = (min(width, tall * 4 // 3), tall)
    if min(size) < 1:
        raise UsageError(f"boxes of {size[0]} x {size[1]} hold no pixel")
    if size[0] > width or size[1] > height:
        raise UsageError(f"boxes of {size[0]} x {size[1]} do not fit into the picture of {width} x {height}")
    networks = [pixels for name, pixels in made.enlarged.items() if name not in REFERENCES]
    variance = _variance(networks if len(networks) > 1 else list(made.enlarged.values()) or [made.high])
    sums = np.pad(variance.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    wide, tall = size
    inside = sums[tall:, wide:] - sums[tall:, :-wide] - sums[:-tall, wide:] + sums[:-tall, :-wide]
    boxes: list[Box] = []
    while len(boxes) < count and inside.max() >= 0:
        top, left = np.unravel_index(int(inside.argmax()), inside.shape)
        boxes.append(Box(int(left), int(top), wide, tall))
        inside[max(0, top - tall + 1) : top + tall, max(0, left - wide + 1) : left + wide] = -1
    return boxes


def _variance(pictures: Sequence[Pixels]) -> NDArray[np.float64]:
    """Variance of luma among the pictures at every position; of one picture alone, its squared gradient."""
    if len(pictures) == 1:
        down, right = np.gradient(luma(pictures[0]))
        return np.asarray(down**2 + right**2)
    total = np.zeros(pictures[0].shape[:2])
    squares = total.copy()
    for pixels in pictures:
        y = luma(pixels)
        total += y
        squares += y * y
    return np.asarray(squares / len(pictures) - (total / len(pictures)) ** 2).clip(0)


def draw(made: Scene, boxes: Sequence[Box], file: Path, *, overwrite: bool = False) -> None:
    """Draws the figure and writes it; PNG, PDF, SVG or lossless WebP by the file's extension.

    One box: the tiles stand in rows beside the picture. Several: every box has a row of its own.

    Raises:
        UsageError: no box, a box outside the picture, or another extension.
        FinescaleError: matplotlib is missing, the figure is too large for the format, or the file exists or cannot be
            written.
    """
    check_file(file, overwrite=overwrite)
    if not boxes:
        raise UsageError("a figure needs at least one box")
    for box in boxes:
        check_box(box, made.high)
    matplotlib = require()
    with matplotlib.style.context(["default", {**STYLE, "font.family": "sans-serif"}]):
        figure = _compose(made, boxes)
        width, height = figure.get_size_inches() * DPI
        check_size(file, file.suffix.lower()[1:], (round(width), round(height)))
        save(figure, file, overwrite=overwrite)


def _compose(made: Scene, boxes: Sequence[Box]) -> "Figure":
    rows: list[tuple[Box, str, list[Tile | None]]] = []  # None: the original
    for box, colour in zip(boxes, _cycle(len(boxes))):
        cells: list[Tile | None] = [*([] if made.real else [None]), *made.tiles(box)]
        lines = 2 if len(boxes) == 1 and len(cells) > 3 else 1
        columns = -(-len(cells) // lines)
        rows += [(box, colour, cells[i : i + columns]) for i in range(0, len(cells), columns)]
    columns = max(len(cells) for _, _, cells in rows)
    repeats = [max(1, round(_TILE / max(box.width, box.height))) for box, _, _ in rows]
    wide = max(box.width * k for (box, _, _), k in zip(rows, repeats))
    heights = [box.height * k + _LABEL for (box, _, _), k in zip(rows, repeats)]
    total = sum(heights) + _GAP * (len(rows) - 1)

    height, width = made.high.shape[:2]
    shown = min((total - _LABEL) / height, 1.5 * (total - _LABEL) / width)
    left = (round(width * shown), round(height * shown))
    size = (2 * _MARGIN + left[0] + columns * (wide + _GAP), 2 * _MARGIN + total)
    page = _Page(size)

    page.picture(to_pixels(resize(to_tensor(made.high), left[::-1])), _MARGIN, _MARGIN)
    for box, colour in zip(boxes, _cycle(len(boxes))):
        page.frame(
            _MARGIN + box.left * shown, _MARGIN + box.top * shown, box.width * shown, box.height * shown, colour, 2.2
        )
    caption = f"x{made.scale}: {width // made.scale} x {height // made.scale} to {width} x {height}"
    page.label(made.name, caption, _MARGIN + left[0] / 2, _MARGIN + left[1], left[0], bold=1)

    top = _MARGIN
    for (box, colour, cells), k, tall in zip(rows, repeats, heights):
        best = max((tile.psnr for tile in made.tiles(box) if tile.psnr is not None), default=None)
        for column, tile in enumerate(cells):
            x = _MARGIN + left[0] + _GAP + column * (wide + _GAP)
            pixels = box.of(made.high) if tile is None else tile.pixels
            page.picture(pixels.repeat(k, 0).repeat(k, 1), x, top)
            page.frame(x, top, box.width * k, box.height * k, colour, 1.4, halo=False)
            centre, below = x + box.width * k / 2, top + box.height * k
            if tile is None:
                page.label("original", "PSNR dB / SSIM", centre, below, wide)
            else:
                page.label(tile.name, _figures(tile), centre, below, wide, bold=2 if best and tile.psnr == best else 0)
        top += tall + _GAP
    return page.figure


def _cycle(count: int) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(count)]


def _figures(tile: Tile) -> str:
    if tile.psnr is None:
        return ""
    decibels = "∞" if math.isinf(tile.psnr) else f"{tile.psnr:.2f}"
    return f"{decibels} / " + ("-" if tile.ssim is None else f"{tile.ssim:.4f}")


class _Page:
    """A figure drawn in pixels from the top left corner."""

    def __init__(self, size: tuple[int, int]) -> None:
        from matplotlib.figure import Figure

        self.size = size
        self.figure = Figure(figsize=(size[0] / DPI, size[1] / DPI), dpi=DPI, facecolor="white")

    def picture(self, pixels: Pixels, left: float, top: float) -> None:
        height, width = pixels.shape[:2]
        place = (left / self.size[0], 1 - (top + height) / self.size[1], width / self.size[0], height / self.size[1])
        axes = self.figure.add_axes(place)
        axes.imshow(pixels, interpolation="none", aspect="auto")
        axes.set_axis_off()

    def frame(
        self, left: float, top: float, width: float, height: float, colour: str, line: float, *, halo: bool = True
    ) -> None:
        """A rectangle; with a halo, on a slightly wider white one, so that it is seen on every ground."""
        from matplotlib.patches import Rectangle

        for edge, thickness in [("white", line + 1.2)] * halo + [(colour, line)]:
            self.figure.add_artist(
                Rectangle(
                    (left / self.size[0], 1 - (top + height) / self.size[1]),
                    width / self.size[0],
                    height / self.size[1],
                    fill=False,
                    edgecolor=edge,
                    linewidth=thickness,
                    joinstyle="miter",
                )
            )

    def label(self, first: str, second: str, centre: float, top: float, width: float, *, bold: int = 0) -> None:
        """Two centred lines under a picture, the first `bold` of them bold, smaller where they would be too wide."""
        lines = ((first, 12, 9.5, "#111827"), (second, 46, 8.5, "#4b5563"))
        for number, (text, offset, points, colour) in enumerate(lines):
            fitting = min(points, width / (0.62 * max(1, len(text))) * 72 / DPI)
            self.figure.text(
                centre / self.size[0],
                1 - (top + offset) / self.size[1],
                text,
                ha="center",
                va="top",
                parse_math=False,
                fontsize=fitting,
                color=colour,
                fontweight="bold" if number < bold else "normal",
            )
