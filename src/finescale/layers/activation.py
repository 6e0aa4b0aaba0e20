"""Activations by name: every one from its source, as initialised finite in value and gradient for |x| up to 1e18.

All functions work element by element on tensors of any shape and float type.
"""

import inspect
from collections.abc import Callable
from functools import wraps

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from finescale.errors import UsageError, check_known


def swish(x: Tensor, beta: float = 1.25) -> Tensor:
    """x sigmoid(beta x) (arXiv 1710.05941)."""
    return x * torch.sigmoid(beta * x)


def e_swish(x: Tensor, beta: float = 1.375) -> Tensor:
    """beta x sigmoid(x) (E-Swish, arXiv 1801.07145, equation 4)."""
    return beta * x * torch.sigmoid(x)


def mish(x: Tensor) -> Tensor:
    """x tanh(ln(1 + e^x)) (arXiv 1908.08681, equation 1); the logarithm is computed without overflow."""
    return x * torch.tanh(F.softplus(x))


def beta_mish(x: Tensor, beta: float = 1.5) -> Tensor:
    """x tanh(ln((1 + e^x)^beta)) (D. Misra, "Beta-Mish", 2019, after arXiv 1908.08681)."""
    return x * torch.tanh(beta * F.softplus(x))


def mila(x: Tensor, beta: float = -0.25) -> Tensor:
    """x tanh(ln(1 + e^(beta + x))) (D. Misra, "Mila", 2019)."""
    return x * torch.tanh(F.softplus(beta + x))


def elish(x: Tensor) -> Tensor:
    """x sigmoid(x) for x >= 0, (e^x - 1) sigmoid(x) below (arXiv 1808.00783, equation 3)."""
    return _linear_exponential(x) * torch.sigmoid(x)


def hard_elish(x: Tensor) -> Tensor:
    """x h(x) for x >= 0, (e^x - 1) h(x) below, h(x) = max(0, min(1, (x + 1) / 2)) (arXiv 1808.00783, equation 4)."""
    return _linear_exponential(x) * ((x + 1) / 2).clamp(0, 1)


def _linear_exponential(x: Tensor) -> Tensor:
    """The branches x and e^x - 1 of ELiSH, joined at 0; the exponential never sees a positive number."""
    return torch.where(x >= 0, x, torch.expm1(x.clamp(max=0)))


def sine_relu(x: Tensor, eps: float = 0.01) -> Tensor:
    """x for x > 0, eps (sin x - cos x) below (W. Rodrigues, "SineReLU", 2018)."""
    return torch.where(x > 0, x, eps * (torch.sin(x) - torch.cos(x)))


def aria2(x: Tensor, alpha: float = 1.0, beta: float = 0.5) -> Tensor:
    """x (1 + e^(-beta x))^(-alpha) (ARiA-2, arXiv 1805.08878, equation 3)."""
    return x * torch.exp(-alpha * F.softplus(-beta * x))


def flatten_t_swish(x: Tensor, threshold: float = -0.2) -> Tensor:
    """x sigmoid(x) + T for x >= 0, T below (arXiv 1812.06247, equation 3)."""
    return F.relu(x) * torch.sigmoid(x) + threshold


def sqnl(x: Tensor) -> Tensor:
    """x - x|x| / 4 within [-2, 2], -1 and 1 outside (SQNL; Wuraola and Patel, IJCNN 2018)."""
    inside = x.clamp(-2, 2)
    return inside - inside * inside.abs() / 4


def isru(x: Tensor, alpha: float = 1.0) -> Tensor:
    """x / sqrt(1 + alpha x^2) (inverse square root unit, arXiv 1710.09967, equation 4)."""
    wide = _wide(x)
    return (wide * torch.rsqrt(1 + alpha * wide * wide)).to(x.dtype)


def isrlu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """x for x >= 0, x / sqrt(1 + alpha x^2) below (arXiv 1710.09967, equation 1)."""
    return torch.where(x >= 0, x, isru(x, alpha))


def bent_identity(x: Tensor) -> Tensor:
    """(sqrt(x^2 + 1) - 1) / 2 + x (no paper; listed with the others by most collections)."""
    wide = _wide(x)
    return ((torch.sqrt(wide * wide + 1) - 1) / 2 + wide).to(x.dtype)


def soft_clipping(x: Tensor, alpha: float = 0.5) -> Tensor:
    """ln((1 + e^(alpha x)) / (1 + e^(alpha (x - 1)))) / alpha (arXiv 1810.11509).

    As a difference of softplus, taken from 1 in the upper half, where large ones would cancel.
    """
    lower = F.softplus(alpha * x) - F.softplus(alpha * (x - 1))
    upper = F.softplus(-alpha * x) - F.softplus(alpha * (1 - x))
    return torch.where(x > 0.5, 1 + upper / alpha, lower / alpha)


def lecun_tanh(x: Tensor) -> Tensor:
    """1.7159 tanh(2 x / 3) (LeCun et al., "Efficient BackProp", 1998, section 4.4)."""
    return 1.7159 * torch.tanh(x * (2 / 3))


def weighted_tanh(x: Tensor, weight: float = 1.0) -> Tensor:
    """tanh(weight x) (D. Misra, "Echo", 2019)."""
    return torch.tanh(weight * x)


def soft_exponential(x: Tensor, alpha: Tensor) -> Tensor:
    """-ln(1 - alpha (x + alpha)) / alpha for alpha < 0, x for 0, (e^(alpha x) - 1) / alpha + alpha above.

    arXiv 1602.01321, equation 1. The exponent is held at 80 and the logarithm's argument at 1e-6, where the formula
    overflows or has no value; close to alpha = 0 its series, x + alpha (1 + x^2 / 2), is used.
    """
    series = alpha.abs() < 1e-4
    safe = torch.where(series, torch.ones_like(alpha), alpha)
    growing = torch.expm1((safe * x).clamp(max=80)) / safe + safe
    falling = -torch.log1p((-safe * (x + safe)).clamp(min=1e-6 - 1)) / safe
    return torch.where(series, x + alpha * (1 + x * x / 2), torch.where(alpha > 0, growing, falling))


class Elementwise(nn.Module):
    """One of the functions of this module with its options; (...) -> same shape."""

    def __init__(self, function: Callable[..., Tensor], **options: float) -> None:
        super().__init__()
        self.function, self.options = function, options

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, **self.options)

    def extra_repr(self) -> str:
        return ", ".join([self.function.__name__, *(f"{key}={value}" for key, value in self.options.items())])


class SoftExponential(nn.Module):
    """Soft exponential with a learned alpha per channel (or one for all), from 0, the identity; (B, C, ...) -> same."""

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        wide = _wide(x)  # in bfloat16 1 - alpha (x + alpha) would be 1
        return soft_exponential(wide, _by_channel(self.alpha.to(wide.dtype), x)).to(x.dtype)


class APL(nn.Module):
    """Adaptive piecewise linear unit: max(0, x) + sum_s a_s max(0, b_s - x) (arXiv 1412.6830, equation 1).

    (B, C, ...) -> same. The slopes a start at 0 (a ReLU), the hinges b spread over [-1, 1].

    Args:
        channels: each has hinges of its own; 1: all share them.
        pieces: S, the number of hinges.
    """

    def __init__(self, channels: int = 1, *, pieces: int = 2) -> None:
        super().__init__()
        self.slopes = nn.Parameter(torch.zeros(pieces, channels))
        self.hinges = nn.Parameter(torch.linspace(-1, 1, pieces)[:, None].repeat(1, channels))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(x)
        for slope, hinge in zip(self.slopes.to(x.dtype), self.hinges.to(x.dtype)):
            y = y + _by_channel(slope, x) * F.relu(_by_channel(hinge, x) - x)
        return y


class BReLU(nn.Module):
    """Bipolar ReLU: max(0, x) in even channels, min(0, x) in odd ones (arXiv 1709.04054, equation 2); (B, C, ...)."""

    def forward(self, x: Tensor) -> Tensor:
        odd = torch.arange(x.shape[1], device=x.device) % 2 == 1
        return torch.where(_by_channel(odd, x), x.clamp(max=0), x.clamp(min=0))


class Maxout(nn.Module):
    """The largest of several learned linear functions of the channels (arXiv 1302.4389, section 3).

    (B, C, H, W) -> (B, C, H, W).

    Args:
        channels: C.
        pieces: linear functions (1x1 convolutions) for each output channel.
    """

    def __init__(self, channels: int, *, pieces: int = 2) -> None:
        super().__init__()
        self.pieces = pieces
        self.linear = nn.Conv2d(channels, channels * pieces, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).unflatten(1, (-1, self.pieces)).amax(2)


def _by_channel(values: Tensor, x: Tensor) -> Tensor:
    """(C,) -> (C, 1, ...), so that it meets the channels of (B, C, ...)."""
    return values.reshape(-1, *[1] * (x.ndim - 2))


def _wide(x: Tensor) -> Tensor:
    """`x` in float32 at least: in float16 the square of 256 is infinite."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _function(function: Callable[..., Tensor]) -> Callable[..., nn.Module]:
    @wraps(function)  # whose signature tells the options
    def make(channels: int | None, **options: float) -> nn.Module:
        return Elementwise(function, **options)

    return make


def _maxout(channels: int | None, pieces: int = 2) -> nn.Module:
    if channels is None:
        raise TypeError("it needs the number of channels")
    return Maxout(channels, pieces=pieces)


# name -> what makes it from the number of channels (None: unknown) and its options
ACTIVATIONS: dict[str, Callable[..., nn.Module]] = {
    "relu": lambda channels: nn.ReLU(inplace=True),  # Nair and Hinton, ICML 2010
    "leaky-relu": lambda channels, slope=0.2: nn.LeakyReLU(slope, inplace=True),  # Maas et al., ICML 2013
    "prelu": lambda channels, slope=0.25: nn.PReLU(channels or 1, init=slope),  # arXiv 1502.01852, equation 1
    "elu": lambda channels, alpha=1.0: nn.ELU(alpha, inplace=True),  # arXiv 1511.07289, equation 15
    "silu": lambda channels: nn.SiLU(inplace=True),  # arXiv 1702.03118, equation 8
    "swish": _function(swish),
    "e-swish": _function(e_swish),
    "mish": _function(mish),
    "beta-mish": _function(beta_mish),
    "mila": _function(mila),
    "elish": _function(elish),
    "hard-elish": _function(hard_elish),
    "sine-relu": _function(sine_relu),
    "aria-2": _function(aria2),
    "flatten-t-swish": _function(flatten_t_swish),
    "sqnl": _function(sqnl),
    "isru": _function(isru),
    "isrlu": _function(isrlu),
    "bent-identity": _function(bent_identity),
    "soft-clipping": _function(soft_clipping),
    "lecun-tanh": _function(lecun_tanh),
    "weighted-tanh": _function(weighted_tanh),
    "soft-exponential": lambda channels: SoftExponential(channels or 1),
    "apl": lambda channels, pieces=2: APL(channels or 1, pieces=pieces),
    "brelu": lambda channels: BReLU(),
    "maxout": _maxout,
}


def known(name: str) -> str:
    """The name, if an activation has it.

    Raises:
        UsageError: none has.
    """
    check_known("activation", name, ACTIVATIONS)
    return name


def activation(name: str, *, channels: int | None = None, **options: float) -> nn.Module:
    """An activation as a module; (B, C, H, W) -> same.

    Some write the result over their input (ReLU, leaky ReLU, ELU, SiLU), as between two layers nobody misses it.

    Args:
        name: a key of `ACTIVATIONS`.
        channels: C. Maxout needs it; PReLU, APL and soft exponential then learn their parameters per channel.
        options: of that activation, such as `slope` of "leaky-relu" or `beta` of "swish".

    Raises:
        UsageError: unknown name or option.
    """
    make = ACTIVATIONS[known(name)]
    allowed = list(inspect.signature(make).parameters)[1:]
    try:
        for key in options:
            check_known("option", key, allowed)
        return make(channels, **options)
    except (TypeError, UsageError) as error:
        raise UsageError(f"activation '{name}': {error}") from error
