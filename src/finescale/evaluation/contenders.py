"""What can be put to the test: references such as bicubic, networks by name, and weight files."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from finescale.atomic import sha256
from finescale.errors import UsageError, nearest
from finescale.images.resize import resize
from finescale.inference.upscale import Upscaler
from finescale.networks.catalogue import ALIASES, NETWORKS
from finescale.networks.complexity import count
from finescale.weights import places, store
from finescale.weights.header import read_header

PAPERS_BICUBIC = "bicubic-y"
# References that are not networks.
REFERENCES: Mapping[str, str] = {
    "bicubic": "the picture enlarged with MATLAB's bicubic kernel and 8-bit rounding",
    PAPERS_BICUBIC: "the row of papers: luma shrunk and enlarged in double precision, mirrored, rounded at the end",
    "nearest": "every pixel repeated",
}

Enlarge = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Contender:
    """Something that enlarges pictures, ready to run.

    Attributes:
        name: for tables.
        enlarge: (3, H, W) uint8 -> (3, sH, sW) uint8.
        parameters: of the network; None where there is none.
        macs: multiply-accumulates for a 48 x 48 input.
        weights: its weight file, and the file's SHA-256.
    """

    name: str
    enlarge: Enlarge
    parameters: int | None = None
    macs: int | None = None
    weights: Path | None = None
    sha256: str | None = None


def check_names(names: Sequence[str], scale: int) -> None:
    """Refuses names that are neither reference, network nor weight file of the scale, before any work is done.

    Raises:
        UsageError: an unknown name, naming the nearest one; a file for another scale.
        FinescaleError: a file that is damaged or no weight file.
    """
    known = [*REFERENCES, *NETWORKS, *ALIASES]
    for name in names:
        if name in known or (not Path(name).is_file() and places.present(name, scale)):
            continue
        if not Path(name).is_file():
            try:
                there = store.scales(name)
            except UsageError:
                raise UsageError(f"'{name}' is neither a network nor a weight file{nearest(name, known)}") from None
            if scale not in there:
                raise UsageError(f"'{name}' is for {' and '.join(f'x{one}' for one in there)} only, not for x{scale}")
            continue
        header = read_header(Path(name))
        if header.scale != scale:
            raise UsageError(f"{name}: enlarges x{header.scale}, not x{scale}")


def labels(names: Sequence[str]) -> list[str]:
    """What to call contenders in tables: their names; weight files by their stem, or by their path if two agree."""
    short = [Path(name).stem if Path(name).is_file() else name for name in names]
    return [brief if short.count(brief) == 1 else name for name, brief in zip(names, short)]


def contender(
    name: str, scale: int, *, settings: Mapping[str, Any] | None = None, label: str | None = None
) -> Contender:
    """Makes a contender from a reference's name, a network's name or a weight file.

    Args:
        name: see `check_names`.
        scale: 2, 3 or 4.
        label: what to call it; by default as `labels` does.
        settings: arguments of the Upscaler: device, engine, precision, ensemble, window, tile. Unless they say
            otherwise, PyTorch computes in float32, so that figures are the same on every machine; in int8, which it
            lacks, the engine that has it.

    Raises:
        FinescaleError: there are no such weights.
        UsageError: unknown settings, or weights for another scale.
    """
    if name in ("bicubic", PAPERS_BICUBIC):
        return Contender(name, lambda low: resize(low, scale=scale))
    if name == "nearest":
        return Contender(name, lambda low: low.repeat_interleave(scale, 1).repeat_interleave(scale, 2))
    network = store.load(name, scale)
    named = name in NETWORKS or name in ALIASES or not Path(name).is_file()
    path = store.find(name, scale) if named else Path(name)
    cost = count(network)
    settings = settings or {}
    engine = "auto" if settings.get("precision") == "int8" else "torch"
    return Contender(
        label or (name if named else Path(name).stem),
        Upscaler(path or network, **{"engine": engine, "precision": "float32", **settings}).enlarge,
        cost.parameters,
        cost.macs,
        path,
        sha256(path) if path else None,
    )
