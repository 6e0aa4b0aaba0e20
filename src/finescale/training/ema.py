"""The moving average of a network's weights: what is validated and shipped."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class EMA:
    """Exponential moving average of the parameters and running statistics; other buffers are copied.

    The decay warms up as (1 + n) / (10 + n), so that the random start is soon forgotten. On sharded networks every
    process averages its own shards.

    Args:
        network: whose weights are averaged.
        decay: of the past per update; 0 keeps the weights themselves.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        tensors = dict(network.named_parameters()) | dict(network.named_buffers())
        self.live = {name: _local(tensor) for name, tensor in tensors.items()}
        self.mean = {name: tensor.clone() for name, tensor in self.live.items()}
        # Averages of unit vectors (spectral normalisation) or counters would be neither, so they are copied.
        parameters = {name for name, _ in network.named_parameters()}
        means = parameters | {n for n in self.live if n.endswith(("running_mean", "running_var"))}
        blended = [n for n in self.live if n in means]
        self._blended = [self.mean[n] for n in blended], [self.live[n] for n in blended]
        copied = [n for n in self.live if n not in means]
        self._copied = [self.mean[n] for n in copied], [self.live[n] for n in copied]

    @torch.no_grad()
    def update(self) -> None:
        """Takes in the network's weights of now."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(*self._blended, 1 - decay)
        if self._copied[0]:
            torch._foreach_copy_(*self._copied)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within it, the network has the averaged weights; afterwards exactly its own again."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for means, lives in (self._blended, self._copied):
            if means:
                kept = [torch.empty_like(live) for live in lives]
                for target, source in ((kept, lives), (lives, means), (means, kept)):
                    torch._foreach_copy_(target, source)


def _local(tensor: Tensor) -> Tensor:
    """The tensor itself, or this process's shard of it; shares its memory."""
    local = getattr(tensor, "to_local", None)  # of a DTensor, which not every build of torch has
    whole: Tensor = local() if local else tensor
    return whole.detach()
