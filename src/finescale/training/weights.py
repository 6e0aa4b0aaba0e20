"""A network's weights as a step computes with them, made for all layers at once."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parametrize

from finescale.layers.spectral import bare, normalise

_LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)  # whose weights autocast rounds


class StepWeights:
    """Calls a network in training as it is, but what is done to its weights alone is done to all of them at once.

    These are spectral norms, in a batch for every shape, and the rounding that autocast does, in one go. Layer by layer
    they are many small kernels of a deep network, each of which computes next to nothing. The numbers are the same, up
    to the order of additions.

    Args:
        network: its convolutions and linear layers use their weights for nothing else.
        dtype: of these layers' arithmetic; to be what autocast has where this is called.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        self.network, self.dtype = network, dtype
        named = dict(network.named_parameters())
        self._norms = {
            f"{name}.parametrizations.weight.original": layer.get_submodule("parametrizations.weight.0")
            for name, layer in network.named_modules()
            if parametrize.is_parametrized(layer) and bare(layer) in _LAYERS
        }
        self._normed = {name: named[name] for name in self._norms}
        rounded = {
            id(parameter)
            for layer in network.modules()
            if bare(layer) in _LAYERS
            for parameter in layer.parameters()  # those of its parametrisations are inside it
        }
        self._rounded = {name: parameter for name, parameter in named.items() if id(parameter) in rounded}

    def __call__(self, x: Tensor) -> Tensor:
        """The network's output for x (B, 3, H, W); gradients go to its own parameters."""
        with torch.autocast(x.device.type, enabled=False):
            made = self._normalised()
            others = {name: weight for name, weight in self._rounded.items() if weight.dtype != self.dtype}
            for names in _alike(others, lambda name: (others[name].dtype, others[name].requires_grad)):
                weights = [made.get(name, others[name]) for name in names]
                rounded = _Rounded.apply(self.dtype, *weights)  # type: ignore[no-untyped-call]
                made.update(zip(names, rounded, strict=True))
        with self._given():
            output: Tensor = functional_call(self.network, made, (x,))
        return output

    def _normalised(self) -> dict[str, Tensor]:
        made: dict[str, Tensor] = {}
        weights, norms = self._normed, self._norms
        for names in _alike(norms, lambda n: (weights[n].shape, weights[n].requires_grad, norms[n].training)):
            made.update(zip(names, normalise([norms[n] for n in names], [weights[n] for n in names]), strict=True))
        return made

    @contextmanager
    def _given(self) -> Iterator[None]:
        for norm in self._norms.values():
            norm.given = True
        try:
            yield
        finally:
            for norm in self._norms.values():
                norm.given = False


def _alike(names: Iterable[str], key: Callable[[str], object]) -> list[list[str]]:
    """Names of one key each."""
    found = defaultdict(list)
    for name in names:
        found[key(name)].append(name)
    return list(found.values())


class _Rounded(torch.autograd.Function):
    """Copies in another precision; their gradients in the weights' own."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.dtype = weights[0].dtype
        return tuple(_copies(weights, dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        copies = iter(_copies([gradient for gradient in gradients if gradient is not None], ctx.dtype))
        return None, *(None if gradient is None else next(copies) for gradient in gradients)


def _copies(tensors: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    made = [torch.empty_like(tensor, dtype=dtype) for tensor in tensors]
    if made:
        torch._foreach_copy_(made, list(tensors))
    return made
