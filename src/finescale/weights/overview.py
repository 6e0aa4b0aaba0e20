"""What `finescale networks` tells of every network: its cost, and the weights that are here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from finescale.networks.catalogue import ALIASES, NETWORKS
from finescale.networks.complexity import cost
from finescale.weights.store import available


@dataclass(frozen=True)
class Row:
    """One network of the catalogue.

    Attributes:
        name: in the catalogue.
        aliases: its other names.
        summary: a sentence.
        parameters: that are trained, at the scale asked for.
        macs: multiply-accumulates for one picture of 48 x 48 pixels, at that scale.
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
    """A row for every network of the catalogue, in its order; nothing is downloaded. Damaged files are warnings."""
    found: dict[str, dict[int, Any]] = {name: {} for name in NETWORKS}
    for weights in available():
        found[weights.name][weights.scale] = dict(weights.header.notes)
    rows = []
    for name, entry in NETWORKS.items():
        price = cost(name, scale=scale)
        rows.append(
            Row(
                name,
                [alias for alias, target in ALIASES.items() if target == name],
                entry.summary,
                price.parameters,
                price.macs,
                sorted(found[name]) if entry.trained else [2, 3, 4],
                {scale: notes.pop("figures", {}) for scale, notes in found[name].items()},
                found[name],
            )
        )
    return rows
