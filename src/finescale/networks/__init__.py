"""Super-resolution networks, all of them named in `catalogue`; `finescale.networks()` lists the names."""

import sys
from types import ModuleType

from finescale import list_networks, open_room

# here, not in the catalogue, for those who want the names without importing torch
DEFAULT = "sa-rcan-light"
AUTO = "auto"  # for each picture the one that suits it, see `finescale.inference.advice`
FOR_JPEG = "sa-rcan-light-jpeg"
FOR_NOISE = "sa-rcan-light-noise"
FOR_GRAPHICS = "sa-rcan-light-graphics"
FOR_OTHERS = (FOR_JPEG, FOR_NOISE, FOR_GRAPHICS)
SHORT = {kind: f"sa-rcan-light-{kind}" for kind in ("jpeg", "noise", "graphics", "perceptual")}

open_room(__name__)


class _Callable(ModuleType):
    # this room and the public function share a name, and an import of the room would hide the function
    def __call__(self, *, trained: bool = False) -> list[str]:
        """See `finescale.list_networks`."""
        return list_networks(trained=trained)


sys.modules[__name__].__class__ = _Callable
