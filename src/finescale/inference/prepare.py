"""A network made ready to compute with."""

import copy
import math
import os
import threading
import warnings
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from finescale.errors import FinescaleWarning
from finescale.inference.tiling import GRID, check_window
from finescale.layers.attention import ChannelAttention, SelfAttention
from finescale.layers.statistics import StatisticsLayer, alignment, localise
from finescale.networks.base import Network

WINDOW = 48  # side of the training crops, in input pixels
HEADROOM = 1.75  # of the gates of channel attention over a photograph's

_WHOLE_MAP = (nn.InstanceNorm2d, nn.GroupNorm, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)  # whatever the window

# OpenMP's threads are not there in a forked process, which would wait for them for ever
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


@contextmanager
def exactly(device: torch.device) -> Iterator[None]:
    """Without gradients, and in the network's own precision even where the program around has autocast switched on."""
    with torch.inference_mode(), torch.autocast(device.type, enabled=False), full_float32(device):
        yield


class _FullFloat32:
    """Keeps float32 whole for all threads, from the first that wants it until the last no longer does."""

    def __init__(self, *backends: Any) -> None:
        self._lock, self._threads, self._backends = threading.Lock(), 0, backends
        self._before: list[str] = []

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            if not self._threads:
                self._before = [backend.fp32_precision for backend in self._backends]
                for backend in self._backends:
                    backend.fp32_precision = "ieee"
            self._threads += 1
        try:
            yield
        finally:
            with self._lock:
                self._threads -= 1
                if not self._threads:
                    for backend, before in zip(self._backends, self._before, strict=True):
                        backend.fp32_precision = before


_BACKENDS: Any = torch.backends
_WHOLE = {
    "cuda": _FullFloat32(_BACKENDS.cudnn.conv, _BACKENDS.cuda.matmul),
    "cpu": _FullFloat32(_BACKENDS.mkldnn.conv, _BACKENDS.mkldnn.matmul),
}


def full_float32(device: torch.device) -> AbstractContextManager[None]:
    """Within it convolutions and products in float32 keep all its digits.

    Else a GPU's convolutions are in TF32, of ten bits, and both are in bfloat16 on a CPU where the program has asked
    for `torch.set_float32_matmul_precision("medium")`.
    """
    return _WHOLE[device.type]() if device.type in _WHOLE else nullcontext()


def for_inference(network: Network, window: int | None = WINDOW, gates: list[list[float]] | None = None) -> Network:
    """A copy in evaluation mode and float32, without gradients, with spectral norms folded into the weights.

    With a window it pads pictures at the right and the bottom to whole cells of the statistics (a few pixels, mirrored,
    and cut away again): partly filled cells are copies of whole feature maps, and cost up to as much as the network.

    With a window the gates of channel attention are limited to what photographs need, too. Patterns of single pixels,
    such as the dithering of old pictures, open those of a trained network many times as far, block after block, and the
    result is noise wherever a window meets such a pattern. Without one the network is as it was trained.

    Args:
        network: left as it is.
        window: statistics are taken over squares of this many input pixels (see `finescale.layers.statistics`); None:
            over the whole picture, and then a tile is not equal to the whole. Where these squares do not meet those of
            the next tile, which begins at a multiple of 48 pixels, a `FinescaleWarning` tells it.
        gates: upper limits of all gates, as `gate_limits` told before; None: they are found.

    Raises:
        UsageError: the window is above `LARGEST_WINDOW`.
    """
    check_window(window)
    clone = copy.deepcopy(network).float().eval().requires_grad_(False)
    for module in clone.modules():
        if parametrize.is_parametrized(module):
            _fold(module)
    for module in clone.modules():
        if isinstance(module, SelfAttention):
            module.fuse()
    localise(clone, window)
    clone.context = -(-clone.context * max(window or 0, WINDOW) // (WINDOW * GRID)) * GRID  # it looks so much further
    if window is not None:
        _check_tiles(clone)
        clone.multiple = math.lcm(clone.multiple, alignment(clone))
        limits = gates or gate_limits(clone)
        device = next(clone.parameters(), torch.empty(0, device="cpu")).device
        for layer, values in zip(_channel_attention(clone), limits, strict=True):
            layer.most = torch.tensor(values, dtype=torch.float32, device=device).reshape(1, -1, 1, 1)
    return clone


def _check_tiles(network: Network) -> None:
    steps = [network.multiple, *(layer.grid() for layer in network.modules() if isinstance(layer, StatisticsLayer))]
    wrong = sorted({step for step in steps if GRID % step})
    if wrong:
        warnings.warn(
            f"this network goes through pictures by steps of {' and '.join(map(str, wrong))} pixels, which do not "
            f"divide {GRID}: large pictures are cut into tiles, and will have seams",
            FinescaleWarning,
            stacklevel=3,
        )
    looking = (module for module in network.modules() if isinstance(module, _WHOLE_MAP))
    whole = {type(one).__name__ for one in looking if not getattr(one, "track_running_stats", False)}
    if whole:
        warnings.warn(
            f"this network has {' and '.join(sorted(whole))}, which look at all of a tile and not at windows: large "
            "pictures are cut into tiles, and will have seams",
            FinescaleWarning,
            stacklevel=3,
        )


def _channel_attention(network: nn.Module) -> list[ChannelAttention]:
    return [module for module in network.modules() if isinstance(module, ChannelAttention)]


def gate_limits(network: Network) -> list[list[float]]:
    """For every layer of channel attention, the largest gate of each channel on the photograph, and `HEADROOM` more.

    Args:
        network: prepared by `for_inference`; if its gates are limited, those limits.
    """
    layers = _channel_attention(network)
    if not layers:
        return []
    limited = [layer.most for layer in layers if layer.most is not None]
    if limited:
        return [most.flatten().tolist() for most in limited]
    from finescale.inference.photograph import samples

    device = next(network.parameters()).device
    found = {layer.conv_du: torch.zeros((), device=device) for layer in layers}

    def look(gates: nn.Sequential, inputs: tuple[Tensor], result: Tensor) -> None:
        found[gates] = torch.maximum(found[gates], result.amax((0, 2, 3)))

    hooks = [gates.register_forward_hook(look) for gates in found]
    try:
        with exactly(device):
            for part in samples(network.multiple):
                network(torch.from_numpy(part).to(device))
    finally:
        for hook in hooks:
            hook.remove()
    return [(HEADROOM * most).tolist() for most in found.values()]


def _fold(module: nn.Module) -> None:
    """Turns parametrised tensors into plain ones.

    Not `remove_parametrizations`: a copy shares its class with the original, which that function would spoil.
    """
    names = list(module.parametrizations)  # type: ignore[arg-type]
    values = {name: getattr(module, name).detach().clone() for name in names}
    module.__class__ = type(module).__bases__[0]
    del module.parametrizations
    for name, value in values.items():
        module.register_parameter(name, nn.Parameter(value, requires_grad=False))


def bytes_per_pixel(network: Network) -> float:
    """Memory that the features need for every input pixel: the most that are alive at once, in float32, in PyTorch.

    Found by enlarging one window: tensors on "meta" would need no computing, but have torch import its compiler, which
    takes longer.

    Args:
        network: prepared by `for_inference`.
    """
    device = next(network.parameters(), torch.empty(0, device="cpu")).device
    side = -(-WINDOW // network.multiple) * network.multiple  # it would be filled up to that
    with exactly(device), _PeakMemory() as alive:
        network(torch.zeros(1, 3, side, side, dtype=torch.float32, device=device))
    return alive.most / side**2


class _PeakMemory(TorchDispatchMode):
    """Counts the bytes of the tensors that operations make, as long as somebody holds them.

    Attributes:
        most: the highest count so far.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most = self._now = 0
        self._known: set[int] = set()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: torch would import its compiler to skip it."""
        return False

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self._known:  # a view shares its base's
                    self._known.add(storage._cdata)
                    self._now += storage.nbytes()
                    weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())
        self.most = max(self.most, self._now)
        return result

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._now -= size
