"""Packing, drawing and downloading with a bar on the screen and a sentence at the end."""

import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from finescale.data import download
from finescale.errors import UsageError, install, nearest
from finescale.images.folders import find_pictures

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


def prepare(
    folders: Sequence[Path],
    out: Path,
    scales: str,
    small: dict[int, Path],
    shrink_missing: bool,
    licence: str,
    workers: int,
    overwrite: bool,
) -> int:
    """Packs all pictures of some folders; 1 if some were left out.

    Raises:
        UsageError, FinescaleError: see `finescale.data.store`.
    """
    from rich.console import Console
    from rich.progress import Progress

    from finescale.data import store

    try:
        wanted = [int(word) for word in scales.split(",")]
    except ValueError as error:
        raise UsageError(f"--scales {scales}: should be such as 2,3,4") from error
    if workers < 1:
        raise UsageError(f"--workers {workers}: should be 1 or more")
    if shrink_missing and not small:
        raise UsageError("--shrink-missing: belongs to --small")
    if small and len(folders) > 1 and not shrink_missing:
        raise UsageError(
            "--small: pairs go by name, so there is one FOLDER of large pictures (others beside it: --shrink-missing)"
        )
    pictures = find_pictures(folders)
    started, left_out = time.monotonic(), 0
    packing = store.prepare(
        pictures,
        out,
        wanted,
        small=small,
        shrink_missing=shrink_missing,
        workers=workers,
        licence=licence,
        overwrite=overwrite,
    )
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        for packed in bar.track(packing, len(pictures), description="packing"):
            if packed.problem:
                left_out += 1
                print(f"finescale: left out: {packed.problem}", file=sys.stderr)
    made = store.Store(out)
    size = (made.size() + sum(made.size(scale) for scale in made.scales)) / 2**20
    print(
        f"{out}: {len(made.items)} pictures, {made.megapixels:.1f} megapixels, {size:.0f} MiB, "
        f"{time.monotonic() - started:.0f} s" + (f"; {left_out} left out" if left_out else "")
    )
    return 1 if left_out else 0


def draw(out: Path, count: int, seed: int, side: int | None, pairs: int | None, overwrite: bool) -> int:
    """Draws pictures, see `finescale.data.graphics`, or pairs for a scale, see `finescale.data.native`.

    Raises:
        UsageError, FinescaleError: see there.
    """
    from rich.console import Console
    from rich.progress import Progress

    from finescale.data import graphics, native

    if count < 1:
        raise UsageError(f"--count {count}: should be 1 or more")
    if seed < 0:
        raise UsageError(f"--seed {seed}: should be 0 or more")
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        seeds = range(seed, seed + count)
        if pairs:
            side = native.SIDE if side is None else side
            drawing = native.draw(out, seeds, pairs, side, overwrite=overwrite)
        else:
            side = graphics.SIDE if side is None else side
            drawing = graphics.draw(out, seeds, side, overwrite=overwrite)
        for _ in bar.track(drawing, count, description="drawing"):
            pass
    fonts = "" if graphics.has_fonts() else f"; in one font only: {install('report')} brings others"
    what = ("pair" if pairs else "picture") + ("" if count == 1 else "s")
    sizes = f"{side} x {side}" + (f" and {pairs * side} x {pairs * side}" if pairs else "")
    print(f"{out}: {count} {what} of {sizes}{fonts}")
    return 0


def get(names: Sequence[str], out: Path | None) -> int:
    """Downloads sets and classifiers (encoders and perceptual losses start from them) by name, or lists the sets.

    Raises:
        UsageError: an unknown name.
        FinescaleError: see `finescale.data.download`.
    """
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    sources = download.sources()
    if not names:
        for source in sources.values():
            size = f"{source.size / 2**20:,.0f} MiB" if source.size else "size unknown"
            print(f"{source.name:14} {source.pictures:5} pictures  {size:>14}  {source.about}")
        return 0
    wanted, classifiers = list[download.Source](), list[str]()
    for name in names:
        # "DIV2K" means both of its parts
        matches = [
            s for key, s in sources.items() if key.lower() == name.lower() or key.lower().startswith(f"{name.lower()}_")
        ]
        if not matches:
            from finescale.backbones.catalogue import BACKBONES  # imports torch

            if name not in BACKBONES:
                known = [*sources, *BACKBONES]
                raise UsageError(f"there is no data set '{name}'{nearest(name, known)} (known: {', '.join(known)})")
            classifiers.append(name)
        wanted += matches
    folder = out or download.datasets_folder()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    for source in wanted:
        with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
            report = partial(_show, bar, bar.add_task(source.name, total=source.size))
            place = download.get(source, folder, progress=report)
        print(f"{place}: {source.about}")
        for remark in download.remarks(source, place):
            print(f"finescale: {remark}", file=sys.stderr)
    for name in classifiers:
        from finescale.backbones.catalogue import find

        with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
            file = find(name, download=True, progress=partial(_show, bar, bar.add_task(name, total=None)))
        print(f"{file}: weights of {name}")
    return 0


def _show(bar: "Progress", task: "TaskID", done: int, total: int | None) -> None:
    bar.update(task, completed=done, total=total)
