"""A step's forward and backward pass as one CUDA graph.

A deep network of narrow layers is thousands of small kernels a step, and Python starts them more slowly than a large
GPU runs them. Recorded once, they are started together.
"""

import gc
from collections.abc import Callable

import torch
from torch import Tensor, nn

_WARM_UP = 3  # passes before the recording, in which cuDNN and cuBLAS choose their ways


class Captured:
    """Computes a loss and its gradients again and again, for crops of one size and one set of trained parameters.

    Called with (low, high) like those it was made with, it leaves the gradients in the parameters' `grad`, which must
    not be set to None or replaced as long as it is in use, and gives the loss. Nothing accumulates: every call writes
    them anew. The network's buffers are as they were after it is made.

    Args:
        loss: (low, high) -> scalar, of the network's output.
        network: whose gradients are wanted, on a CUDA device.
        low: (N, 3, P, P).
        high: (N, 3, sP, sP).

    Raises:
        RuntimeError: something in the pass cannot be recorded, or memory runs out.
    """

    def __init__(self, loss: Callable[[Tensor, Tensor], Tensor], network: nn.Module, low: Tensor, high: Tensor) -> None:
        self._low, self._high = low.clone(), high.clone()
        buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
        stream, before_it = torch.cuda.Stream(low.device), torch.cuda.current_stream(low.device)
        collecting = gc.isenabled()
        gc.collect()
        try:
            stream.wait_stream(before_it)
            with torch.cuda.stream(stream):
                for _ in range(_WARM_UP):
                    network.zero_grad(set_to_none=True)
                    loss(self._low, self._high).backward()
            before_it.wait_stream(stream)
            network.zero_grad(set_to_none=True)  # so that the recorded pass writes gradients and does not add to them
            self._graph = torch.cuda.CUDAGraph()
            gc.disable()  # what it frees in the middle of a recording (kernels, other graphs) can spoil that
            with torch.cuda.graph(self._graph, stream=stream):
                value = loss(self._low, self._high)
                value.backward()
            self._loss = value.detach()
        finally:
            if collecting:
                gc.enable()
            torch.cuda.set_stream(before_it)  # a recording that fails can leave its own in place
            with torch.no_grad():
                for buffer, before in buffers:
                    buffer.copy_(before)

    def __call__(self, low: Tensor, high: Tensor) -> Tensor:
        self._low.copy_(low)
        self._high.copy_(high)
        self._graph.replay()
        return self._loss
