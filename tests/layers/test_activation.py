"""Activations against the formulas of their papers, in float64, written another way."""

import copy
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch

from finescale.errors import UsageError
from finescale.layers.activation import ACTIVATIONS, APL, BReLU, Maxout, SoftExponential, activation

Array = npt.NDArray[np.float64]


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def log1pexp(x: Array) -> Array:
    return np.log(1 + np.exp(x))


def hard(x: Array) -> Array:
    return np.maximum(0, np.minimum(1, (x + 1) / 2))


FORMULAS: dict[str, Callable[[Array], Array]] = {
    "relu": lambda x: np.maximum(x, 0),
    "leaky-relu": lambda x: np.where(x > 0, x, 0.2 * x),
    "prelu": lambda x: np.where(x > 0, x, 0.25 * x),
    "elu": lambda x: np.where(x > 0, x, np.exp(x) - 1),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "swish": lambda x: x / (1 + np.exp(-1.25 * x)),
    "e-swish": lambda x: 1.375 * x / (1 + np.exp(-x)),
    "mish": lambda x: x * np.tanh(log1pexp(x)),
    "beta-mish": lambda x: x * np.tanh(np.log((1 + np.exp(x)) ** 1.5)),
    "mila": lambda x: x * np.tanh(log1pexp(x - 0.25)),
    "elish": lambda x: np.where(x >= 0, x * sigmoid(x), (np.exp(x) - 1) / (1 + np.exp(-x))),
    "hard-elish": lambda x: np.where(x >= 0, x * hard(x), (np.exp(x) - 1) * hard(x)),
    "sine-relu": lambda x: np.where(x > 0, x, 0.01 * (np.sin(x) - np.cos(x))),
    "aria-2": lambda x: x * (1 + np.exp(-0.5 * x)) ** -1.0,
    "flatten-t-swish": lambda x: np.where(x >= 0, x * sigmoid(x) - 0.2, -0.2),
    "sqnl": lambda x: np.select([x > 2, x >= 0, x >= -2], [np.ones_like(x), x - x**2 / 4, x + x**2 / 4], -1.0),
    "isru": lambda x: x / np.sqrt(1 + x**2),
    "isrlu": lambda x: np.where(x >= 0, x, x / np.sqrt(1 + x**2)),
    "bent-identity": lambda x: (np.sqrt(x**2 + 1) - 1) / 2 + x,
    "soft-clipping": lambda x: 2 * np.log((1 + np.exp(0.5 * x)) / (1 + np.exp(0.5 * (x - 1)))),
    "lecun-tanh": lambda x: 1.7159 * np.tanh(2 * x / 3),
    "weighted-tanh": lambda x: np.tanh(x),
    "soft-exponential": lambda x: x,
    "apl": lambda x: np.maximum(x, 0),
}


def grid() -> Array:
    special = [0.0, -0.0, 1e-30, -1e-30, 2.0, -2.0, 1.0, -1.0]
    return np.concatenate([np.linspace(-100, 100, 4001), special])


@pytest.mark.parametrize("name", FORMULAS)
def test_values_are_those_of_the_formula(name: str) -> None:
    x = grid()
    result = activation(name).double()(torch.from_numpy(x)[None].clone()).detach()[0].numpy()
    np.testing.assert_allclose(result, FORMULAS[name](x), rtol=1e-7, atol=1e-8)  # softplus is x beyond 20: 2e-9


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_values_and_gradients_are_finite_in_float32(name: str) -> None:
    torch.manual_seed(0)
    x = torch.from_numpy(grid()).float()[None, None].repeat(2, 4, 1)[..., None].requires_grad_()
    module = activation(name, channels=4)
    y = module(x * 1)  # some work in place
    y.sum().backward()
    assert y.shape == x.shape
    assert y.isfinite().all()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    for parameter in module.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_large_values_in_float16_are_about_those_of_float32(name: str) -> None:
    """There the square of 256 is infinite."""
    torch.manual_seed(0)
    module = activation(name, channels=4).half()
    x = torch.tensor([-300, -20, -1, -0.1, 0, 0.1, 1, 20, 300]).half()[None, None, :, None].repeat(2, 4, 1, 1)
    inputs = x.clone().requires_grad_()
    found = module(inputs * 1)
    found.sum().backward()
    assert found.dtype == torch.float16
    torch.testing.assert_close(found.float(), copy.deepcopy(module).float()(x.float()), rtol=2e-3, atol=2e-3)
    assert inputs.grad is not None
    assert inputs.grad.isfinite().all()


@pytest.mark.parametrize("name", [name for name in FORMULAS if name not in ("relu", "leaky-relu", "prelu", "apl")])
def test_gradients_are_those_of_the_formula(name: str) -> None:
    x = np.linspace(-8, 8, 158)  # keeps clear of the corners at 0, 1, -1, 2, -2
    inputs = torch.from_numpy(x)[None].requires_grad_()
    activation(name)(inputs * 1).sum().backward()
    assert inputs.grad is not None
    step = 1e-5
    slope = (FORMULAS[name](x + step) - FORMULAS[name](x - step)) / (2 * step)
    np.testing.assert_allclose(inputs.grad[0].numpy(), slope, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("alpha", [-0.7, -0.3, -1e-5, 0.0, 1e-5, 0.3, 1.0])
def test_soft_exponential(alpha: float) -> None:
    x = np.linspace(-0.5, 2, 41)
    module = SoftExponential().double()
    module.alpha.data.fill_(alpha)
    if alpha < 0:
        expected = -np.log(1 - alpha * (x + alpha)) / alpha
    elif alpha > 0:
        expected = (np.exp(alpha * x) - 1) / alpha + alpha
    else:
        expected = x
    np.testing.assert_allclose(module(torch.from_numpy(x)[None])[0].detach(), expected, rtol=1e-6, atol=1e-6)
    wide = torch.linspace(-100, 100, 401)[None].requires_grad_()
    module.float()(wide).sum().backward()
    assert wide.grad is not None
    assert module.alpha.grad is not None
    assert wide.grad.isfinite().all()
    assert module.alpha.grad.isfinite().all()


@pytest.mark.parametrize("alpha", [-0.01, -1e-3, -2e-4, 1e-3])
@pytest.mark.parametrize(("kind", "near"), [(torch.float32, 1e-5), (torch.bfloat16, 2**-8)])
def test_soft_exponential_close_to_the_identity(alpha: float, kind: torch.dtype, near: float) -> None:
    """There 1 - alpha (x + alpha) is 1 but for its last digits."""
    x = torch.linspace(-8, 8, 65)
    module = SoftExponential()
    module.alpha.data.fill_(alpha)
    exact = SoftExponential().double()
    exact.alpha.data.fill_(alpha)
    found, wanted = module(x.to(kind)[None]), exact(x.to(kind).double()[None])
    torch.testing.assert_close(found.double(), wanted, rtol=near, atol=1e-5)


@pytest.mark.parametrize(("kind", "x"), [(torch.bfloat16, 302.0), (torch.float32, 3e7), (torch.float64, 1e17)])
def test_soft_clipping_of_large_values_is_one(kind: torch.dtype, x: float) -> None:
    found = activation("soft-clipping")(torch.tensor([[x, -x]], dtype=kind))
    torch.testing.assert_close(found, torch.tensor([[1, 0]], dtype=kind), rtol=0, atol=0.01)


def test_apl_with_given_hinges() -> None:
    module = APL(2, pieces=2)
    module.slopes.data.copy_(torch.tensor([[0.5, 0.0], [-1.0, 2.0]]))
    module.hinges.data.copy_(torch.tensor([[0.0, 0.0], [1.0, -1.0]]))
    x = torch.tensor([-2.0, 0.5])[None, None, :, None].repeat(1, 2, 1, 1)
    expected = torch.tensor([[0.5 * 2 - 1.0 * 3, 0.5 - 1.0 * 0.5], [2.0 * 1, 0.5]])
    torch.testing.assert_close(module(x)[0, :, :, 0], expected)


def test_brelu_alternates_and_maxout_takes_the_largest() -> None:
    x = torch.tensor([-1.0, 2.0])[None, :, None, None].repeat(1, 2, 1, 1)
    assert BReLU()(x).flatten().tolist() == [0, 0, 0, 0]
    assert BReLU()(-x).flatten().tolist() == [1, -2, 1, -2]
    maxout = Maxout(4, pieces=3)
    z = maxout.linear(x).reshape(1, 4, 3, 1, 1)
    assert torch.equal(maxout(x), z.max(2).values)


def test_options_reach_the_function() -> None:
    x = torch.tensor([[-1.0, 1.0]])
    torch.testing.assert_close(activation("leaky-relu", slope=0.5)(x.clone()), torch.tensor([[-0.5, 1.0]]))
    torch.testing.assert_close(activation("swish", beta=0.0)(x), x / 2)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("reul", {}, "did you mean 'relu'"),
        ("relu", {"slope": 1.0}, "activation 'relu'"),
        ("swish", {"alpha": 1.0}, "no option 'alpha'"),
        ("maxout", {}, "needs the number of channels"),
    ],
)
def test_unknown_names_and_options(name: str, options: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        activation(name, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_misspelt_option_is_named(name: str) -> None:
    hint = "; did you mean 'slope'" if name in ("leaky-relu", "prelu") else ""
    with pytest.raises(UsageError, match=rf"^activation '{name}': there is no option 'slop'{hint}"):
        activation(name, channels=4, slop=0.1)
