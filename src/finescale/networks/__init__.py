"""Super-resolution networks, all of them named in `catalogue`; `finescale.networks()` lists the names."""

import sys
from types import ModuleType

DEFAULT = "sa-rcan-light"  # here, not in the catalogue, for those who want the name without importing torch


class _Callable(ModuleType):
    # this room and the public function share a name, and an import of the room would hide the function
    def __call__(self) -> list[str]:
        """Names of all networks."""
        from finescale.networks.catalogue import names

        return names()


sys.modules[__name__].__class__ = _Callable
