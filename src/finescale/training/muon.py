"""Muon: momentum whose direction is made orthogonal, for the matrices; Adam for everything else.

Keller Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon/), with the scale of "Muon is Scalable for LLM
Training" (arXiv 2502.16982, section 2.2), so that an update is as large as Adam's and the same rates serve both. The
kernel of a convolution is the matrix (output channels, height x width x input channels).
"""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_STEPS = 5
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the authors: fast to about orthogonal, not to convergence
_LIKE_ADAM = 0.2  # root mean square of Adam's updates


def orthogonal(matrices: Tensor) -> Tensor:
    """About U V^T of the singular value decomposition U S V^T, by Newton-Schulz iteration.

    (N, R, C) -> same; singular values above a hundredth of the matrix's norm come out between about 0.7 and 1.2,
    smaller ones below that.
    """
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    a, b, c = _COEFFICIENTS
    for _ in range(_STEPS):  # x <- a x + (b x x^T + c (x x^T)^2) x, each sum in one pass with its product
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def is_matrix(parameter: Tensor) -> bool:
    """Whether Muon is for this parameter: a matrix of 16 rows and columns or more.

    That leaves out vectors, what takes colours in, and what gives them, but for direct tails of x3 and x4.
    """
    return parameter.ndim >= 2 and min(parameter.shape[:2]) >= 16


class Muon(torch.optim.Adam):
    """Adam, but groups with `matrices=True` take orthogonal steps.

    The learning rate means the same for both. Like fused Adam, a step where `found_inf` is 1 changes nothing.

    Args:
        groups: parameter groups; each may hold `matrices`.
        momentum: of the matrices.
        dtype: that directions are made orthogonal in; the authors do it in bfloat16.
        options: of Adam.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        *,
        momentum: float = 0.95,
        dtype: torch.dtype = torch.float32,
        **options: Any,
    ) -> None:
        super().__init__([{"matrices": False, "momentum": momentum, **group} for group in groups], **options)
        self._dtype = dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of both."""
        every = self.param_groups
        self.param_groups = [group for group in every if not group["matrices"]]
        try:
            result = super().step(closure)
        finally:
            self.param_groups = every
        for group in every:
            if group["matrices"]:
                self._orthogonal_step(group)
        return result

    def _orthogonal_step(self, group: dict[str, Any]) -> None:
        """Matrices of one shape are worked on together: a deep network has hundreds."""
        alike: dict[tuple[int, int], list[Tensor]] = defaultdict(list)
        for parameter in group["params"]:
            if parameter.grad is not None:
                alike[parameter.shape[0], parameter[0].numel()].append(parameter)
        bad = getattr(self, "found_inf", None)
        for (rows, columns), parameters in alike.items():
            gradients = _stack([parameter.grad for parameter in parameters if parameter.grad is not None])
            momenta = []
            for parameter in parameters:
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                    state["step"] = torch.zeros(())  # unused here, but Adam expects it of every saved state
                momenta.append(state["momentum"])
            before = _stack(momenta)
            if bad is not None:  # neither the momentum nor the weights may see what is not finite
                good = bad.to(parameters[0].device) == 0
                gradients = torch.where(good, gradients, before)
            after = before.lerp(gradients, 1 - group["momentum"])
            torch._foreach_copy_(momenta, _unstack(after, momenta))
            ahead = gradients.lerp(after, group["momentum"])  # Nesterov
            steps = orthogonal(ahead.to(self._dtype)).float().contiguous()  # those of tall ones are not
            steps *= -group["lr"] * _LIKE_ADAM * max(rows, columns) ** 0.5
            if bad is not None:
                steps = torch.where(good, steps, 0)
            torch._foreach_add_(parameters, _unstack(steps, parameters))


def _stack(tensors: list[Tensor]) -> Tensor:
    """Tensors as matrices (N, rows, columns), a kernel's columns in the order of channels_last.

    So it lies in memory in training, and nothing is copied but by the stack. The order does not matter to directions:
    columns that change places do so in the orthogonal matrix, too.
    """
    return torch.stack([(t.permute(0, 2, 3, 1) if t.ndim == 4 else t).flatten(1) for t in tensors])


def _unstack(matrices: Tensor, like: list[Tensor]) -> list[Tensor]:
    """Views of the matrices with the shapes of the tensors that were stacked, and their strides in channels_last."""
    parts = zip(matrices, like, strict=True)
    return [m.view(t.permute(0, 2, 3, 1).shape).permute(0, 3, 1, 2) if t.ndim == 4 else m.view_as(t) for m, t in parts]
