"""What the worker does with a job: read, enlarge, write; keeps the network it used last."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyvips

from finescale.images import files
from finescale.images.picture import from_pil, to_8_bit, to_pil
from finescale.inference.upscale import Networks
from finescale.networks.catalogue import DEFAULT
from finescale.web.jobs import Limits, Order
from finescale.weights import store

pyvips.block_untrusted_set(True)  # of libvips's loaders only those for plain pictures: no SVG, PDF, ImageMagick


class Studio:
    """Does jobs one at a time; the network of the last one stays loaded for the next.

    Args:
        limits: a picture is refused again by its pixels while it is decoded.
        settings: of the networks, see `finescale.inference.upscale.Upscaler`.
    """

    def __init__(self, limits: Limits, settings: Mapping[str, Any]) -> None:
        self.limits = limits
        self.settings = settings
        self._networks = Networks(**settings)

    def __call__(self, order: Order, source: Path, result: Path, progress: Callable[[float], None]) -> None:
        """See `finescale.web.jobs.Work`."""
        progress(0.0)
        picture = files.read(source, max_pixels=self.limits.pixels)
        if self._networks.network != order.network:
            self._networks = Networks(order.network, **self.settings)
        enlarged = self._networks.picture(picture, order.size, progress)
        files.write(enlarged, result, format=order.format)


def networks() -> dict[str, list[int]]:
    """Names of the networks that have trained weights on this machine, each with its scales; the default first."""
    found: dict[str, list[int]] = {}
    for entry in store.available():
        found.setdefault(entry.name, []).append(entry.scale)
    return dict(sorted(found.items(), key=lambda item: item[0] != DEFAULT))


def preview(file: Path, target: Path, side: int, max_pixels: int) -> None:
    """Writes a PNG of 8 bits for the screen, its longer side at most `side`; an existing one is left as it is."""
    if target.is_file():
        return
    found = files.read(file, max_pixels=max_pixels)
    alpha = None if found.alpha is None else to_8_bit(found.alpha)
    image = to_pil(replace(found, pixels=to_8_bit(found.pixels), alpha=alpha, exif=None))
    image.thumbnail((side, side))
    files.write(from_pil(image), target, format="png", overwrite=True)
