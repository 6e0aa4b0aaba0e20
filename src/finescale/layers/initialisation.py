"""How weights start."""

import torch
from torch import Tensor


@torch.no_grad()
def icnr_(weight: Tensor, scale: int) -> Tensor:
    """Makes the scale^2 sub-kernels of each output channel equal (ICNR, arXiv 1707.02937); changes `weight` in place.

    `weight` is (C scale^2, C_in, k, k), followed by a pixel shuffle; each group of sub-kernels takes its first member.
    """
    groups = weight.unflatten(0, (-1, scale**2))
    groups.copy_(groups[:, :1].expand_as(groups).clone())
    return weight
