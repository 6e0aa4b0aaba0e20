"""Super-resolution networks, all of them named in `catalogue`; `finescale.networks()` lists the names."""

import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

# here, not in the catalogue, for those who want the names without importing torch
DEFAULT = "sa-rcan-light"
FOR_JPEG = "sa-rcan-light-jpeg"
FOR_GRAPHICS = "sa-rcan-light-graphics"


def __getattr__(name: str) -> ModuleType:
    """Imports `finescale.networks.catalogue` and its neighbours when they are first used, with torch."""
    if name.startswith("_") or find_spec(f"{__name__}.{name}") is None:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return import_module(f"{__name__}.{name}")


class _Callable(ModuleType):
    # this room and the public function share a name, and an import of the room would hide the function
    def __call__(self) -> list[str]:
        """Names of all networks of the catalogue; `finescale.weights.store.available()` tells which have weights."""
        from finescale.networks.catalogue import names

        return names()


sys.modules[__name__].__class__ = _Callable
