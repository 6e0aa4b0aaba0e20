"""Where an engine gets its network from; torch is imported only if the network itself is needed."""

import copy
import hashlib
import json
import sys
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import finescale
from finescale.atomic import sha256
from finescale.errors import FinescaleError

if TYPE_CHECKING:
    import torch

    from finescale.networks.base import Network


class Source:
    """A network, or a weight file that is read only when the network is needed, and is to be the same then.

    Args:
        network: either of them.
        window: of the local statistics in input pixels; None: global.
    """

    def __init__(self, network: "Network | Path", window: int | None) -> None:
        self._network, self.window = network, window
        self._digest = sha256(network) if isinstance(network, Path) else ""

    @cached_property
    def fingerprint(self) -> str:
        """A digest of the weights and of what the network does with them, as it is when this is first asked for."""
        network = self._network
        if isinstance(network, Path):
            if not _is_own(network):
                return f"file {self._digest} {_code()} {self.window}"
            network = self._loaded(network)
        kind, config = type(network), network.config
        digest = hashlib.sha256(f"{kind} {network.scale} {network.multiple} {network.context}".encode())
        if config is not None:
            digest.update(json.dumps(dict(config.arguments), sort_keys=True, default=repr).encode())
        for name, value in network.state_dict().items():
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(_bytes(value))
        digest.update(_bytes(_sample(network, self.window)))
        return f"state {digest.hexdigest()} {self.window}"

    def prepared(self) -> "Network":
        """A copy of the network to compute with, see `finescale.inference.prepare.for_inference`.

        Raises:
            FinescaleError: the file is gone, or has changed since this was made.
        """
        from finescale.inference.engines import compiled
        from finescale.inference.prepare import for_inference, gate_limits

        network = self._network
        if isinstance(network, Path):
            network = self._loaded(network)
        if self.window is None:
            return for_inference(network, None)
        name = compiled.key(weights=self.fingerprint, engine="gates")
        stored = compiled.read(name)
        prepared = for_inference(network, self.window, stored and stored[0]["gates"])
        if stored is None and (found := gate_limits(prepared)):
            compiled.write(name, {"gates": found}, b"")
        return prepared

    def _loaded(self, path: Path) -> "Network":
        from finescale.weights.files import load

        network = load(path)
        if sha256(path) != self._digest:
            raise FinescaleError(f"{path}: the weight file has changed since it was loaded")
        return network


def _bytes(x: "torch.Tensor") -> memoryview:
    import torch

    return x.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data


def _sample(network: "Network", window: int | None) -> "torch.Tensor":
    """What the network makes of a little noise: of its code, and of numbers beside its weights, nothing else tells."""
    import torch

    from finescale.inference.prepare import exactly
    from finescale.layers.statistics import localise

    clone = copy.deepcopy(network).float().eval()
    localise(clone, window)
    noise = torch.rand(1, 3, 16, 32, generator=torch.Generator("cpu").manual_seed(0), dtype=torch.float32, device="cpu")
    device = next(clone.parameters(), noise).device
    with exactly(device):
        sample: torch.Tensor = clone(noise.to(device))
    return sample


def _is_own(path: Path) -> bool:
    """Whether the network of a weight file is of a class that is a program's own, and not Finescale's."""
    catalogue = sys.modules.get("finescale.networks.catalogue")
    if catalogue is None:  # where nobody has imported it, nobody has put a network into it
        return False
    from finescale.weights.header import read_header

    header = read_header(path)
    kind = catalogue.architecture(header.name, header.architecture)
    return kind is not None and not kind.__module__.startswith("finescale.")


@cache
def _code() -> str:
    """A digest of the code that networks are made of: somebody may be working on it.

    Where there is no text of it, as in a frozen program, its version tells.
    """
    digest = hashlib.sha256(finescale.__version__.encode())
    for room in ("layers", "backbones", "networks"):
        for file in sorted((Path(finescale.__file__).parent / room).glob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()
