"""From what a person asks for (a factor, a width, a box) to the size of the result."""

import math
import re
from dataclasses import dataclass
from numbers import Integral, Real

from finescale.errors import UsageError
from finescale.images.sizes import target_size

LARGEST_FACTOR = 16.0
STRETCH = 1.1  # by no more than this the last is bicubic if that saves a network's pass, which would bring nothing
LARGEST_SIDE = 1_000_000_000
RESULT = re.compile(r"_(x\d+(\.\d+)?|\d+[wh]|fit\d+x\d+)$")
"""The end of a name that `Target.suffix` made."""


@dataclass(frozen=True)
class Target:
    """What size the result shall have: exactly one of the four is given.

    Attributes:
        scale: factor above 0, up to 16.
        width: of the result; the height follows.
        height: of the result; the width follows.
        fit: (width, height) of a box that the result fills as far as its shape allows.
    """

    scale: float | None = None
    width: int | None = None
    height: int | None = None
    fit: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("scale", "width", "height", "fit") if getattr(self, name) is not None]
        if len(given) != 1:
            raise UsageError(f"give one of scale, width, height and fit, not {' and '.join(given) or 'none of them'}")
        given_scale: object = self.scale  # whatever a program passed
        if given_scale is not None and (type(given_scale) is bool or not isinstance(given_scale, Real)):
            raise UsageError(f"scale is a number, not {given_scale!r}")
        fit: object = self.fit
        if fit is not None and not (isinstance(fit, tuple | list) and len(fit) == 2):
            raise UsageError(f"fit is (width, height) of a box, not {fit!r}")
        sides: list[object] = [side for side in (self.width, self.height) if side is not None]
        for side in (*sides, *(self.fit or ())):
            if type(side) is bool or not isinstance(side, Integral):
                raise UsageError(f"width and height are whole numbers, not {side!r}")
            if int(side) < 1:
                raise UsageError("the result must be at least 1 pixel wide and high")
            if int(side) > LARGEST_SIDE:
                raise UsageError(f"the result can be at most {LARGEST_SIDE:,} pixels wide and high")
        if self.scale is not None and not 0 < self.scale <= LARGEST_FACTOR:
            shown = f"{self.scale:g}" if isinstance(self.scale, float) else self.scale  # fractions may not fit into one
            raise UsageError(f"scale must be above 0 and at most {LARGEST_FACTOR:g}, not {shown}")

    @classmethod
    def of(
        cls,
        scale: float | None = None,
        width: int | None = None,
        height: int | None = None,
        fit: tuple[int, int] | None = None,
    ) -> "Target | None":
        """What is asked for; None where nothing is.

        Raises:
            UsageError: two are, or impossible ones.
        """
        given = (scale, width, height, fit)
        return None if all(one is None for one in given) else cls(*given)

    def size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) of the result for a picture of width x height.

        Raises:
            UsageError: that would be more than 16 times as large.
        """
        if self.scale is not None:
            return max(1, int(width * self.scale + 0.5)), max(1, int(height * self.scale + 0.5))
        result = target_size((width, height), width=self.width, height=self.height, fit=self.fit)
        return exact_size(result, width, height)

    @property
    def suffix(self) -> str:
        """What is appended to a file's name: ``_x4``, ``_1200w``, ``_800h`` or ``_fit1200x800``."""
        if self.scale is not None:
            return f"_x{float(self.scale):g}"
        if self.width is not None:
            return f"_{self.width}w"
        if self.height is not None:
            return f"_{self.height}h"
        assert self.fit is not None
        return "_fit{}x{}".format(*self.fit)


def exact_size(size: tuple[int, int], width: int, height: int) -> tuple[int, int]:
    """The (width, height) that is asked for, of a result for a picture of width x height.

    Raises:
        UsageError: it is none, or more than 16 times as large.
    """
    Target(fit=size)  # the same whole numbers
    factor = max(size[0] / width, size[1] / height)
    if factor > LARGEST_FACTOR:
        raise UsageError(f"{width} x {height} pixels can be enlarged {LARGEST_FACTOR:g} times, not {factor:.4g}")
    return size[0], size[1]


def passes(factor: float, scales: list[int]) -> list[int]:
    """Which scales to apply, one after another, to reach `factor`, of those that there are; but for `STRETCH`.

    The fewest passes, then the smallest product, then the larger scale last: what a pass costs goes by the pixels that
    it is given. Empty for a factor of 1 and below.
    """
    best: list[list[int]] = [[]]
    while True:
        largest = math.prod(best[-1])
        if largest * (STRETCH if best[-1] else 1) >= factor - 1e-9:
            reached = [chain for chain in best if math.prod(chain) >= min(factor - 1e-9, largest)]
            return min(reached, key=lambda chain: (math.prod(chain), chain))
        best = [[*chain, scale] for chain in best for scale in sorted(scales)]
