"""Spectral normalisation of networks that can be sent to other processes."""

from typing import Any

from torch import nn
from torch.nn.utils import parametrizations


def spectral_norm(convolution: nn.Conv2d) -> nn.Module:
    """PyTorch's (arXiv 1802.05957), of which it makes a class that refuses to be pickled: this one can be."""
    made = parametrizations.spectral_norm(convolution)
    type(made).__reduce_ex__ = _reduce  # type: ignore[assignment]
    return made


def _reduce(self: nn.Module, _: object) -> tuple[Any, ...]:
    return _blank, type(self).__bases__, self.__dict__


def _blank(kind: type[nn.Conv2d]) -> nn.Module:
    """A layer whose contents are replaced; on "meta" it draws no random numbers."""
    return spectral_norm(kind(1, 1, 1, device="meta"))
