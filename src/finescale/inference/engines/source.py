"""Where an engine gets its network from; torch is imported only if the network itself is needed."""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from finescale.networks.base import Network


class Source:
    """A network, or a weight file that is read only when the network is needed.

    Args:
        network: either of them.
        window: of the local statistics in input pixels; None: global.
    """

    def __init__(self, network: "Network | Path", window: int | None) -> None:
        self._network, self.window = network, window

    def fingerprint(self) -> str:
        """A digest of the weights and of what the network is."""
        if isinstance(self._network, Path):
            from finescale.weights.header import sha256

            return f"file {sha256(self._network)} {self.window}"
        import torch

        digest = hashlib.sha256(repr(type(self._network)).encode())
        config = self._network.config
        if config is not None:
            digest.update(json.dumps(dict(config.arguments), sort_keys=True, default=repr).encode())
        for name, value in self._network.state_dict().items():
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        return f"state {digest.hexdigest()} {self.window}"

    def prepared(self) -> "Network":
        """A copy of the network to compute with, see `finescale.inference.prepare.for_inference`."""
        from finescale.inference.engines import compiled
        from finescale.inference.prepare import for_inference, gate_limits

        network = self._network
        if isinstance(network, Path):
            from finescale.weights.files import load

            network = load(network)
        name = compiled.key(weights=self.fingerprint(), engine="gates")
        stored = compiled.read(name)
        prepared = for_inference(network, self.window, stored and stored[0]["gates"])
        if stored is None and (found := gate_limits(prepared)):
            compiled.write(name, {"gates": found}, b"")
        return prepared
