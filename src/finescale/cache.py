"""The folder of what was downloaded or computed and can be again."""

import os
from pathlib import Path


def cache_folder(kind: str) -> Path:
    """`$XDG_CACHE_HOME/finescale/KIND` (by default under `~/.cache`); it may not exist yet."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "finescale" / kind
