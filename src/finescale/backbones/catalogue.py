"""Every backbone by name, and where its published ImageNet weights are found.

Weights are looked for as a path that the caller gives, in `$FINESCALE_WEIGHTS` (a folder), in Finescale's cache, in
torch.hub's own cache, and then, if asked, at the publisher's address. A publisher's file carries the first eight digits
of its SHA-256 in its name: a file of that name, found or downloaded, is used only if they agree. A file under any other
name (`resnet34.pth`, `resnet34.safetensors`, a path) is the caller's own: its names and shapes are checked, not its
hash.
"""

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from finescale.atomic import sha256
from finescale.backbones.alexnet import AlexNet
from finescale.backbones.resnest import resnest50
from finescale.backbones.resnet import resnet
from finescale.backbones.squeezenet import SqueezeNet
from finescale.backbones.vgg import VGG
from finescale.cache import cache_folder
from finescale.errors import FinescaleError, check_known, misfit
from finescale.fetch import Report, fetch

_TORCHVISION = "https://download.pytorch.org/models/"
_RESNEST = "https://github.com/zhanghang1989/ResNeSt/releases/download/weights_step1/"
_WRAPPERS = ("params_ema", "params", "state_dict", "model")


@dataclass(frozen=True)
class Backbone:
    """A published classifier.

    Attributes:
        build: makes it; the keyword `classifier` says whether with its classifier.
        head: prefix of the names of the classifier's parameters.
        folder: the publisher's address.
        file: the publisher's file, NAME-xxxxxxxx.pth, x the first digits of its SHA-256.
    """

    build: Callable[..., nn.Module]
    head: str
    folder: str
    file: str

    @property
    def hash_prefix(self) -> str:
        """The first eight hexadecimal digits of the file's SHA-256."""
        return Path(self.file).stem.rpartition("-")[2]


BACKBONES: Mapping[str, Backbone] = {
    "resnet18": Backbone(partial(resnet, "resnet18"), "fc.", _TORCHVISION, "resnet18-f37072fd.pth"),
    "resnet34": Backbone(partial(resnet, "resnet34"), "fc.", _TORCHVISION, "resnet34-b627a593.pth"),
    "resnet50": Backbone(partial(resnet, "resnet50"), "fc.", _TORCHVISION, "resnet50-0676ba61.pth"),
    "resnext50_32x4d": Backbone(
        partial(resnet, "resnext50_32x4d"), "fc.", _TORCHVISION, "resnext50_32x4d-7cdf4587.pth"
    ),
    "resnest50": Backbone(resnest50, "fc.", _RESNEST, "resnest50-528c19ca.pth"),
    "vgg16": Backbone(partial(VGG, 16), "classifier.", _TORCHVISION, "vgg16-397923af.pth"),
    "vgg19": Backbone(partial(VGG, 19), "classifier.", _TORCHVISION, "vgg19-dcbb9e9d.pth"),
    "squeezenet1_1": Backbone(SqueezeNet, "classifier.", _TORCHVISION, "squeezenet1_1-b8a52dc0.pth"),
    "alexnet": Backbone(AlexNet, "classifier.", _TORCHVISION, "alexnet-owt-7be5be79.pth"),
}


def _entry(name: str) -> Backbone:
    check_known("backbone", name, BACKBONES)
    return BACKBONES[name]


def build(name: str, *, classifier: bool = True) -> nn.Module:
    """A backbone with random weights.

    Raises:
        UsageError: unknown name.
    """
    return _entry(name).build(classifier=classifier)


def find(
    name: str,
    path: str | os.PathLike[str] | None = None,
    *,
    download: bool = False,
    progress: Report | None = None,
) -> Path | None:
    """The weight file of a backbone, or None where there is none.

    Args:
        name: of the backbone.
        path: a file to use, instead of searching.
        download: download the publisher's file into the cache if nothing is found here.
        progress: told of the download; None: the log "finescale" has a line of it.

    Raises:
        UsageError: unknown name.
        FinescaleError: `path` is not there, a publisher's file is damaged, or the download failed.
    """
    entry = _entry(name)
    if path is not None:
        path = Path(path)
        if not path.is_file():
            raise FinescaleError(f"{path}: there is no such weight file for {name}")
        return path
    named = os.environ.get("FINESCALE_WEIGHTS")
    cache = cache_folder("backbones")
    folders = [Path(named)] if named else []
    folders += [cache, Path(torch.hub.get_dir()) / "checkpoints"]
    for folder in folders:
        for file in (entry.file, f"{name}.safetensors", f"{name}.pth"):
            if os.path.isfile(folder / file):  # noqa: PTH113 (as a home may not be entered)
                if file == entry.file:
                    _verify(folder / file, entry.hash_prefix)
                return folder / file
    if not download:
        return None
    address = entry.folder + entry.file
    if not progress:  # up to 548 MiB
        logging.getLogger("finescale").warning("%s: is being downloaded", address)
    fetch(address, cache / entry.file, sha256=entry.hash_prefix, progress=progress)
    return cache / entry.file


def require(name: str, path: str | os.PathLike[str] | None = None, *, download: bool = False) -> Path:
    """As `find`, but there has to be one.

    Raises:
        UsageError: unknown name.
        FinescaleError: there is none; otherwise as `find`.
    """
    found = find(name, path, download=download)
    if found is None:
        entry = _entry(name)
        raise FinescaleError(
            f"there are no {name} weights on this machine: put {entry.file} (from {entry.folder}) into "
            f"{cache_folder('backbones')} or the folder $FINESCALE_WEIGHTS, or name a file"
        )
    return found


def read_state(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The state dict in a `.safetensors` file or a foreign `.pth` file (read with `weights_only`, never unpickled).

    One that a training program put under a key of its own ("params_ema", "params", "state_dict" or "model") is taken
    out, if only one of these holds one, and the "module." that `nn.DataParallel` puts before all names is taken away.

    Raises:
        FinescaleError: it cannot be read, or holds something else.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(str(path))
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise FinescaleError(f"{path}: there is no such file") from error
    except Exception as error:  # torch and safetensors raise many kinds for a damaged file
        # torch goes on to recommend unpickling, and says nothing of an empty file
        reason = (str(error) or "it ends too early").splitlines()[0].partition(". ")[0]
        raise FinescaleError(f"{path}: not a readable weight file ({reason})") from error
    if not isinstance(state, Mapping):
        raise FinescaleError(f"{path}: not a state dict (a mapping from names to tensors)")
    wrapped = [inner for key in _WRAPPERS if _is_state(inner := state.get(key)) and inner]
    if len(wrapped) == 1:
        return _without_module(wrapped[0])
    if wrapped:
        held = ", ".join(key for key in _WRAPPERS if state.get(key))
        raise FinescaleError(f"{path}: holds several state dicts ({held}); save the one that is meant by itself")
    if not _is_state(state):
        keys = ", ".join(map(str, list(state)[:8])) or "none"
        raise FinescaleError(f"{path}: not a state dict (a mapping from names to tensors); its keys are: {keys}")
    return _without_module(state)


def _is_state(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())


def _without_module(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    prefix = "module." if all(key.startswith("module.") for key in state) else ""
    return {key.removeprefix(prefix): value for key, value in state.items()}


def load(
    name: str, path: str | os.PathLike[str] | None = None, *, classifier: bool = True, download: bool = False
) -> nn.Module:
    """A backbone with its published weights: float32, on the CPU, in evaluation mode; names and shapes are strict.

    Args:
        name: of the backbone.
        path: a weight file, instead of searching.
        classifier: with its head; without, the head's tensors in the file are left aside.
        download: see `find`.

    Raises:
        UsageError: unknown name.
        FinescaleError: there are no weights, or they do not fit.
    """
    entry = _entry(name)
    found = require(name, path, download=download)
    state = read_state(found)
    if not classifier:
        state = {key: value for key, value in state.items() if not key.startswith(entry.head)}
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):  # whatever the program has set
        network = entry.build(classifier=classifier)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise FinescaleError(f"{found}: the weights do not fit {name} ({misfit(error)})") from error
    return network.float().eval()


def _verify(path: Path, prefix: str) -> None:
    if not sha256(path).startswith(prefix):
        raise FinescaleError(f"{path}: its SHA-256 does not start with {prefix}; the file is damaged or was changed")
