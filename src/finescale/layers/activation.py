"""Activations by name."""

from torch import nn


def activation(name: str) -> nn.Module:
    return {"relu": lambda: nn.ReLU(inplace=True), "silu": lambda: nn.SiLU(inplace=True)}[name]()
