"""What the worker does with a job: read, choose a network, enlarge, write."""

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyvips

from finescale.errors import TakenError
from finescale.images import files
from finescale.images.picture import Picture, from_pil, to_8_bit, to_pil
from finescale.inference.advice import choice
from finescale.inference.upscale import Networks
from finescale.networks import AUTO, DEFAULT
from finescale.web.jobs import Limits, Order

log = logging.getLogger("finescale")
TITLES = {
    "sa-rcan-light": "Photographs",
    "sa-rcan": "Photographs, slower",
    "sa-rcan-light-jpeg": "Compressed JPEGs",
    "sa-rcan-light-noise": "Noisy or grainy pictures",
    "sa-rcan-light-perceptual": "Sharper look, less exact",
    "sa-rcan-light-graphics": "Text, charts, drawings",
}
pyvips.block_untrusted_set(True)  # of libvips's loaders only those for plain pictures: no SVG, PDF, ImageMagick


class Studio:
    """Does jobs one at a time; the last two networks stay loaded, as pictures of two kinds may alternate.

    Args:
        limits: a picture is refused again by its pixels while it is decoded.
        settings: of the networks, see `finescale.inference.upscale.Upscaler`.
    """

    def __init__(self, limits: Limits, settings: Mapping[str, Any]) -> None:
        self.limits = limits
        self.settings = settings
        self._kept: dict[str, Networks] = {}  # the one that was used last stands last
        self._told: set[str] = set()

    def __call__(
        self,
        order: Order,
        source: Path,
        result: Path,
        progress: Callable[[float], None],
        choose: Callable[[str], None],
    ) -> None:
        """See `finescale.web.jobs.Work`."""
        progress(0.0)
        picture = files.read(source, max_pixels=self.limits.pixels)
        network = _best(source, picture, order.size) if order.network == AUTO else order.network
        choose(network)
        networks = self._networks(network)
        try:
            enlarged = networks.picture(picture, order.size, progress)
        finally:
            networks.rest()
        files.write(enlarged, result, format=order.format, quality=order.quality)
        for upscaler in networks.ready:
            remark = upscaler.remark
            if remark and remark not in self._told:
                log.warning("%s", remark)  # for whoever started the server so, once
                self._told.add(remark)

    def _networks(self, name: str) -> Networks:
        networks = self._kept.pop(name) if name in self._kept else Networks(name, **self.settings)
        self._kept[name] = networks
        if len(self._kept) > 2:
            del self._kept[next(iter(self._kept))]
        return networks


def _best(source: Path, picture: Picture, size: tuple[int, int]) -> str:
    """The network for a picture that becomes (width, height); where it is not the default one, a warning says why."""
    better = choice(source, picture, picture.size, size)
    if better is None:
        return DEFAULT
    files.warn(f"{source}: {better.one}; {better.done}")
    return better.network


@dataclass
class Offer:
    """A network that has trained weights on this machine.

    Attributes:
        name: its name.
        title: what it is for, in a few words; the name where that is not known.
        summary: a sentence.
        scales: those it was trained for.
    """

    name: str
    title: str
    summary: str
    scales: list[int]


def networks() -> dict[str, Offer]:
    """What can be asked for, by name; the default first. Imports torch, which takes two seconds the first time."""
    from finescale.weights import store

    found: dict[str, Offer] = {}
    for entry in store.available():
        title = TITLES.get(entry.name, entry.name)
        found.setdefault(entry.name, Offer(entry.name, title, entry.summary, [])).scales.append(entry.scale)
    return dict(sorted(found.items(), key=lambda item: item[0] != DEFAULT))


def preview(file: Path, target: Path, side: int, max_pixels: int) -> None:
    """Writes a PNG of 8 bits for the screen, its longer side at most `side`; an existing one is left as it is."""
    if target.is_file():
        return
    with files.warnings_to(lambda _: None):  # the job has told them
        found = files.read(file, max_pixels=max_pixels)
    alpha = None if found.alpha is None else to_8_bit(found.alpha)
    image = to_pil(replace(found, pixels=to_8_bit(found.pixels), alpha=alpha, exif=None, xmp=None))
    image.thumbnail((side, side))
    with suppress(TakenError):  # by another request, which may be sending it
        files.write(replace(from_pil(image), colours=found.colours), target, format="png")
