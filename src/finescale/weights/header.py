"""What a weight file says of itself; needs neither torch nor the network."""

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from finescale.errors import FinescaleError

FORMAT = "finescale-1"
# What is in a file and is not trained: mean shifts, and the states of norms.
_KEPT = re.compile(r"(.*\.)?((sub|add)_mean\.(weight|bias)|_[uv]|running_(mean|var)|num_batches_tracked)")


@dataclass(frozen=True)
class Header:
    """What a weight file says of itself.

    Attributes:
        name: the network's name in the catalogue when it was trained.
        architecture: class name.
        arguments: of the constructor, complete.
        notes: training data, budget, licence, measured figures ...: JSON values, for people and tables. Weights that
            started from others' tell of these in `started_from`, see `told`.
    """

    name: str
    architecture: str
    arguments: Mapping[str, Any]
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def scale(self) -> int:
        """Enlargement factor."""
        return int(self.arguments["scale"])


def told(notes: Mapping[str, Any]) -> dict[str, Any]:
    """Of a file's notes, what weights that start from it tell: its licence, and what it started from itself."""
    return {key: notes[key] for key in ("licence", "started_from") if key in notes}


def read_header(path: str | os.PathLike[str]) -> Header:
    """Reads what a weight file says of itself.

    Raises:
        FinescaleError: it is not there, damaged, or not one of Finescale's weight files.
    """
    path = Path(path)
    try:
        with safe_open(str(path), framework="np") as file:
            metadata = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        if isinstance(error, SafetensorError) and path.suffix.lower() != ".safetensors":
            raise FinescaleError(
                f"{path}: not a safetensors file; `finescale convert` makes one from the authors' or BasicSR's files "
                "of rcan, edsr, edsr-baseline, rrdbnet (ESRGAN and Real-ESRGAN) and srvgg (Real-ESRGAN's small one); "
                "files of other networks are not read"
            ) from error
        raise FinescaleError(f"{path}: not a readable safetensors file ({error})") from error
    if metadata.get("format") != FORMAT:
        raise FinescaleError(f"{path}: not a Finescale weight file (its metadata do not say which network it is)")
    try:
        arguments, notes = json.loads(metadata["arguments"]), json.loads(metadata.get("notes", "{}"))
        if not isinstance(arguments, dict) or not isinstance(notes, dict) or arguments.get("scale") not in (2, 3, 4):
            raise ValueError("its arguments are not those of a network")
        return Header(metadata["name"], metadata["architecture"], arguments, notes)
    except (KeyError, ValueError) as error:
        raise FinescaleError(f"{path}: damaged metadata ({error})") from error


def parameters(path: str | os.PathLike[str]) -> int:
    """How many trained numbers a weight file holds, by its table of contents.

    Raises:
        OSError, SafetensorError: it cannot be read.
    """
    with safe_open(str(path), framework="np") as file:
        names = [name for name in file.keys() if not _KEPT.fullmatch(name)]  # noqa: SIM118
        return sum(math.prod(file.get_slice(name).get_shape()) for name in names)
