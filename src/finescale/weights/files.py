"""Weight files: safetensors that explain themselves.

The metadata of a file say which network it is (class and every argument), at which scale, and how it came to be.
Nothing is guessed from shapes and nothing is unpickled.
"""

import json
import math
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save as serialise
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from finescale.atomic import check_target, new_file, sha256
from finescale.errors import FinescaleError, UsageError, misfit
from finescale.networks.base import Network, check_network
from finescale.networks.catalogue import architecture, construct
from finescale.weights.header import FORMAT, read_header, told


def save(
    network: Network,
    path: str | os.PathLike[str],
    *,
    notes: Mapping[str, Any] | None = None,
    state: Mapping[str, Tensor] | None = None,
    dtype: torch.dtype = torch.float16,
) -> None:
    """Writes a self-describing weight file: whole or not at all.

    Args:
        network: built by the catalogue. Its `config` is recorded and not its layers: a file of a network whose layers
            were exchanged for others by hand is built again with the old ones.
        path: the file; an existing one is replaced.
        notes: see `Header.notes`; of a network that was loaded, the licence it started from (`started_from`) is added,
            unless they tell a licence of their own.
        state: weights to write instead of the network's own (averaged ones).
        dtype: floating-point tensors are stored so, but those that have no room in it stay as they are.

    Raises:
        UsageError: no network, or one that its class alone built; weights of another one; no floating-point dtype.
        FinescaleError: the file cannot be written.
    """
    check_network(network)
    config = network.config
    if config is None:
        raise UsageError(
            "only networks that finescale.networks.catalogue.build makes, by a name in NETWORKS there, record how to "
            "build them again"
        )
    if not dtype.is_floating_point:
        raise UsageError(f"weights are stored as floating-point numbers, not as {dtype}")
    if state is not None and (wrong := state.keys() ^ network.state_dict().keys()):
        raise UsageError(f"these are not the weights of {config.name}: {min(wrong)} is in one of both alone")
    notes = dict(notes or {})
    if (start := told(network.notes)) and "licence" not in notes:
        notes = {"started_from": start, **notes}
    tensors = {key: _stored(value.detach().cpu(), dtype) for key, value in (state or network.state_dict()).items()}
    metadata = {
        "format": FORMAT,
        "name": config.name,
        "architecture": config.architecture,
        "arguments": json.dumps(config.arguments),
        "notes": json.dumps(notes),
    }
    with new_file(path, overwrite=True) as file:
        file.write(serialise(tensors, metadata=metadata))


def convert(
    source: str | os.PathLike[str],
    name: str | None,
    scale: int | None,
    path: str | os.PathLike[str],
    *,
    licence: str | None = None,
    overwrite: bool = False,
) -> Network:
    """Writes a weight file of the authors, or of BasicSR, as a self-describing one, in float32: its figures are theirs.

    Gives the network that is in it.

    Args:
        source, name, scale: see `finescale.weights.official.load_official`.
        path: the file to write; it ends in .safetensors.
        licence: of the weights, for the notes.
        overwrite: replace an existing file.

    Raises:
        UsageError: another network or another kind of file name.
        FinescaleError: the authors' file cannot be read or does not fit, or the new one cannot be written.
    """
    from finescale.weights.official import load_official

    source, path = Path(source), Path(path)
    if path.suffix != ".safetensors":
        raise UsageError(f"{path}: weight files end in .safetensors")
    check_target(path, overwrite)
    network = load_official(source, name, scale)
    notes: dict[str, Any] = {"converted": {"file": source.name, "sha256": sha256(source)}}
    if licence:
        notes["licence"] = licence
    save(network, path, notes=notes, dtype=torch.float32)
    return network


class _OwnStart(TorchFunctionMode):
    """Within it, and in this thread alone, our networks' start takes no numbers from the program's generator.

    Nor does it take much more memory than the weights that are there will fill: the arguments in a file may say
    anything.

    Raises:
        UsageError: it would.
    """

    def __init__(self, weights: Collection[Tensor]) -> None:
        super().__init__()
        self._generator = torch.Generator("cpu").manual_seed(0)
        self._numbers = 8 * sum(weight.numel() for weight in weights) + (1 << 20)
        self._tensors = 8 * len(weights) + 1000

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _RANDOM:
            kwargs["generator"] = kwargs.get("generator") or self._generator
        if func is not torch.empty:  # of which layers make their weights
            return func(*args, **kwargs)
        size = args[0] if args and isinstance(args[0], Sequence) else args
        self._numbers, self._tensors = self._numbers - math.prod(size), self._tensors - 1
        if self._numbers < 0 or self._tensors < 0:
            raise UsageError("its arguments are those of a larger network than its weights")
        return func(*args, **kwargs)


_RANDOM = {
    *(torch.rand, torch.randn, torch.randint, torch.randperm, torch.Tensor.normal_, torch.Tensor.uniform_),
    *(nn.init.uniform_, nn.init.normal_, nn.init.trunc_normal_, nn.init.orthogonal_),
    *(nn.init.kaiming_uniform_, nn.init.kaiming_normal_, nn.init.xavier_uniform_, nn.init.xavier_normal_),
}


def _stored(value: Tensor, dtype: torch.dtype) -> Tensor:
    if value.is_floating_point():
        small = value.to(dtype)
        if bool(small.isfinite().all()) or not bool(value.isfinite().all()):
            value = small
    return value.contiguous().clone()  # layers may share a tensor, safetensors may not


def load(path: str | os.PathLike[str]) -> Network:
    """Builds the network a weight file describes and fills it: float32, on the CPU, in evaluation mode.

    What the file says of its training and licence is in the network's `notes`.

    Raises:
        FinescaleError: as `read_header`, or the weights do not fit the network.
    """
    path = Path(path)
    header = read_header(path)
    kind = architecture(header.name, header.architecture)
    if kind is None:
        raise FinescaleError(
            f"{path}: made for a network class '{header.architecture}' that this version lacks (a program puts its own "
            "into finescale.networks.catalogue.NETWORKS)"
        )
    with safe_open(str(path), framework="pt") as file:
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    # neither heeds nor changes the program's own settings; what a network of its own draws, nobody knows
    ours = kind.__module__.startswith("finescale.")
    with _OwnStart(state.values()) if ours else torch.random.fork_rng(devices=[]), torch.device("cpu"):
        try:
            network = construct(header.name, kind, header.arguments).float()
        except UsageError as error:  # of another version, or damaged
            raise FinescaleError(f"{path}: {error}") from error
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise FinescaleError(f"{path}: the weights do not fit {header.name} ({misfit(error)})") from error
    network.notes = dict(header.notes)
    return network.eval()
