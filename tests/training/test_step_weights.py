"""Weights made for all layers at once are those that every layer makes for itself."""

import copy
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.test_loop import OneCrop
from torch import Tensor, nn

from finescale.layers.spectral import SpectralNorm, spectral_norm
from finescale.networks import catalogue
from finescale.networks.base import Network
from finescale.training.loop import Training, compile_network
from finescale.training.parallel import World
from finescale.training.recipe import parse_recipe
from finescale.training.weights import StepWeights

NARROW = {"widths": (32, 16, 16, 8, 8), "blocks": (1, 1, 1, 1), "head": 8}
SMALL: dict[str, dict[str, Any]] = {
    "sa-rcan": {"channels": 16, "groups": 2, "blocks": 2, "reduction": 4, "attention_reduction": 4},
    "unet-9": {"encoder": "resnet18", "norm": "spectral", **NARROW},
    "unet-1": {"encoder": "plain", "norm": "batch", **NARROW},
}


@pytest.mark.parametrize(
    ("name", "compile", "dtype", "tolerance"),
    [
        ("sa-rcan", "off", torch.float64, 1e-9),
        ("unet-9", "off", torch.float64, 1e-9),
        ("unet-1", "off", torch.float64, 1e-9),
        ("sa-rcan", "off", torch.bfloat16, 2e-2),
        pytest.param("sa-rcan", "blocks", torch.bfloat16, 2e-2, marks=pytest.mark.slow),
    ],
)
def test_a_step_is_the_same(name: str, compile: str, dtype: torch.dtype, tolerance: float) -> None:
    """Output, gradients and the vectors of spectral norms, with some of the network frozen."""
    torch.manual_seed(0)
    plain = catalogue.build(name, scale=2, **SMALL[name])
    for part, parameter in plain.named_parameters():
        if part.endswith("gamma"):
            nn.init.constant_(parameter, 0.1)
    plain.train().to(torch.float64 if dtype == torch.float64 else torch.float32)
    plain.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    frozen = plain.get_submodule("head" if name == "sa-rcan" else "encoder")
    frozen.requires_grad_(False).eval()
    together = copy.deepcopy(plain)
    compile_network(together, compile)
    weights = StepWeights(together, dtype)
    x = torch.rand(2, 3, 32, 32, dtype=next(plain.parameters()).dtype)
    for _ in range(2):
        outputs = []
        for network, call in ((plain, plain), (together, weights)):
            network.zero_grad()
            with nullcontext() if dtype == torch.float64 else torch.autocast("cpu", dtype):
                output = call(x)
            output.to(x.dtype).square().mean().backward()
            outputs.append(output.to(x.dtype))
        assert (outputs[1] - outputs[0]).abs().max() <= tolerance * outputs[0].abs().max()
        largest = max(float(p.grad.norm()) for p in plain.parameters() if p.grad is not None)
        for (part, mine), theirs in zip(together.named_parameters(), plain.parameters(), strict=True):
            assert (mine.grad is None) == (theirs.grad is None), part
            if mine.grad is not None and theirs.grad is not None:
                assert mine.grad.dtype == mine.dtype
                difference = float((mine.grad - theirs.grad).norm())
                # some gradients are next to nothing, and all rounding
                assert difference <= 5 * tolerance * (float(theirs.grad.norm()) + 1e-3 * largest), part
        for (part, ours), others in zip(together.named_buffers(), plain.buffers(), strict=True):
            assert torch.allclose(ours.double(), others.double(), rtol=tolerance, atol=tolerance), part
    assert not any(module.given for module in together.modules() if isinstance(module, SpectralNorm))


def test_weights_that_are_used_for_more_are_left_alone() -> None:
    """A layer of another class, or with another parametrisation, may compute with its weight in float32."""

    class Standardised(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            assert self.weight.dtype == torch.float32
            return nn.functional.conv2d(x, self.weight - self.weight.mean(), self.bias, padding=1)

    torch.manual_seed(0)
    weighted = nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 1))
    network = nn.Sequential(Standardised(3, 4, 3, padding=1), weighted, spectral_norm(nn.Conv2d(4, 3, 1))).train()
    weights = StepWeights(network, torch.bfloat16)
    assert set(weights._rounded) == {"2.parametrizations.weight.original", "2.bias"}
    x = torch.rand(1, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        network.eval()
        assert torch.equal(weights(x), network(x))


class Island(Network):
    """Computes some of itself in float32 whatever autocast says."""

    def __init__(self, *, scale: int) -> None:
        super().__init__(scale=scale)
        self.first, self.second = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(12, 12, 3, padding=1)

    def enlarge(self, x: Tensor) -> Tensor:
        x = self.first(x)
        with torch.autocast("cpu", enabled=False):
            x = self.second(x.float())
        return nn.functional.pixel_shuffle(x, 2)


def test_a_network_for_which_they_are_wrong_trains_without_them(tmp_path: Path) -> None:
    """On a GPU that is found out before the first step; here it is asked for by hand."""
    recipe = parse_recipe(
        {"network": "rcan", "scale": 2, "budget": 3, "precision": "bfloat16", "data": {"batch": 1, "patch": 18}},
        "a test",
    )
    network, cpu = Island(scale=2), torch.device("cpu")
    training = Training(network, OneCrop(18), recipe, nn.functional.l1_loss, world=World(0, 1, cpu), out=tmp_path)
    training._weights = StepWeights(network, torch.bfloat16)
    low, high = training.crops.batch(1)
    training._prepare(low, high)
    assert vars(training)["_weights"] is None
    assert training.run()


def test_other_chains_of_parametrisations_are_left_alone() -> None:
    layer = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 3, 1))
    weights = StepWeights(spectral_norm(layer).train(), torch.bfloat16)
    assert not weights._norms
    assert not weights._rounded
    with torch.autocast("cpu", torch.bfloat16):
        assert weights(torch.rand(1, 3, 8, 8)).shape == (1, 3, 8, 8)
