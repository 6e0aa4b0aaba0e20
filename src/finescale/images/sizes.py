"""The sizes that people ask for; needs no torch."""

import math
import re
from fractions import Fraction

from finescale.errors import UsageError

Size = tuple[int, int]


def parse_scale(text: str) -> Fraction:
    """A factor such as "3", "0.25" or "1/4".

    Raises:
        UsageError: it is no positive number.
    """
    try:
        if len(text) > 40 or not re.fullmatch(r"[^e_]*(e[+-]?\d{1,2})?", text.strip().lower()):
            raise ValueError  # 1e999999999 and 1e9_9_9_9_9_9_9 take all memory
        scale = Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise UsageError(f"scale must be a number such as 3, 0.25 or 1/4, not '{text}'") from None
    if scale <= 0:
        raise UsageError(f"scale must be above 0, not {text}")
    return scale


def parse_side(name: str, text: str) -> int:
    """A width or a height (`name` says which) such as "1920"; whether a result can be so large is not asked.

    Raises:
        UsageError: it is no whole number.
    """
    if not re.fullmatch(r"[+-]?[0-9]{1,4000}", text.strip()):
        raise UsageError(f"{name} must be a whole number of pixels, such as 1920, not '{text}'")
    return int(text)


def parse_box(text: str) -> Size:
    """A size such as "1920x1080".

    Raises:
        UsageError: it is not two positive whole numbers.
    """
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(re.fullmatch(r"0{0,8}[1-9][0-9]{0,8}", part) for part in parts):
        raise UsageError(f"a size is WIDTHxHEIGHT, such as 1920x1080, not '{text}'")
    return int(parts[0]), int(parts[1])


def target_size(size: Size, *, width: int | None = None, height: int | None = None, fit: Size | None = None) -> Size:
    """The size (width, height) that keeps the proportions of `size` and has a width, a height, or fits into a box.

    Raises:
        UsageError: not exactly one of width, height and fit, or one that is not above 0.
    """
    if sum(x is not None for x in (width, height, fit)) != 1:
        raise UsageError("give one of width, height and fit")
    if fit is not None:
        ratio = min(Fraction(fit[0], size[0]), Fraction(fit[1], size[1]))
    else:
        ratio = Fraction(width, size[0]) if width is not None else Fraction(height or 0, size[1])
    if ratio <= 0:
        raise UsageError("width and height must be above 0")
    across, down = (max(1, math.floor(side * ratio + Fraction(1, 2))) for side in size)
    return across, down
