"""Pictures larger than memory: read, enlarged and written strip by strip, resumable at the last finished one."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from finescale.atomic import sha256
from finescale.images.picture import Picture, split
from finescale.images.strips import StripReader, StripWriter
from finescale.inference.tiling import GRID, Progress
from finescale.inference.transparency import REACH
from finescale.inference.upscale import Upscaler, enlarge_samples, share_of

FROM_PIXELS = 64_000_000  # results of more pixels than this go by strips
STRIP_BYTES = 256 << 20  # of the result, about


def upscale_strips(
    source: Path,
    target: Path,
    upscaler: Upscaler,
    *,
    format: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> None:
    """Enlarges a picture file by the network's scale, in memory that does not depend on the picture's height.

    The result is the same as that of the whole picture, but for black and white stored as RGB, which may get a tint.
    If the process is killed, the next call with the same input, network and target goes on after the last finished
    strip.

    Args:
        source: the picture.
        target: a PNG or TIFF file.
        upscaler: what enlarges it.
        format: "png" or "tiff"; by default the target's extension decides.
        overwrite: replace an existing file.
        progress: called with the share that is done; may raise to stop.

    Raises:
        UsageError: the format cannot be written by strips.
        FinescaleError: a file cannot be read or written, or the target exists.
    """
    scale, margin = upscaler.scale, upscaler.engine.margin
    reader = StripReader(source)
    small = reader.layout
    large = replace(small, width=small.width * scale, height=small.height * scale)
    computed = large.row_bytes // large.channels * max(3, large.channels)  # grey goes as colour
    rows = max(GRID, STRIP_BYTES // (computed * scale) // GRID * GRID)
    engine = upscaler.engine_for(np.dtype(np.uint8 if small.bits == 8 else np.uint16))
    around = margin + (REACH if small.channels in (2, 4) else 0)  # of which hidden colours are made
    eight, after = ("eight turns, ", around + GRID) if upscaler.ensemble else ("", around)
    made_by = f"{eight}{engine.name} {engine.precision} {upscaler.source.fingerprint}"
    with StripWriter(target, large, format=format, overwrite=overwrite, resume=f"{sha256(source)} {made_by}") as out:
        for top in range(out.rows // scale // GRID * GRID, small.height, rows):
            bottom = min(top + rows, small.height)
            first, last = max(0, top - around), min(small.height, bottom + after)
            pixels, alpha = split(reader.rows(first, last))
            report = share_of(progress, top / small.height, (bottom - top) / small.height)
            pixels, alpha = enlarge_samples(
                upscaler,
                pixels,
                alpha,
                rows=(top - first, bottom - first),
                below=small.height - last,
                progress=report,
            )
            out.write(top * scale, Picture(pixels, alpha).samples)
        del reader  # it has the picture open, which Windows would not let the result replace
