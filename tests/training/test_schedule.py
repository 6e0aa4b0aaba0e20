"""The rate over a run; when parts of a network wake; what is averaged."""

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from finescale.errors import UsageError
from finescale.training import groups, recipe
from finescale.training.amounts import parse
from finescale.training.ema import EMA
from finescale.training.muon import Muon, orthogonal
from finescale.training.recipe import Group, Optimiser, Schedule
from finescale.training.schedule import Moment, factor

RECIPES = Path(__file__).resolve().parents[2] / "recipes"


@pytest.mark.parametrize("shape", ["cosine", "linear", "square root"])
def test_rises_stays_and_falls_to_nothing(shape: str) -> None:
    schedule = Schedule.model_validate({"shape": shape, "warmup": 0.1, "decay_from": 0.5})
    rates = [factor(schedule, Moment(i / 1000, i)) for i in range(1001)]
    assert 0 < rates[0] < 0.01
    assert rates[50] == pytest.approx(0.5)
    assert rates[100:501] == [1.0] * 401
    assert all(a > b for a, b in itertools.pairwise(rates[501:]))
    assert rates[-1] == 0
    assert rates[-2] < 0.05
    late = {"cosine": (1 - math.cos(math.pi / 4)) / 2, "linear": 1 / 4, "square root": 1 - math.sqrt(3 / 4)}
    assert rates[875] == pytest.approx(late[shape])


def test_halves_every_so_many_epochs() -> None:
    schedule = Schedule(kind="halving", warmup=0.0, halve_every=parse("30 epochs"))
    rates = [factor(schedule, Moment(0.5, step, epoch=50)) for step in (0, 1499, 1500, 2999, 3000)]
    assert rates == [1, 1, 0.5, 0.5, 0.25]
    late = Schedule(kind="halving", warmup=0.0, halve_every=parse("30 epochs"), halve_from=parse("10 epochs"))
    assert [factor(late, Moment(0.5, step, epoch=50)) for step in (1999, 2000)] == [1, 0.5]
    assert Schedule.model_validate({"halve_from": 0}).halve_from is None


def test_the_first_unets_encoder_wakes_at_its_own_rate_beside_the_decoder_at_full_rate() -> None:
    """Both are halved 30 epochs later."""
    unet = recipe.load(RECIPES / "unet-9-x4.toml", schedule="original")
    (group,) = unet.active_groups
    seen = {}
    for epoch in (29, 30, 59, 60, 89, 90):
        now = Moment(0.1, epoch * 50, epoch=50)
        decoder = unet.optimiser.rate * factor(unet.schedule, now)
        seen[epoch] = decoder, decoder * group.rate if now.past(group.frozen_until) else None
    assert seen == {
        29: (1e-4, None),
        30: (1e-4, pytest.approx(1e-5)),
        59: (1e-4, pytest.approx(1e-5)),
        60: (5e-5, pytest.approx(5e-6)),
        89: (5e-5, pytest.approx(5e-6)),
        90: (2.5e-5, pytest.approx(2.5e-6)),
    }


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        self.tail = nn.Conv2d(4, 3, 1)


@pytest.mark.parametrize("pretrained", [False, True])
def test_groups_wake_in_turn_and_their_norms_rest_until_then(pretrained: bool) -> None:
    network = Net().train()
    first, second = (
        Group(match="encoder.0", rate=0.1, frozen_until=0.5),
        Group(match="encoder", frozen_until=parse("10")),
    )
    wanted = (first, second.model_copy(update={"pretrained": pretrained}))
    members = groups.assign(network, wanted)
    assert [m.names for m in members] == [
        ["encoder.0.weight", "encoder.0.bias"],
        ["encoder.1.weight", "encoder.1.bias"],
        ["tail.weight", "tail.bias"],
    ]

    def awake(now: Moment) -> list[bool]:
        groups.freeze(members, now)
        first, norm = network.get_parameter("encoder.0.weight"), network.encoder[1]
        assert norm.weight.requires_grad == (now.step >= 10)
        return [first.requires_grad, norm.training, network.tail.weight.requires_grad]

    assert awake(Moment(0.0, 0)) == [False, False, True]
    assert awake(Moment(0.4, 10)) == [False, not pretrained, True]  # pretrained norms learn, but do not move
    assert awake(Moment(0.5, 12)) == [True, not pretrained, True]
    assert not groups.freeze(members, Moment(0.6, 13))  # nothing changes any more
    optimiser = groups.optimiser(members, Optimiser(rate=1e-3))
    assert [group["multiple"] for group in optimiser.param_groups] == [0.1, 1.0, 1.0]


def test_muon_takes_the_matrices_of_each_group() -> None:
    network = nn.Sequential(nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3))
    optimiser = groups.optimiser(groups.assign(network, ()), Optimiser(kind="muon"))
    matrices = [p for group in optimiser.param_groups if group["matrices"] for p in group["params"]]
    assert len(matrices) == 1
    assert matrices[0] is network[1].weight
    assert sum(len(group["params"]) for group in optimiser.param_groups) == 4


@pytest.mark.parametrize("shape", [(3, 32, 288), (2, 96, 16)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_muons_directions_are_orthogonal(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    found = orthogonal(matrices.to(dtype)).float()
    values = torch.linalg.svdvals(found)
    assert 0.6 < values.min() <= values.max() < 1.25
    assert torch.nn.functional.cosine_similarity(found.flatten(), (left @ right).flatten(), dim=0) > 0.97


@pytest.mark.parametrize("kind", ["kernel", "tall kernel", "flat kernel", "line", "matrix"])
def test_muons_steps_are_the_same_however_a_kernel_lies_in_memory(kind: str) -> None:
    """And those of the method as it is written down, whose columns are in the order of the shape."""
    sizes = {"kernel": (16, 24, 3, 3), "tall kernel": (64, 16, 1, 2), "flat kernel": (16, 24, 1, 1)}
    size = {**sizes, "line": (16, 24, 3), "matrix": (16, 24)}[kind]
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(2, *size, generator=generator)
    gradients = torch.randn(3, 2, *size, generator=generator)
    ends, momenta = [], []
    for layout in (torch.contiguous_format, torch.channels_last):
        kept = {"memory_format": layout if len(size) == 4 else torch.contiguous_format}
        parameters = [nn.Parameter(one.clone().contiguous(**kept)) for one in start]
        optimiser = Muon([{"params": parameters, "matrices": True}], lr=0.1)
        for step in gradients:
            for parameter, gradient in zip(parameters, step, strict=True):
                parameter.grad = gradient.contiguous(**kept)
            optimiser.found_inf = torch.zeros(())  # type: ignore[attr-defined]
            optimiser.step()
            for parameter in parameters:  # a step that is not finite changes nothing
                parameter.grad = torch.full_like(parameter, torch.nan)
            optimiser.found_inf = torch.ones(())  # type: ignore[attr-defined]
            optimiser.step()
        ends.append(torch.stack([parameter.detach() for parameter in parameters]))
        momenta.append(torch.stack([optimiser.state[parameter]["momentum"] for parameter in parameters]))
    momentum, expected = torch.zeros_like(start), start.clone()
    for step in gradients:
        momentum = 0.95 * momentum + 0.05 * step
        ahead = (0.05 * step + 0.95 * momentum).flatten(2)
        expected -= 0.1 * 0.2 * max(ahead.shape[1:]) ** 0.5 * orthogonal(ahead).view_as(start)
    for end, kept_momentum in zip(ends, momenta, strict=True):
        torch.testing.assert_close(kept_momentum, momentum, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(end, expected, rtol=1e-4, atol=1e-4)


class Operations(TorchDispatchMode):
    """Counts those that compute or copy something; on a GPU each is a kernel or a few."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("size", [(16, 24, 3, 3), (64, 16, 1, 1), (16, 24)])
def test_muon_works_on_all_matrices_of_a_shape_at_once(size: tuple[int, ...]) -> None:
    counts = []
    for number in (2, 9):
        tensors = torch.rand(2, number, *size)
        layout = torch.channels_last if len(size) == 4 else torch.contiguous_format
        parameters = [nn.Parameter(one.contiguous(memory_format=layout)) for one in tensors[0]]
        optimiser = Muon([{"params": parameters, "matrices": True}], lr=0.1)
        optimiser.found_inf = torch.zeros(())  # type: ignore[attr-defined]
        for parameter, gradient in zip(parameters, tensors[1], strict=True):
            parameter.grad = gradient.contiguous(memory_format=layout)
        optimiser.step()  # makes the state
        with Operations() as operations:  # type: ignore[no-untyped-call]
            optimiser.step()
        counts.append(operations.count)
    assert counts[0] == counts[1]


def test_a_group_that_matches_nothing_is_an_error() -> None:
    with pytest.raises(UsageError, match="starts with 'encodr'; did you mean 'encoder'"):
        groups.assign(Net(), (Group(match="encodr"),))


def test_the_average_of_weights_and_running_statistics() -> None:
    torch.manual_seed(0)
    network = Net().train()
    average = EMA(network, 0.5)
    expected = network.tail.weight.detach().clone()
    for n in range(1, 4):
        with torch.no_grad():
            network.tail.weight.add_(1)
        network.encoder(torch.randn(2, 3, 4, 4))
        average.update()
        decay = min(0.5, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * network.tail.weight.detach()
    own = {name: value.clone() for name, value in network.state_dict().items()}
    with average.applied():
        torch.testing.assert_close(network.tail.weight, expected, rtol=1e-6, atol=1e-6)
        assert not torch.equal(network.get_buffer("encoder.1.running_mean"), own["encoder.1.running_mean"])
        assert network.get_buffer("encoder.1.num_batches_tracked") == 3
    for name, value in network.state_dict().items():
        assert torch.equal(value, own[name])


def test_spectral_norms_vectors_are_copied_not_averaged() -> None:
    network = nn.utils.parametrizations.spectral_norm(nn.Conv2d(4, 4, 1))
    average = EMA(network, 0.9)
    for _ in range(3):
        network(torch.randn(1, 4, 2, 2))
        average.update()
    name = "parametrizations.weight.0._u"
    u = network.get_buffer(name).clone()
    with average.applied():
        assert torch.equal(network.get_buffer(name), u)
