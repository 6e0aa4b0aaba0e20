"""Where the weights of perceptual metrics are found, and where to put them."""

import os
from pathlib import Path

from finescale.cache import cache_folder, home


def find(name: str, *more: Path) -> Path | None:
    """A file in `$FINESCALE_WEIGHTS`, in the `weights` folder of `$FINESCALE_DATA`, in the cache, or in `more`."""
    weights, data = os.environ.get("FINESCALE_WEIGHTS"), os.environ.get("FINESCALE_DATA")
    folders = [Path(weights)] if weights else []
    folders += [Path(data) / "weights"] if data else []
    folders += [cache_folder("weights"), *more]
    paths = (folder / name for folder in folders)
    return next((path for path in paths if os.path.isfile(path)), None)  # noqa: PTH113 (as a home may not be entered)


def places() -> str:
    """Where a person puts such a file: "~/.cache/finescale/weights or the folder $FINESCALE_WEIGHTS"."""
    folder = cache_folder("weights")
    if folder.is_relative_to(home()):
        folder = "~" / folder.relative_to(home())
    return f"{folder} or the folder $FINESCALE_WEIGHTS"
