"""What the worker does with a job: read, enlarge, write; keeps the network it used last."""

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyvips

from finescale.errors import TakenError
from finescale.images import files
from finescale.images.picture import from_pil, to_8_bit, to_pil
from finescale.inference.advice import advice
from finescale.inference.upscale import Networks
from finescale.networks import DEFAULT
from finescale.web.jobs import Limits, Order

log = logging.getLogger("finescale")
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
        self._told: set[str] = set()

    def __call__(self, order: Order, source: Path, result: Path, progress: Callable[[float], None]) -> None:
        """See `finescale.web.jobs.Work`."""
        progress(0.0)
        picture = files.read(source, max_pixels=self.limits.pixels)
        larger = order.size[0] > picture.size[0] or order.size[1] > picture.size[1]
        if order.network == DEFAULT and larger and (better := advice(source, picture)):
            files.warn(f"{source}: {better.one}; the network {better.network} {better.does}")
        if self._networks.network != order.network:
            self._networks = Networks(order.network, **self.settings)
        try:
            enlarged = self._networks.picture(picture, order.size, progress)
        finally:
            self._networks.rest()
        files.write(enlarged, result, format=order.format)
        for upscaler in self._networks.ready:
            remark = upscaler.remark
            if remark and remark not in self._told:
                log.warning("%s", remark)  # for whoever started the server so, once
                self._told.add(remark)


@dataclass
class Offer:
    """A network that has trained weights on this machine: its name, a sentence, the scales it was trained for."""

    name: str
    summary: str
    scales: list[int]


def networks() -> dict[str, Offer]:
    """What can be asked for, by name; the default first. Imports torch, which takes two seconds the first time."""
    from finescale.weights import store

    found: dict[str, Offer] = {}
    for entry in store.available():
        found.setdefault(entry.name, Offer(entry.name, entry.summary, [])).scales.append(entry.scale)
    return dict(sorted(found.items(), key=lambda item: item[0] != DEFAULT))


def preview(file: Path, target: Path, side: int, max_pixels: int) -> None:
    """Writes a PNG of 8 bits for the screen, its longer side at most `side`; an existing one is left as it is."""
    if target.is_file():
        return
    with files.warnings_to(lambda _: None):  # the job has told them
        found = files.read(file, max_pixels=max_pixels)
    alpha = None if found.alpha is None else to_8_bit(found.alpha)
    image = to_pil(replace(found, pixels=to_8_bit(found.pixels), alpha=alpha, exif=None))
    image.thumbnail((side, side))
    with suppress(TakenError):  # by another request, which may be sending it
        files.write(replace(from_pil(image), colours=found.colours), target, format="png")
