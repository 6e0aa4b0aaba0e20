"""The folder of what was downloaded or computed and can be again."""

import os
from pathlib import Path


def cache_folder(kind: str) -> Path:
    """`$XDG_CACHE_HOME/finescale/KIND` (by default under `~/.cache`); it may not exist yet."""
    return xdg("XDG_CACHE_HOME", ".cache") / "finescale" / kind


def xdg(variable: str, usual: str) -> Path:
    """A folder of the XDG base directories: of the variable (a relative path is to be ignored), or under the home."""
    base = Path(os.environ.get(variable, ""))
    return base if base.is_absolute() else home() / usual


def home() -> Path:
    """The user's home; the root where there is none, as containers have it.

    Then nothing can be kept, and all works but downloads.
    """
    try:
        return Path.home()
    except RuntimeError:
        return Path(os.sep)
