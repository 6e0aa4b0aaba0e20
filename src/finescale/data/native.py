"""Pairs as screens show them: text, windows and sprites, drawn by chance at the small size and again at the large one.

What `finescale.data.graphics` draws is shrunk to become a small picture, so that all its edges are soft and thin lines
are pale. On a screen they are not: letters are drawn for the pixels that they are made of, lines are whole pixels, and
the pixels of a sprite are squares.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from finescale.atomic import new_file, writing
from finescale.data.graphics import Chance, Colour, Pixels, fonts, made_up_word, sprites, typeface
from finescale.errors import UsageError

SIDE = 340  # of the small pictures
_LEAST, _MOST = 48, 400  # side of the box of one drawing, in pixels of the small picture


def picture(seed: int, zoom: int, side: int = SIDE) -> Pixels:
    """A square picture of one to a dozen drawings: (zoom side, zoom side, 3) uint8; with `zoom` 1 the small one.

    The same seed gives the same things at the same places.
    """
    pixels = np.empty((zoom * side, zoom * side, 3), np.uint8)
    _fill(pixels, Chance(seed), zoom)
    return pixels


def draw(folder: Path, seeds: Iterable[int], zoom: int, side: int = SIDE, *, overwrite: bool = False) -> Iterator[Path]:
    """Writes the pictures of some seeds, large/NAME.png and small/NAME.png, and yields each large one when it is there.

    Raises:
        UsageError: `side` is less than 12 or more than 5,000 pixels.
        TakenError: a file exists and may not be overwritten.
        FinescaleError: it cannot be written.
    """
    if not 12 <= side <= 5000 or zoom not in (2, 3, 4):
        raise UsageError(
            f"pairs have small sides of 12 to 5,000 pixels and are for x2, x3 or x4, not {side} at x{zoom}"
        )
    for name in ("small", "large"):
        with writing(folder / name):
            (folder / name).mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        for name, factor in (("small", 1), ("large", zoom)):
            file = folder / name / f"screen-{seed:06}.png"
            with new_file(file, overwrite=overwrite) as out:
                Image.fromarray(picture(seed, factor, side)).save(out, "PNG")
        yield file


def _fill(pixels: Pixels, chance: Chance, zoom: int) -> None:
    """As in `graphics`: halves a box by chance, and draws one thing into each part."""
    height, width = (length // zoom for length in pixels.shape[:2])
    along = int(width > height)
    longest = (height, width)[along]
    if longest >= 2 * _LEAST and (longest > _MOST or chance.likely(0.7)):
        cut = chance.one.randint(_LEAST, longest - _LEAST)
        first, second = np.split(pixels, [cut * zoom], axis=along)
        _fill(first, chance, zoom)
        _fill(second, chance, zoom)
    else:
        pixels[:] = chance.one.choice(NATIVE)(chance, height, width, zoom)


def _window(chance: Chance, height: int, width: int, zoom: int) -> Pixels:
    """Boxes and lines of whole pixels, and lines of made-up words, as in programs and on pages."""
    paper, ink = chance.pair() if chance.likely(0.5) else _quiet(chance)
    page = Image.new("RGB", (width * zoom, height * zoom), paper)
    pen = ImageDraw.Draw(page)
    for _ in range(chance.one.randint(0, 4)):
        x, y = chance.one.randrange(width), chance.one.randrange(height)
        wide, high = chance.one.randint(1, width), chance.one.choice((1, 2, chance.one.randint(8, 60)))
        fill = chance.colour() if chance.likely(0.3) else _near(chance, paper)
        border = chance.one.randint(1, 2) if chance.likely(0.5) and high > 4 else 0
        box = (x * zoom, y * zoom, (x + wide) * zoom - 1, (y + high) * zoom - 1)
        pen.rectangle(box, fill, chance.colour() if border else None, border * zoom)
    top = chance.one.randint(0, 12)
    while top < height:
        size = round(chance.length(8, 26))
        file = chance.one.choice(fonts())
        colour = ink if chance.likely(0.7) else chance.colour()
        for _ in range(chance.one.randint(1, 5)):
            line = " ".join(made_up_word(chance, latin=not file) for _ in range(2 + round(2 * width / size / 8)))
            _write(pen, line, chance.one.randint(-size, size), top, size, file, colour, zoom)
            top += round(size * chance.one.uniform(1.15, 1.7))
    return np.array(page)


def _write(pen: ImageDraw.ImageDraw, line: str, x: int, top: int, size: int, file: str, ink: Colour, zoom: int) -> None:
    """Letter by letter, each where it stands in the small picture, as letters of another size are of another width."""
    small, large = typeface(file, size), typeface(file, size * zoom)
    for letter in line:
        pen.text((x * zoom, top * zoom), letter, ink, large)
        x += round(small.getlength(letter))


def _quiet(chance: Chance) -> tuple[Colour, Colour]:
    """Paper and ink as they mostly are: nearly white and a dark or middle grey, or the other way round."""
    paper, ink = (chance.one.randint(235, 255),) * 3, (chance.one.randint(0, 150),) * 3
    return (paper, ink) if chance.likely(0.7) else (ink if sum(ink) < 200 else (30, 30, 30), paper)


def _near(chance: Chance, colour: Colour) -> Colour:
    red, green, blue = (min(255, max(0, value + chance.one.randint(-25, 25))) for value in colour)
    return red, green, blue


def _sprites(chance: Chance, height: int, width: int, zoom: int) -> Pixels:
    """Pixel art whose pixels are those of the small picture, or squares of 2 to 4 of them; in the large one squares."""
    size = chance.one.choice((1, 1, 1, chance.one.randint(2, 4)))
    small = sprites(chance, -(-height // size), -(-width // size))
    return small.repeat(size * zoom, 0).repeat(size * zoom, 1)[: height * zoom, : width * zoom]


NATIVE: tuple[Callable[[Chance, int, int, int], Pixels], ...] = (_window, _window, _sprites)
