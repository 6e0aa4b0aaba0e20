"""Finescale: single-image super-resolution.

>>> import finescale
>>> finescale.upscale("photo.jpg", scale=4).save("photo_x4.png")  # doctest: +SKIP
"""

import sys
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from finescale.errors import FinescaleError, ShortOfMemoryError, TakenError, TooLargeError, UsageError

if TYPE_CHECKING:
    from finescale.inference.flow import upscale_file
    from finescale.inference.upscale import Upscaler, upscale
    from finescale.weights.store import load

__version__ = "0.1.0"
__all__ = [
    "FinescaleError",
    "ShortOfMemoryError",
    "TakenError",
    "TooLargeError",
    "Upscaler",
    "UsageError",
    "__version__",
    "load",
    "networks",
    "upscale",
    "upscale_file",
]

_LAZY = {
    "Upscaler": ("finescale.inference.upscale", "Upscaler"),
    "upscale": ("finescale.inference.upscale", "upscale"),
    "upscale_file": ("finescale.inference.flow", "upscale_file"),
    "load": ("finescale.weights.store", "load"),
}


def open_room(package: str) -> None:
    """Lets the modules of a package be used by their dotted paths: each is imported when it is first asked for."""
    vars(sys.modules[package]).update(__getattr__=partial(_module, package), __dir__=partial(_names, package))


def _module(package: str, name: str) -> ModuleType:
    from importlib.util import find_spec  # here, as it takes longer to import than this package

    if name.startswith("_") or find_spec(f"{package}.{name}") is None:
        raise AttributeError(f"module '{package}' has no attribute '{name}'")
    return import_module(f"{package}.{name}")


def _names(package: str) -> list[str]:
    from pkgutil import iter_modules

    module = sys.modules[package]
    return sorted({*vars(module), *(found.name for found in iter_modules(module.__path__))})


def list_networks(*, trained: bool = False) -> list[str]:
    """Names of networks, in the order of the catalogue; to be called as `finescale.networks()`.

    Args:
        trained: only those whose weights are on this machine, for one scale or more (so not bicubic, which has none),
            and weights of one's own; not those whose class this program lacks. Damaged files are warnings.
    """
    if trained:
        from finescale.weights.store import available

        return list(dict.fromkeys(found.name for found in available()))
    from finescale.networks.catalogue import NETWORKS

    return list(NETWORKS)


if TYPE_CHECKING:
    networks = list_networks  # the room of that name can be called


def __dir__() -> list[str]:
    return sorted({*_names(__name__), *_LAZY})


def __getattr__(name: str) -> Any:
    """Imports functions and rooms when they are first used: torch takes two seconds, and `--help` needs none of it."""
    if name not in _LAZY:
        return _module(__name__, name)
    module, attribute = _LAZY[name]
    value = getattr(import_module(module), attribute)
    globals()[name] = value
    return value
