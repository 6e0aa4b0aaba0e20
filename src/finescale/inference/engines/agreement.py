"""Whether a translated network gives PyTorch's picture."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from finescale.inference.tiling import Array

if TYPE_CHECKING:
    from finescale.networks.base import Network

# dB to PyTorch's picture in float32 below which a way is refused: of noise in float32, else of a photograph; 60 dB cost
# an enlargement of 33 dB less than 0.01, and the default network at x2 (38 dB) 0.002 (docs/results/engines.md)
FLOAT32, BFLOAT16 = 80.0, 60.0
SIZES = ((53, 67), (96, 50))


def agreement(
    network: "Network", run: Callable[[Array], Array], x: Array, limits: tuple[float, float] | None = None
) -> float:
    """dB between the picture of `run` and PyTorch's for (1, 3, H, W), relative to its range, or clipped to `limits`.

    -infinity where `run` gives what is not finite.
    """
    import torch

    from finescale.inference.prepare import exactly

    with exactly(torch.device("cpu")):
        return closeness(network(torch.from_numpy(x)).numpy(), run(x), limits)


def closeness(wanted: Array, found: Array, limits: tuple[float, float] | None = None) -> float:
    """dB between two pictures, relative to the range of the first, or clipped to `limits`; see `agreement`."""
    if not np.isfinite(found).all():
        return -math.inf
    if limits:
        wanted, found = wanted.clip(*limits), found.clip(*limits)
    error = float(np.square(found - wanted).mean()) ** 0.5
    return float(20 * np.log10(max(1.0, float(np.abs(wanted).max())) / max(error, 1e-12)))


def noises(multiple: int = 1) -> list[Array]:
    """Noise (1, 3, H, W) of a few sizes, as multiples of `multiple` pixels."""
    sizes = [tuple(-(-side // multiple) * multiple for side in size) for size in SIZES]
    return [np.random.default_rng(0).random((1, 3, *size), np.float32) for size in sizes]


def least_agreement(network: "Network", run: Callable[[Array], Array], multiple: int = 1) -> float:
    """The worst `agreement` for `noises`, in their order."""
    return min(agreement(network, run, x) for x in noises(multiple))
