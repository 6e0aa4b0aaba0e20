"""What `finescale networks` tells of every network: its cost, and the weights that are here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from finescale.networks.catalogue import ALIASES, NETWORKS
from finescale.networks.complexity import Cost, cost
from finescale.weights.header import parameters
from finescale.weights.store import Found, available


@dataclass(frozen=True)
class Row:
    """One network of the catalogue, or weights of one's own.

    Attributes:
        name: in the catalogue, or of the weight files.
        aliases: its other names.
        summary: a sentence.
        parameters: that are trained, at the scale asked for; of one's own, at that or the first that is here.
        macs: multiply-accumulates for one picture of 48 x 48 pixels, at that scale; 0: not known.
        scales: at which it can be used now; all for a network without weights.
        figures: of the weights that are here: scale -> set -> {"psnr": dB, "ssim": ...}, as their files say.
        notes: of the weights that are here: scale -> all that their files say of licence, data, recipe and training.
    """

    name: str
    aliases: list[str]
    summary: str
    parameters: int
    macs: int
    scales: list[int]
    figures: Mapping[int, Mapping[str, Any]]
    notes: Mapping[int, Mapping[str, Any]]


def overview(scale: int = 4) -> list[Row]:
    """A row for every network of the catalogue, in its order, then for weights of one's own.

    Nothing is downloaded. Damaged files are warnings.
    """
    found: dict[str, dict[int, Found]] = {name: {} for name in NETWORKS}
    for weights in available():
        found.setdefault(weights.name, {})[weights.scale] = weights
    rows = []
    for name, here in found.items():
        entry = NETWORKS.get(name)
        own = here.get(scale) or next(iter(here.values()), None)
        price = cost(name, scale=scale) if entry else Cost(parameters(own.path) if own else 0, 0)
        notes = {scale: dict(weights.header.notes) for scale, weights in here.items()}
        rows.append(
            Row(
                name,
                [alias for alias, target in ALIASES.items() if target == name],
                entry.summary if entry else next(iter(here.values())).summary,
                price.parameters,
                price.macs,
                [2, 3, 4] if entry and not entry.trained else sorted(here),
                {scale: one.pop("figures", {}) for scale, one in notes.items()},
                notes,
            )
        )
    return rows
