"""Distillation: a store whose large pictures are mixed with what a network, the teacher, makes of the small ones.

Most of the detail that a network is trained towards cannot be told from the small picture; to training it is noise. The
teacher's pictures have only what can be told. The teacher may be the network itself, averaged over the eight flips and
turns of every picture (Radosavovic et al. 2018, "Data Distillation", arXiv 1712.04440).
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from finescale.data.store import Store, check_new, new_store
from finescale.errors import UsageError
from finescale.inference.upscale import Upscaler
from finescale.weights.header import read_header, sha256

SHARE = 0.75  # of the teacher's pictures


def distil(
    store: Store,
    weights: Path,
    folder: Path,
    *,
    share: float = SHARE,
    every: int = 1,
    device: str = "auto",
    overwrite: bool = False,
) -> Iterator[str]:
    """Makes a store for the scale of some weights, yielding the name of every picture that is in it.

    A large picture of it is `share` parts of the teacher's and 1 - share of the original, rounded to 8 bits. The small
    pictures are the same.

    Args:
        store: of original pictures.
        weights: the teacher's file.
        folder: the store to make; put in place when it is complete.
        share: from above 0 to 1.
        every: take only every n-th picture, where the teacher is slow.
        device: what the teacher computes on.
        overwrite: replace a store that is there.

    Raises:
        UsageError: `share` or `every` is out of range, `folder` is there, or `store` is distilled itself.
        FinescaleError: the store has no pictures for the scale, the weights are damaged, or the disk is full.
    """
    if not 0 < share <= 1:
        raise UsageError(f"the share of the teacher is above 0 and at most 1, not {share:g}")
    if every < 1:
        raise UsageError(f"every picture, every second one ...: 1 or more, not {every}")
    if store.teacher is not None:
        raise UsageError(f"{store.folder}: is distilled already; give the store that it was made from")
    check_new(folder, overwrite)
    header = read_header(weights)
    store.flat(header.scale)
    teacher = {"network": header.name, "sha256": sha256(weights), "ensemble": True, "share": share}
    chosen = range(0, len(store.items), every)
    return _fill(store, chosen, weights, folder, header.scale, share, device, teacher)


def _fill(
    store: Store,
    chosen: Sequence[int],
    weights: Path,
    folder: Path,
    scale: int,
    share: float,
    device: str,
    teacher: Mapping[str, object],
) -> Iterator[str]:
    precision = Upscaler(weights, device=device).engine.precision  # the fastest: what float32 adds is rounded away
    upscaler = Upscaler(weights, device=device, precision=precision, ensemble=True)
    with new_store(folder, [scale], {"licence": store.licence, "teacher": teacher}) as add:
        for i in chosen:
            high, low = (store.picture(i, s).permute(1, 2, 0).numpy().copy() for s in (1, scale))
            taught = upscaler.pixels(low)
            for first in range(0, len(high), 64):  # by few rows: floats take four times the room
                rows = slice(first, first + 64)
                mixed = (1 - np.float32(share)) * high[rows] + np.float32(share) * taught[rows]
                high[rows] = np.rint(mixed)
            add(store.items[i].name, [high, low])
            yield store.items[i].name
