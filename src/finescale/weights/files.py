"""Weight files: safetensors that explain themselves.

The metadata of a file say which network it is (class and every argument), at which scale, and how it came to be.
Nothing is guessed from shapes and nothing is unpickled.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save as serialise
from torch import Tensor

from finescale.atomic import check_target, new_file
from finescale.errors import FinescaleError, UsageError
from finescale.networks.base import Network
from finescale.networks.catalogue import architecture, construct
from finescale.weights.header import FORMAT, read_header, sha256


def save(
    network: Network,
    path: Path,
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
        notes: see `Header.notes`.
        state: weights to write instead of the network's own (averaged ones).
        dtype: floating-point tensors are stored so, but those that have no room in it stay as they are.

    Raises:
        FinescaleError: the file cannot be written.
    """
    if network.config is None:
        raise ValueError("only networks built by the catalogue record how to build them again")
    config = network.config
    tensors = {key: _stored(value.detach().cpu(), dtype) for key, value in (state or network.state_dict()).items()}
    metadata = {
        "format": FORMAT,
        "name": config.name,
        "architecture": config.architecture,
        "arguments": json.dumps(config.arguments),
        "notes": json.dumps(notes or {}),
    }
    with new_file(path, overwrite=True) as file:
        file.write(serialise(tensors, metadata=metadata))


def convert(
    source: Path, name: str, scale: int, path: Path, *, licence: str | None = None, overwrite: bool = False
) -> None:
    """Writes an authors' weight file as a self-describing one, in float32, so that its figures are the authors'.

    Args:
        source, name, scale: see `finescale.networks.published.load_official`.
        path: the file to write; it ends in .safetensors.
        licence: of the weights, for the notes.
        overwrite: replace an existing file.

    Raises:
        UsageError: another network or another kind of file name.
        FinescaleError: the authors' file cannot be read or does not fit, or the new one cannot be written.
    """
    from finescale.networks.published import load_official

    if path.suffix != ".safetensors":
        raise UsageError(f"{path}: weight files end in .safetensors")
    check_target(path, overwrite)
    network = load_official(source, name, scale)
    notes: dict[str, Any] = {"converted": {"file": source.name, "sha256": sha256(source)}}
    if licence:
        notes["licence"] = licence
    save(network, path, notes=notes, dtype=torch.float32)


def _stored(value: Tensor, dtype: torch.dtype) -> Tensor:
    if value.is_floating_point():
        small = value.to(dtype)
        if bool(small.isfinite().all()) or not bool(value.isfinite().all()):
            value = small
    return value.contiguous().clone()  # layers may share a tensor, safetensors may not


def load(path: Path) -> Network:
    """Builds the network a weight file describes and fills it: float32, on the CPU, in evaluation mode.

    Raises:
        FinescaleError: as `read_header`, or the weights do not fit the network.
    """
    header = read_header(path)
    kind = architecture(header.name, header.architecture)
    if kind is None:
        raise FinescaleError(
            f"{path}: made for a network class '{header.architecture}' that this version lacks (a program puts its own "
            "into finescale.networks.catalogue.NETWORKS)"
        )
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):  # neither heeds nor changes the program's own settings
        try:
            network = construct(header.name, kind, header.arguments).float()
        except UsageError as error:  # of another version, or damaged
            raise FinescaleError(f"{path}: {error}") from error
    with safe_open(str(path), framework="pt") as file:
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise FinescaleError(f"{path}: the weights do not fit {header.name} ({reason})") from error
    return network.eval()
