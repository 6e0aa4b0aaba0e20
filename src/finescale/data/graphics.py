"""Pictures no camera took, drawn by chance: text, line drawings, pixel art, dithering, halftones, charts.

Photographs hold few of them, and a network that never saw any takes the regular ones for texture. Drawn large, they
are packed and shrunk like photographs (`finescale data prepare`), so a network learns what stood there.
"""

import math
import random
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from finescale.atomic import new_file, writing
from finescale.errors import UsageError

Pixels = NDArray[np.uint8]  # (H, W, 3)
Colour = tuple[int, int, int]

SIDE = 1020  # pixels, a multiple of 12 as stores want them
_LEAST, _MOST = 160, 2048  # side of the box of one drawing
_FONTS = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSerif"),
    *("DejaVuSerif-Bold", "DejaVuSerif-Italic", "STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic"),
)
_LETTERS = (*("abcdefghijklmnopqrstuvwxyz",) * 6, "αβγδεζηθικλμνξοπρστυφχψω", "абвгдежзиклмнопрстуфхцчшыэюя")
_SIGNS = ("(x, y)", "==", "{", "};", "->", "#", "&", "50 %", "a[i]", "@", "?", "!", "+", "$")
_BAYER = np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]])  # of ordered dithering


def picture(seed: int, side: int = SIDE) -> Pixels:
    """A square picture of one to a dozen drawings: (side, side, 3) uint8; the same seed gives the same one.

    With Matplotlib installed (the extra `report`) its text is set in that package's fonts too.
    """
    chance = Chance(seed)
    pixels = np.empty((side, side, 3), np.uint8)
    _fill(pixels, chance)
    return pixels


def draw(folder: Path, seeds: Iterable[int], side: int = SIDE, *, overwrite: bool = False) -> Iterator[Path]:
    """Writes the pictures of some seeds as PNG files, and yields each file when it is there.

    Raises:
        UsageError: `side` is less than 12 or more than 20,000 pixels.
        TakenError: a file exists and may not be overwritten.
        FinescaleError: it cannot be written.
    """
    if not 12 <= side <= 20_000:
        raise UsageError(f"--side {side}: should be from 12 to 20,000")
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        file = folder / f"drawn-{seed:06}.png"
        with new_file(file, overwrite=overwrite) as out:
            Image.fromarray(picture(seed, side)).save(out, "PNG")
        yield file


class Chance:
    """Where chance comes from: `one` for single numbers, `many` for arrays of them."""

    def __init__(self, seed: int) -> None:
        self.one, self.many = random.Random(seed), np.random.default_rng(seed)

    def length(self, low: float, high: float) -> float:
        """A length between two, doubling as likely everywhere."""
        return low * (high / low) ** self.one.random()

    def likely(self, share: float) -> bool:
        """True in this share of cases."""
        return self.one.random() < share

    def colour(self) -> Colour:
        """Any; black, white and greys often."""
        kind = self.one.random()
        if kind < 0.35:
            return (0, 0, 0) if kind < 0.18 else (255, 255, 255)
        if kind < 0.5:
            return (self.one.randrange(256),) * 3
        return self.one.randrange(256), self.one.randrange(256), self.one.randrange(256)

    def pair(self) -> tuple[Colour, Colour]:
        """Two colours that can be told apart."""
        first, second = self.colour(), self.colour()
        while sum(abs(a - b) for a, b in zip(first, second)) < 120:
            second = self.colour()
        return first, second


def _fill(pixels: Pixels, chance: Chance) -> None:
    """Halves a box by chance until its parts are small enough, and draws one thing into each."""
    height, width = pixels.shape[:2]
    along = int(width > height)
    parted = pixels.shape[along] >= 2 * _LEAST and chance.likely(0.95 if max(height, width) > 3 * _LEAST else 0.4)
    if parted or max(height, width) > _MOST:
        cut = chance.one.randint(_LEAST, pixels.shape[along] - _LEAST)
        first, second = np.split(pixels, [cut], axis=along)
        _fill(first, chance)
        _fill(second, chance)
    else:
        pixels[:] = chance.one.choice(DRAWINGS)(chance, height, width)


def _text(chance: Chance, height: int, width: int) -> Pixels:
    """Lines of made-up words, in several sizes and fonts."""
    paper, ink = chance.pair()
    page = Image.new("RGB", (width, height), paper)
    pen = ImageDraw.Draw(page)
    pen.fontmode = "1" if chance.likely(0.1) else "L"  # without and with grey edges
    top = chance.length(2, 20)
    while top < height:
        size = round(chance.length(12, 72))
        file = chance.one.choice(fonts())
        font = typeface(file, size)
        for _ in range(chance.one.randint(1, 6)):
            line = " ".join(made_up_word(chance, latin=not file) for _ in range(3 + round(3 * width / size / 8)))
            pen.text((chance.one.uniform(-size, size), top), line, ink, font)
            top += size * chance.one.uniform(1.1, 1.6)
        if chance.likely(0.3):
            ink = chance.colour()
    if chance.likely(0.1):
        page = page.rotate(chance.one.uniform(-30, 30), Image.Resampling.BICUBIC, fillcolor=paper)
    return np.array(page)


def made_up_word(chance: Chance, latin: bool = True) -> str:
    """Letters, a number or signs; `latin`: no letters but Latin ones."""
    kind = chance.one.random()
    if kind < 0.15:
        return str(round(chance.length(1, 1e5), chance.one.choice((None, 2))))
    if kind < 0.2:
        return chance.one.choice(_SIGNS)
    letters = chance.one.choice(_LETTERS[:1] if latin else _LETTERS)
    word = "".join(chance.one.choice(letters) for _ in range(chance.one.randint(1, 9)))
    return chance.one.choice((word, word, word, word.capitalize(), word.upper()))


@cache
def fonts() -> tuple[str, ...]:
    """Files of fonts; "": the one inside Pillow."""
    found = find_spec("matplotlib")
    folder = Path(found.origin or "").parent / "mpl-data/fonts/ttf" if found else Path()
    there = [str(folder / f"{name}.ttf") for name in _FONTS if found and (folder / f"{name}.ttf").is_file()]
    return ("", *there)


def has_fonts() -> bool:
    """Whether there are fonts beside Pillow's own."""
    return len(fonts()) > 1


@cache
def typeface(file: str, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """A font of `fonts`, `size` pixels high."""
    return ImageFont.truetype(file, size) if file else ImageFont.load_default(size)


def _pixel_art(chance: Chance, height: int, width: int) -> Pixels:
    """Sprites on a ground of tiles, every pixel a square of 2 to 8."""
    size = chance.one.randint(2, 8)
    small = sprites(chance, -(-height // size) + size, -(-width // size) + size)
    return _cut(small.repeat(size, 0).repeat(size, 1), chance, height, width)


def sprites(chance: Chance, rows: int, columns: int) -> Pixels:
    """Sprites on a ground of tiles, in 3 to 12 colours: (rows, columns, 3)."""
    palette = np.array([chance.colour() for _ in range(chance.one.randint(3, 12))], np.uint8)
    tile = chance.many.integers(0, 2 if chance.likely(0.7) else len(palette), (chance.one.choice((1, 2, 4, 8)),) * 2)
    ground = np.tile(tile, (rows // len(tile) + 1, columns // len(tile) + 1))[:rows, :columns]
    for _ in range(rows * columns // 150):
        high, wide = chance.one.randint(4, 16), chance.one.randint(2, 8)
        half = chance.many.integers(-len(palette), len(palette), (high, wide))  # below 0: the ground shows through
        sprite = np.hstack((half, half[:, ::-1]))
        top, left = chance.one.randrange(max(1, rows - high)), chance.one.randrange(max(1, columns - 2 * wide))
        part = ground[top : top + high, left : left + 2 * wide]
        sprite = sprite[: part.shape[0], : part.shape[1]]
        part[sprite >= 0] = sprite[sprite >= 0]
    return palette[ground]


def _cut(pixels: Pixels, chance: Chance, height: int, width: int) -> Pixels:
    """A part of a larger picture, anywhere in it."""
    top, left = (chance.one.randint(0, have - want) for have, want in zip(pixels.shape, (height, width)))
    return pixels[top : top + height, left : left + width]


def _shade(chance: Chance, height: int, width: int) -> NDArray[np.float64]:
    """A smooth field in [0, 1]: a gradient, or a few broad waves."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    field = np.zeros((height, width))
    for _ in range(chance.one.randint(1, 4)):
        angle, waves = chance.one.uniform(0, 2 * math.pi), chance.length(0.2, 3)
        field += np.sin(2 * math.pi * waves * (x * math.cos(angle) + y * math.sin(angle)) + chance.one.uniform(0, 6.3))
    return (field - field.min()) / max(1e-9, float(np.ptp(field)))


def _dithering(chance: Chance, height: int, width: int) -> Pixels:
    """A shade in two colours, by ordered dithering (or half of each everywhere) of pixels 1 to 8 large."""
    size = chance.one.randint(1, 8)
    rows, columns = height // size + 5, width // size + 5
    shade = np.full((rows, columns), 0.5) if chance.likely(0.3) else _shade(chance, rows, columns)
    matrix = _BAYER if chance.likely(0.6) else _BAYER[:2, :2] // 4
    threshold = np.tile((matrix + 0.5) / matrix.size, (rows // len(matrix) + 1, columns // len(matrix) + 1))
    threshold = threshold[:rows, :columns]
    colours = np.array(chance.pair(), np.uint8)
    return _cut(colours[(shade > threshold).astype(int)].repeat(size, 0).repeat(size, 1), chance, height, width)


def _stripes(chance: Chance, height: int, width: int) -> Pixels:
    """Parallel lines at any angle, or a grid of them, whose period may change across the picture."""
    y, x = np.mgrid[:height, :width]
    angle = chance.one.choice((0, math.pi / 2, chance.one.uniform(0, math.pi)))
    period, change = chance.length(3, 40), chance.one.choice((0, 0, chance.one.uniform(0, 1)))
    share, soft = chance.one.uniform(0.15, 0.85), chance.likely(0.5)
    colours, ink = chance.pair(), np.zeros((height, width))
    for turn in (0, math.pi / 2)[: chance.one.randint(1, 2)]:
        along = x * math.cos(angle + turn) + y * math.sin(angle + turn)
        along = along * (1 + change * along / (height + width))
        away = abs((along + chance.one.uniform(0, period)) % period - period / 2)  # from the middle of the line
        edge = period * share / 2 - away
        ink = np.maximum(ink, np.clip(edge + 0.5, 0, 1) if soft else edge > 0)
    return _printed(ink, colours)


def _printed(ink: NDArray[np.float64], colours: tuple[Colour, Colour]) -> Pixels:
    """From paper, where there is no ink (0), to its colour, where it is full (1)."""
    paper, full = np.array(colours, float)
    return (paper + ink[..., None] * (full - paper)).round().astype(np.uint8)


def _halftone(chance: Chance, height: int, width: int) -> Pixels:
    """A shade by dots of different size on a turned grid, as printers and comics do."""
    y, x = np.mgrid[:height, :width]
    angle, period = chance.one.uniform(0, math.pi / 2), chance.length(5, 28)
    across = (x * math.cos(angle) + y * math.sin(angle)) % period - period / 2
    down = (y * math.cos(angle) - x * math.sin(angle)) % period - period / 2
    radius = period * (0.1 + 0.55 * _shade(chance, height, width))
    ink = np.clip(radius - np.hypot(across, down) + 0.5, 0, 1)
    if chance.likely(0.3):
        ink = ink.round()
    return _printed(ink, chance.pair())


def _drawing(chance: Chance, height: int, width: int) -> Pixels:
    """Flat shapes with and without outlines, lines and curves; hard edges or smooth ones."""
    fine = chance.one.choice((1, 3, 3))
    page = Image.new("RGB", (width * fine, height * fine), chance.colour())
    pen = ImageDraw.Draw(page)
    outline = chance.colour() if chance.likely(0.7) else None
    for _ in range(chance.one.randint(4, 24)):
        size = chance.length(16, 400) * fine
        thick = max(1, round(chance.length(1, 14) * fine))
        x, y = chance.one.uniform(-0.1, 1.1) * page.width, chance.one.uniform(-0.1, 1.1) * page.height
        points = [(x + chance.one.gauss(0, size / 2), y + chance.one.gauss(0, size / 2)) for _ in range(3)]
        kind, colour = chance.one.randrange(6), chance.colour()
        box = (x, y, x + size, y + size * chance.length(0.3, 2))
        if kind == 0:
            pen.ellipse(box, colour, outline, thick if outline else 0)
        elif kind == 1:
            pen.rectangle(box, colour, outline, thick if outline else 0)
        elif kind == 2:
            pen.polygon(points, colour, outline, thick if outline else 1)
        elif kind == 3:
            pen.line(points, colour, thick, "curve")
        elif kind == 4:
            pen.arc(box, chance.one.uniform(0, 360), chance.one.uniform(0, 360), colour, thick)
        else:
            pen.line(_curve([(x, y), *points]), colour, thick, "curve")
    return np.array(page.reduce(fine) if fine > 1 else page)


def _curve(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """A cubic Bézier curve by four points, as a chain of short lines."""
    t = np.linspace(0, 1, 40)[:, None]
    a, b, c, d = np.array(points)
    chain = (1 - t) ** 3 * a + 3 * (1 - t) ** 2 * t * b + 3 * (1 - t) * t**2 * c + t**3 * d
    return [(float(x), float(y)) for x, y in chain]


def _cells(chance: Chance, height: int, width: int) -> Pixels:
    """Flat or shaded areas with dark borders between them, as in cartoons: the regions nearest to random points."""
    count = chance.one.randint(4, 24)
    y, x = np.mgrid[:height, :width]
    bend = 20 * (_shade(chance, height, width) - 0.5)
    places = chance.many.random((count, 2)) * (height, width)
    nearest = np.full((2, height, width), np.inf)
    cell = np.zeros((height, width), int)
    for index, (row, column) in enumerate(places):
        away = np.hypot(y + bend - row, x - bend - column)
        cell = np.where(away < nearest[0], index, cell)
        nearest = np.stack((np.minimum(nearest[0], away), np.minimum(nearest[1], np.maximum(nearest[0], away))))
    colours = np.array([chance.colour() for _ in range(count)], float)[cell]
    if chance.likely(0.5):
        colours *= 0.6 + 0.4 * _shade(chance, height, width)[..., None]
    thick = chance.length(1, 12) if chance.likely(0.8) else 0
    ink = np.clip((nearest[1] - nearest[0] - thick) / 2 + 0.5, 0, 1) if thick else np.ones((height, width))
    return (colours * ink[..., None]).round().astype(np.uint8)


def _chart(chance: Chance, height: int, width: int) -> Pixels:
    """Axes, a grid, bars or lines, and small labels."""
    paper, ink = chance.pair()
    page = Image.new("RGB", (width, height), paper)
    pen = ImageDraw.Draw(page)
    size = round(chance.length(12, 36))
    file = chance.one.choice(fonts())
    font = typeface(file, size)
    left, bottom = 3 * size, height - 2 * size
    thick, spacing = chance.one.randint(1, 5), round(size * chance.length(1.2, 4))
    for i in range(1, 1 + bottom // spacing):
        at = bottom - i * spacing
        if chance.likely(0.8):
            pen.line((left, at, width, at), ink, 1)
        pen.text((4, at - size / 2), str(round(i * chance.length(0.1, 90), 1)), ink, font)
    step = round(size * chance.length(1, 4))
    for x in range(left + step // 2, width, step):
        if chance.likely(0.5):
            pen.rectangle((x, bottom - chance.one.random() * height, x + step // 2, bottom), chance.colour())
        pen.text((x, bottom + 4), made_up_word(chance, latin=not file)[:3], ink, font)
    for _ in range(chance.one.randint(0, 4)):
        points = [(x, chance.one.uniform(0, bottom)) for x in range(left, width + step, step)]
        if len(points) > 1:
            pen.line(points, chance.colour(), thick, "curve")
    pen.line([(left, 0), (left, bottom), (width, bottom)], ink, thick)
    return np.array(page)


Drawing = Callable[[Chance, int, int], Pixels]  # height and width to the picture of a box
DRAWINGS: tuple[Drawing, ...] = (
    *(_text, _text, _text),
    *(_drawing, _drawing, _cells),
    *(_pixel_art, _pixel_art, _dithering),
    *(_stripes, _halftone, _chart),
)
