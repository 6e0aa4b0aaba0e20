"""A recorded step is the step itself."""

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from tests.training.test_loop import MakeTraining, Record, assert_same
from torch import Tensor, nn

from finescale.networks import catalogue
from finescale.training import checkpoints, loop
from finescale.training.capture import Captured
from finescale.training.loop import Training
from finescale.training.parallel import World
from finescale.training.recipe import parse_recipe
from finescale.training.weights import StepWeights

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need an NVIDIA GPU; none is here")


class Random:
    """Different crops at every step, the same for every run."""

    def __init__(self, patch: int) -> None:
        self.patch, self.generator = patch, torch.Generator().manual_seed(0)

    def batch(self, count: int) -> tuple[Tensor, Tensor]:
        high = torch.rand((count, 3, 2 * self.patch, 2 * self.patch), generator=self.generator)
        low = nn.functional.avg_pool2d(high, 2)
        return tuple(t.to("cuda", memory_format=torch.channels_last) for t in (low, high))  # type: ignore[return-value]

    def set_patch(self, patch: int) -> None:
        self.patch = patch


def trained(tmp_path: Path, network: str, compile: str, precision: str, *, capture: bool) -> tuple[Training, list[str]]:
    small = {"channels": 16, "groups": 2, "blocks": 2, "reduction": 4, "attention_reduction": 2}
    recipe = parse_recipe(
        {
            "network": network,
            "scale": 2,
            "arguments": small if network == "sa-rcan" else {},
            "budget": 20,
            "precision": precision,
            "compile": compile,
            "data": {"batch": 2, "patch": 32, "late_patch": 48, "late_from": 0.6},
            "optimiser": {"kind": "muon", "rate": 1e-3},
            "groups": [{"match": "tail" if network == "sa-rcan" else "out"}, {"match": "", "frozen_until": 0.2}],
        },
        "a test",
    )
    torch.manual_seed(0)
    record = Record()
    training = Training(
        catalogue.build(network, scale=2, **recipe.arguments).cuda(),
        Random(32),
        recipe,
        nn.functional.l1_loss,
        world=World(0, 1, torch.device("cuda", 0)),
        out=tmp_path / f"{network}-{compile}-{capture}",
        observers=[record],
        capture=capture,
    )
    assert training.run()
    return training, record.lines


@needs_gpu
@pytest.mark.parametrize(
    ("network", "compile", "precision", "tolerance"),
    [
        ("sa-rcan", "off", "float32", 5e-3),
        ("sa-rcan", "blocks", "float32", 5e-3),
        ("unet-9", "off", "float32", 5e-3),
        ("sa-rcan", "off", "bfloat16", 2e-2),
        ("sa-rcan", "blocks", "bfloat16", 2e-2),
    ],
)
def test_recorded_steps_equal_others(
    tmp_path: Path, network: str, compile: str, precision: str, tolerance: float
) -> None:
    """Through a thaw of frozen parameters and a change of the crops' size."""
    (recorded, lines), (other, _) = (trained(tmp_path, network, compile, precision, capture=c) for c in (True, False))
    assert not [line for line in lines if "recorded" in line]
    assert recorded._captured is not None
    assert other._captured is None
    for (name, mine), theirs in zip(recorded.network.state_dict().items(), other.network.state_dict().values()):
        if (
            mine.is_floating_point()
        ):  # cuDNN adds up in another order every time, and the statistics of norms drift most
            difference = (mine - theirs).abs().max()
            assert difference <= tolerance * theirs.abs().max() + tolerance, (name, float(difference))
    assert recorded.progress.loss == pytest.approx(other.progress.loss, rel=2 * tolerance)
    if precision == "bfloat16":  # of which that may be all: the way that both went is the same (on a CPU within 0.02)
        torch.manual_seed(0)
        start = catalogue.build(network, scale=2, **other.recipe.arguments).cuda().state_dict()
        ends = [
            torch.cat([(p - start[name]).detach().flatten() for name, p in run.network.named_parameters()])
            for run in (recorded, other)
        ]
        assert (ends[0] - ends[1]).norm() <= 0.3 * ends[1].norm()


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_collected_while_a_step_is_recorded(monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    monkeypatch.setattr(torch, "cuda", MagicMock())  # records nothing
    network, seen = nn.Conv2d(3, 3, 1), list[bool]()

    def loss(low: Tensor, high: Tensor) -> Tensor:
        seen.append(gc.isenabled())
        if fails and not seen[-1]:
            raise RuntimeError("it cannot be recorded")
        return nn.functional.l1_loss(network(low), high)

    low = torch.rand(1, 3, 4, 4)
    if fails:
        with pytest.raises(RuntimeError, match="it cannot be recorded"):
            Captured(loss, network, low, low)
    else:
        Captured(loss, network, low, low)
    assert seen == [True, True, True, False]
    assert gc.isenabled()


class Replayed:
    """Stands for `Captured` on the CPU: gradients stay in the tensors that they were first in."""

    def __init__(self, loss: Callable[[Tensor, Tensor], Tensor], network: nn.Module, low: Tensor, high: Tensor) -> None:
        self.loss = loss
        buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
        network.zero_grad(set_to_none=True)
        loss(low, high).backward()
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        self.gradients = [(p, p.grad) for p in network.parameters() if p.grad is not None]

    def __call__(self, low: Tensor, high: Tensor) -> Tensor:
        for parameter, gradient in self.gradients:
            assert parameter.grad is gradient
            gradient.zero_()
        value = self.loss(low, high)
        value.backward()
        return value.detach()


KEYS: dict[str, Any] = {
    "budget": 10,
    "loss": {"l1": 1.0, "l2": 0.5},
    "groups": [{"match": "tail"}, {"match": "", "frozen_until": 0.3}],
}


def test_a_step_is_recorded_before_the_first_and_for_every_form(
    make_training: MakeTraining, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And the run is what it is without, interrupted or not."""
    at: list[int] = []
    training: Training

    def record(*args: Any) -> Replayed:
        at.append(training.progress.step)
        return Replayed(*args)

    monkeypatch.setattr(loop, "Captured", record)
    plain = make_training(out=tmp_path / "plain", **KEYS)
    assert plain.run()
    training = make_training(out=tmp_path / "recorded", **KEYS)
    training._capture = True
    before = {name: value.clone() for name, value in training.network.state_dict().items()}
    chance = torch.get_rng_state(), training.crops.generator.get_state()
    training.prepare()
    assert at == [0]
    assert all(torch.equal(value, before[name]) for name, value in training.network.state_dict().items())
    assert all(map(torch.equal, chance, (torch.get_rng_state(), training.crops.generator.get_state())))
    assert {n for n, p in training.network.named_parameters() if p.grad is not None} == {
        n for n in before if n.startswith("tail")
    }
    for _ in range(4):
        training.step()
    assert at == [0, 3]
    training._tick()
    training.save()
    state = checkpoints.read_last(training.out)
    assert state is not None
    training = make_training(out=tmp_path / "resumed", **KEYS)
    training._capture = True
    training.restore(state)
    at.clear()
    assert training.run()
    assert at == [4, 6]
    assert training.progress.terms.keys() == {"l1", "l2"}
    ends = [checkpoints.read(tmp_path / name / "last.ckpt") for name in ("plain", "resumed")]
    for end in ends:
        del end["progress"]["prepared"]  # a time
    assert_same(*ends)


@pytest.mark.parametrize("failures", [1, 2])
def test_a_recording_that_fails_is_tried_with_plain_weights_and_then_not(
    make_training: MakeTraining, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    tries = 0

    def record(*args: Any) -> Replayed:
        nonlocal tries
        tries += 1
        if tries <= failures:
            raise RuntimeError("it cannot be captured\nand much more")
        return Replayed(*args)

    monkeypatch.setattr(loop, "Captured", record)
    watcher = Record()
    training = make_training(budget=2, observers=[watcher])
    training._capture, training._weights = True, StepWeights(training.network, torch.bfloat16)
    assert training.run()
    assert tries == 2
    told = [line for line in watcher.lines if "could not be recorded (it cannot be captured)" in line]
    assert ["layer by layer" in line for line in told] == [True, False][:failures]
    assert (training._captured is None) == (failures == 2)
    assert vars(training)["_weights"] is None
    assert training.progress.skipped == 0
