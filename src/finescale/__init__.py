"""Finescale: single-image super-resolution.

>>> import finescale
>>> finescale.upscale("photo.jpg", scale=4).save("photo_x4.png")  # doctest: +SKIP
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from finescale.errors import FinescaleError, UsageError

if TYPE_CHECKING:
    from finescale.inference.flow import upscale_file
    from finescale.inference.upscale import Upscaler, upscale
    from finescale.networks.catalogue import names as networks
    from finescale.weights.store import load

__version__ = "0.1.0"
__all__ = ["FinescaleError", "Upscaler", "UsageError", "__version__", "load", "networks", "upscale", "upscale_file"]

_LAZY = {
    "Upscaler": ("finescale.inference.upscale", "Upscaler"),
    "upscale": ("finescale.inference.upscale", "upscale"),
    "upscale_file": ("finescale.inference.flow", "upscale_file"),
    "load": ("finescale.weights.store", "load"),
    "networks": ("finescale.networks", ""),  # the room itself can be called
}


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})


def __getattr__(name: str) -> Any:
    """Imports the public functions when they are first used: torch takes two seconds, and `--help` needs none of it."""
    if name not in _LAZY:
        raise AttributeError(f"module 'finescale' has no attribute '{name}'")
    module, attribute = _LAZY[name]
    value = getattr(import_module(module), attribute) if attribute else import_module(module)
    globals()[name] = value
    return value
