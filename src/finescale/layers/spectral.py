"""Spectral normalisation (arXiv 1802.05957): of one layer, or of many at once."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

_ITERATIONS = 15  # after which a random start no longer shows
_EPSILON = 1e-12


class SpectralNorm(nn.Module):
    """The parametrisation: a weight divided by its largest singular value, as PyTorch's own (algorithm 1).

    (c_out, c_in, ...) -> the same. In training every look at the weight is one power iteration.

    Attributes:
        given: the weight comes normalised already, by `normalise`.
    """

    _u: Tensor
    _v: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.given = False
        matrix = weight.detach().flatten(1)
        for name, size in zip(("_u", "_v"), matrix.shape):
            self.register_buffer(name, F.normalize(matrix.new_empty(size).normal_(), dim=0, eps=_EPSILON))
        self.settle(weight)

    @torch.no_grad()
    def settle(self, weight: Tensor) -> None:
        """Finds the singular vectors of a weight that is new."""
        matrix, v = weight.detach().flatten(1).unsqueeze(0), self._v.unsqueeze(0)
        with _own_precision(matrix):
            for _ in range(_ITERATIONS):
                u, v = _iterate(matrix, v)
        self._u.copy_(u[0])
        self._v.copy_(v[0])

    def forward(self, weight: Tensor) -> Tensor:
        return weight if self.given else normalise([self], [weight])[0]


def normalise(norms: Sequence[SpectralNorm], weights: Sequence[Tensor]) -> list[Tensor]:
    """The weights of many layers divided by their largest singular values, in one batch and their own precision.

    Args:
        norms: of the layers; in training mode each takes one power iteration.
        weights: of one shape (c_out, c_in, ...).
    """
    with _own_precision(weights[0]):
        matrices = torch.stack([weight.flatten(1) for weight in weights])
        u, v = (torch.stack([getattr(norm, name) for norm in norms]) for name in ("_u", "_v"))
        if norms[0].training:
            with torch.no_grad():
                u, v = _iterate(matrices, v)
                for name, vectors in (("_u", u), ("_v", v)):
                    torch._foreach_copy_([getattr(norm, name) for norm in norms], list(vectors.unbind()))
        made = (matrices / (u.unsqueeze(1) @ matrices @ v.unsqueeze(2))).unbind()
    return [
        matrix.view(weight.shape).contiguous(
            memory_format=torch.contiguous_format if weight.is_contiguous() else torch.channels_last
        )
        for matrix, weight in zip(made, weights, strict=True)
    ]


def settle(network: nn.Module) -> None:
    """Finds the singular vectors of all weights in a network anew, where these came from elsewhere than training."""
    for module in network.modules():
        if parametrize.is_parametrized(module, "weight"):
            chain = module.get_submodule("parametrizations.weight")
            for norm in chain.children():
                if isinstance(norm, SpectralNorm):
                    norm.settle(chain.original)  # type: ignore[arg-type]


def _own_precision(tensor: Tensor) -> AbstractContextManager[Any]:
    """Within it autocast leaves products as they are."""
    kind = tensor.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()


def _iterate(matrices: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """One power iteration: (N, c_out, K), (N, K) -> left (N, c_out) and right (N, K) singular vectors."""
    u = F.normalize((matrices @ v.unsqueeze(2)).squeeze(2), dim=1, eps=_EPSILON)
    v = F.normalize((matrices.mT @ u.unsqueeze(2)).squeeze(2), dim=1, eps=_EPSILON)
    return u, v


def spectral_norm(convolution: nn.Conv2d) -> nn.Module:
    """Normalises a convolution's weight, in place.

    PyTorch makes it a class of its own, which refuses to be pickled: this one can be.
    """
    parametrize.register_parametrization(convolution, "weight", SpectralNorm(convolution.weight))
    type(convolution).__reduce_ex__ = _reduce  # type: ignore[assignment]
    return convolution


def bare(layer: nn.Module) -> type[nn.Module]:
    """A layer's class, or what it was before its weight was spectrally normalised and nothing else."""
    if not parametrize.is_parametrized(layer):
        return type(layer)
    chains = [list(chain.children()) for chain in layer.get_submodule("parametrizations").children()]
    spectral = all(len(chain) == 1 and isinstance(chain[0], SpectralNorm) for chain in chains)
    return type(layer).__bases__[0] if spectral else type(layer)


def _reduce(self: nn.Module, _: object) -> tuple[Any, ...]:
    return _blank, type(self).__bases__, self.__dict__


def _blank(kind: type[nn.Conv2d]) -> nn.Module:
    """A layer whose contents are replaced; on "meta" it draws no random numbers."""
    return spectral_norm(kind(1, 1, 1, device="meta"))
