"""Which parameters are trained, when, and how fast: discriminative rates and gradual unfreezing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from finescale.errors import UsageError, nearest
from finescale.training.muon import Muon, is_matrix
from finescale.training.recipe import Group, Optimiser
from finescale.training.schedule import Moment


@dataclass(frozen=True)
class Members:
    """A group of a recipe with its parameters, and the modules whose mode follows it."""

    group: Group
    names: list[str]
    parameters: list[nn.Parameter]
    modules: list[nn.Module]

    @property
    def count(self) -> int:
        """Numbers to train."""
        return sum(parameter.numel() for parameter in self.parameters)


def assign(network: nn.Module, groups: Sequence[Group]) -> list[Members]:
    """Sorts every parameter into the first group that matches it; what matches none is trained from the start.

    Raises:
        UsageError: a group matches nothing, naming the nearest part of the network; or none is trained at first.
    """
    named = dict(network.named_parameters())
    modules = [(name, module) for name, module in network.named_modules() if not list(module.children())]
    left, left_modules = dict(named), dict(modules)
    members = []
    for group in [*groups, Group(match="")]:
        mine = {name: left.pop(name) for name in list(left) if name.startswith(group.match)}
        inside = [left_modules.pop(name) for name in list(left_modules) if name.startswith(group.match)]
        if mine:
            members.append(Members(group, list(mine), list(mine.values()), inside))
        elif group.match and any(name.startswith(group.match) for name in named):
            raise UsageError(
                f"groups: all parameters of '{group.match}' belong to groups before it; put it before them"
            )
        elif group.match or not named:
            parts = sorted({".".join(name.split(".")[:depth]) for name in named for depth in (1, 2)})
            raise UsageError(f"groups: no parameter's name starts with '{group.match}'{nearest(group.match, parts)}")
    if members and not any(Moment(0.0, 0).past(member.group.frozen_until) for member in members):
        raise UsageError("groups: nothing is trained at first; one group needs frozen_until = 0")
    return members


def optimiser(
    members: Sequence[Members], options: Optimiser, *, dtype: torch.dtype = torch.float32
) -> torch.optim.Adam:
    """Adam, or Muon with Adam, fused and with float32 state; each group knows its `multiple` of the rate.

    Args:
        members: the groups.
        options: of the recipe.
        dtype: that Muon's directions are made orthogonal in.
    """
    common: dict[str, Any] = {"lr": options.rate, "betas": options.betas, "eps": options.epsilon, "fused": True}
    tables: list[dict[str, Any]] = []
    for member in members:
        for matrices in (False, True) if options.kind == "muon" else (None,):
            chosen = [p for p in member.parameters if matrices is None or is_matrix(p) == matrices]
            if chosen:
                table = {"params": chosen, "name": member.group.match, "multiple": member.group.rate}
                tables.append(table if matrices is None else {**table, "matrices": matrices})
    return torch.optim.Adam(tables, **common) if options.kind == "adam" else Muon(tables, dtype=dtype, **common)


def freeze(members: Sequence[Members], now: Moment, *, again: bool = False) -> bool:
    """Makes each group train or rest as the moment demands; whether anything changed.

    Resting parameters need no gradient, and the norms among them do not move. Those of a pretrained group never do: the
    statistics they came with are of more pictures than a batch of crops, which deep down are a few pixels wide.

    Args:
        members: the groups.
        now: the moment.
        again: also where nothing changed, for a network whose mode was changed by others.
    """
    changed = False
    for member in members:
        trained = now.past(member.group.frozen_until)
        if trained == member.parameters[0].requires_grad and not again:
            continue
        changed |= trained != member.parameters[0].requires_grad
        for parameter in member.parameters:
            parameter.requires_grad_(trained)
        for module in member.modules:
            module.train(trained and not member.group.pretrained)
    return changed
