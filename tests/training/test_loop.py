"""The loop learns, keeps its budget, continues exactly, and survives bad numbers."""

import math
import random
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from finescale.errors import FinescaleError, FinescaleWarning, UsageError
from finescale.networks import catalogue
from finescale.training import checkpoints, loop, parallel
from finescale.training.amounts import Amount, parse
from finescale.training.loop import Progress, Training
from finescale.training.losses import Mix
from finescale.training.parallel import World, synchronise_norms
from finescale.training.recipe import parse_recipe
from finescale.training.run import check_norms, make_network
from finescale.training.schedule import Moment
from finescale.training.weights import StepWeights

MakeTraining = Callable[..., Training]


class Record:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.spent: list[float] = []
        self.lines: list[str] = []
        self.scores: list[float] = []

    def tick(self, progress: Progress) -> None:
        self.rates.append(progress.rate)
        self.spent.append(progress.spent)

    def validated(self, progress: Progress, samples: Sequence[Tensor]) -> None:
        self.scores.append(progress.psnr)

    def said(self, text: str) -> None:
        self.lines.append(text)

    def close(self) -> None: ...


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """Leaves of a nested state by their path."""
    if isinstance(value, dict):
        return {k: v for key, inner in value.items() for k, v in flat(inner, f"{path}/{key}").items()}
    if isinstance(value, list | tuple):
        return {k: v for i, inner in enumerate(value) for k, v in flat(inner, f"{path}/{i}").items()}
    return {path: value}


def assert_same(a: dict[str, Any], b: dict[str, Any]) -> None:
    """Bit for bit, but for times."""
    clock = ("/progress/seconds", "/progress/per_second", "/progress/loss", "/progress/lowest", "/took/checkpoint")
    first, second = flat(a), flat(b)
    assert first.keys() == second.keys()
    for key, value in first.items():
        other = second[key]
        both_nan = value is not None and not isinstance(value, Tensor) and value != value and other != other
        same = torch.equal(value, other) if isinstance(value, Tensor) else value == other or both_nan
        assert same or key in clock or key.startswith("/progress/terms/"), key


class OneCrop:
    """The same crop again and again."""

    def __init__(self, patch: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.high = nn.functional.interpolate(
            torch.rand(1, 3, 9, 9, generator=generator), scale_factor=4, mode="bicubic"
        )
        self.high = self.high.clamp(0, 1)
        self.low = nn.functional.avg_pool2d(self.high, 2)
        self.patch, self.generator = patch, generator

    def batch(self, count: int) -> tuple[Tensor, Tensor]:
        return self.low, self.high

    def set_patch(self, patch: int) -> None:
        self.patch = patch


@pytest.mark.parametrize("kind", [pytest.param("adam", marks=pytest.mark.slow), "muon"])
def test_learns_one_picture_by_heart(make_training: MakeTraining, kind: str) -> None:
    crops = OneCrop(18)
    arguments = {"channels": 16, "groups": 1, "blocks": 2, "attention": None}
    training = make_training(
        budget=250,
        crops=crops,
        arguments=arguments,
        optimiser={"rate": 5e-3, "kind": kind},
        data={"batch": 1, "patch": 18},
    )
    assert training.run()
    with training.ema.applied(), torch.no_grad():
        error = float((training.network.eval()(crops.low) - crops.high).square().mean())
    assert 10 * math.log10(1 / error) > 33
    nearest = float((nn.functional.interpolate(crops.low, scale_factor=2) - crops.high).square().mean())
    assert error < nearest / 4


@pytest.mark.parametrize("kind", [pytest.param("adam", marks=pytest.mark.slow), "muon"])
def test_interrupted_and_resumed_equals_uninterrupted(make_training: MakeTraining, tmp_path: Path, kind: str) -> None:
    groups = [{"match": "tail", "rate": 0.5}, {"match": "", "frozen_until": 0.2}]
    keys: dict[str, Any] = {
        "budget": 40,
        "groups": groups,
        "optimiser": {"kind": kind},
        "loss": {"l1": 1.0, "tv": 1e-6},
    }
    keys["arguments"] = {"channels": 16, "groups": 1, "blocks": 2, "attention_reduction": 4}
    whole = make_training(out=tmp_path / "whole", **keys)
    assert whole.run()
    first = make_training(out=tmp_path / "parts", **keys)
    for _ in range(2):
        while first.progress.step % 13 != 12:
            first.step()
        first.step()
        first._tick()
        first.save()
        # everything else that draws random numbers in between must not matter
        torch.rand(7)
        state = checkpoints.read_last(tmp_path / "parts")
        assert state is not None
        first = make_training(out=tmp_path / "parts", **keys)
        first.restore(state)
    assert first.run()
    assert_same(checkpoints.read(tmp_path / "whole" / "last.ckpt"), checkpoints.read(tmp_path / "parts" / "last.ckpt"))


def test_a_run_that_is_often_interrupted_is_validated_as_often(make_training: MakeTraining) -> None:
    at: list[int] = []

    def validate(network: nn.Module, last: bool) -> tuple[float, float, Sequence[Tensor]]:
        at.append(training.progress.step)
        return 20.0, 0.5, []

    class Stop(Record):
        def tick(self, progress: Progress) -> None:
            if progress.step % 7 == 6:
                training.request_stop()

    state = None
    for _ in range(10):
        training = make_training(budget=40, validate=validate, validate_every=10, observers=[Stop()])
        training._tick_length = 1
        if state is not None:
            training.restore(state)
        training._tick = one_at_a_time(training)  # type: ignore[method-assign]
        if training.run():
            break
        state = checkpoints.read_last(training.out)
    assert training.finished
    assert at == [10, 20, 30, 40]


def one_at_a_time(training: Training) -> Callable[[], bool]:
    """Its tick, after every step and not about twice a second."""
    tick = training._tick

    def after_a_step() -> bool:
        stop = tick()
        training._tick_length = 1
        return stop

    return after_a_step


def test_a_stop_is_saved_and_a_longer_budget_goes_on_before_the_decay(make_training: MakeTraining) -> None:
    training = make_training(budget=30)
    training.request_stop()
    assert not training.run()
    state = checkpoints.read_last(training.out)
    assert state is not None
    assert 0 < state["progress"]["step"] < 30
    longer = make_training(budget=60)
    longer.restore(state)
    assert longer.progress.spent == state["progress"]["step"] / 60
    assert longer.run()
    assert longer.progress.step == 60


class Clock:
    """Stands for the module `time` on a machine where everything takes as long as one likes."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.mark.parametrize("budget", ["5m", "20m"])
def test_a_budget_in_time_is_kept_and_ends_fully_decayed(
    make_training: MakeTraining, monkeypatch: pytest.MonkeyPatch, budget: str
) -> None:
    """On a clock of its own: uneven steps that take twice as long in the second half, validations and checkpoints."""
    clock, dice, record = Clock(), random.Random(0), Record()
    monkeypatch.setattr(loop, "time", clock)
    seconds = parse(budget).value

    def slow(output: Tensor, target: Tensor) -> Tensor:
        late = clock.now - 1000 > seconds / 2
        clock.now += dice.uniform(0.5, 1.5) * seconds / 200 * (2 if late else 1)
        return (output - target).abs().mean()

    def validate(network: nn.Module, last: bool) -> tuple[float, float, Sequence[Tensor]]:
        clock.now += 7
        return 30.0, math.nan, []

    training = make_training(
        budget=budget,
        observers=[record],
        validate=validate,
        validate_every="2m",
        arguments={"channels": 4, "groups": 1, "blocks": 1, "attention": None},
        data={"batch": 1, "patch": 8},
    )
    training.objective = slow
    save = training.save

    def saving(*, best: bool = False) -> None:
        save(best=best)
        clock.now += 1

    monkeypatch.setattr(training, "save", saving)
    assert training.run()
    assert abs(clock.now - 1000 - seconds) < 0.02 * seconds
    assert max(record.rates) == training.recipe.optimiser.rate
    assert record.rates[-1] < 0.01 * max(record.rates)
    assert record.spent[-1] == 1


@pytest.mark.parametrize("last", [0.5, 20])  # seconds of the last validation
def test_a_finished_run_stays_finished(
    make_training: MakeTraining, monkeypatch: pytest.MonkeyPatch, last: float
) -> None:
    """Though what validations take is part of the budget, and they never take the same."""
    clock = Clock()
    monkeypatch.setattr(loop, "time", clock)

    def start(budget: str) -> Training:
        training = make_training(budget=budget, validate=validate, validate_every="20s", save_every="1h")
        objective = training.objective

        def slow(output: Tensor, target: Tensor) -> Tensor:
            clock.now += 1
            return objective(output, target)

        training.objective = slow
        return training

    def validate(network: nn.Module, is_last: bool) -> tuple[float, float, Sequence[Tensor]]:
        clock.now += last if is_last else 10
        return 30.0, math.nan, []

    assert start("2m").run()
    state = checkpoints.read_last(start("2m").out)
    assert state is not None
    again = start("120s")
    again.restore(state)
    monkeypatch.setattr(again, "prepare", lambda: pytest.fail("compiled for nothing"))
    monkeypatch.setattr(again, "step", lambda: pytest.fail("trained beyond its budget"))
    assert again.run()
    longer = start("10m")
    longer.restore(state)
    assert longer.progress.spent == pytest.approx(state["progress"]["seconds"] / (600 - state["took"]["validation"]))
    assert longer._took == state["took"]


def test_a_checkpoint_of_other_groups_is_one_sentence(make_training: MakeTraining) -> None:
    training = make_training(budget=4)
    training.step()
    training.save()
    other = make_training(budget=4, groups=[{"match": "tail"}])
    with pytest.raises(UsageError, match="the checkpoint's optimiser has other groups of parameters than this run"):
        other.restore(checkpoints.read(training.out / "last.ckpt"))


@pytest.mark.slow
def test_a_budget_in_real_time(make_training: MakeTraining) -> None:
    training = make_training(budget="3s", save_every="1s")
    training.optimiser.step()  # loads the kernels
    started = time.monotonic()
    assert training.run()
    # within 2 % of a real budget; here a tick and the noise of a busy machine are larger than that
    assert 2.5 < time.monotonic() - started < 6


def test_larger_crops_late(make_training: MakeTraining) -> None:
    training = make_training(budget=10)
    sides = []
    while not training._spent_all_steps:
        training.step()
        sides.append(training.crops.patch)
    assert sides == [12] * 6 + [16] * 4


def test_steps_that_are_not_finite_are_skipped_and_told(make_training: MakeTraining) -> None:
    record = Record()
    training = make_training(budget=6, observers=[record], optimiser={"average": 0.5})
    training.step()
    before = {name: value.clone() for name, value in training.network.named_parameters()}
    moments = [state["exp_avg"].clone() for state in training.optimiser.state.values()]
    objective, training.objective = training.objective, lambda output, target: output.sum() * math.nan
    training.step()
    for name, value in training.network.named_parameters():
        assert torch.equal(value, before[name])
    for moment, state in zip(moments, training.optimiser.state.values()):
        assert torch.equal(moment, state["exp_avg"])
    training.objective = objective
    assert training.run()
    assert training.progress.skipped == 1
    assert math.isfinite(training.progress.loss)
    assert record.lines == ["1 steps were skipped: their gradient was not finite"]
    assert any(not torch.equal(value, before[name]) for name, value in training.network.named_parameters())


def test_running_statistics_do_not_take_in_what_is_not_finite(make_training: MakeTraining) -> None:
    arguments = {"widths": [16, 8, 8, 8, 8], "norm": "batch", "head": 8}
    training = make_training(network="unet", arguments=arguments, budget=3, data={"batch": 2, "patch": 16})
    training.step()
    before = {name: value.clone() for name, value in training.network.named_buffers() if "running" in name}
    assert before
    batch = training.crops.batch
    training.crops.batch = lambda count: (batch(count)[0] * math.nan, batch(count)[1])  # type: ignore[method-assign]
    training.step()
    for name, value in before.items():
        assert torch.equal(training.network.get_buffer(name), value)
    training.crops.batch = batch  # type: ignore[method-assign]
    training.step()
    assert all(torch.isfinite(mean).all() for mean in training.ema.mean.values())
    assert not torch.equal(training.network.get_buffer(name), value)
    # nor right after a run is gone on with
    training.save()
    saved = checkpoints.read(training.out / "last.ckpt")
    again = make_training(network="unet", arguments=arguments, budget=4, data={"batch": 2, "patch": 16})
    again.restore(saved)
    again.crops.batch = lambda count: (batch(count)[0] * math.nan, batch(count)[1])  # type: ignore[method-assign]
    again.step()
    for name in before:
        assert torch.equal(again.network.get_buffer(name), saved["network"][name])


@pytest.mark.slow
def test_a_run_of_nothing_but_nonsense_ends(make_training: MakeTraining) -> None:
    training = make_training(budget="1M", optimiser={"average": 0})
    training.objective = lambda output, target: output.sum() * math.inf
    with pytest.raises(FinescaleError, match=r"optimiser\.rate"):
        training.run()


def test_a_run_that_diverges_ends(make_training: MakeTraining, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(loop, "_TICK", 0.0)  # every step
    monkeypatch.setattr(loop, "_SETTLED", 10)
    crops = OneCrop(18)

    def start(rises_at: int, **keys: Any) -> Training:
        training = make_training(budget=60, crops=crops, data={"batch": 1, "patch": 18}, **keys)
        objective = training.objective

        def risen(output: Tensor, target: Tensor) -> Tensor:
            step = training.progress.step
            if step < 3:  # an easy start is not what later losses are held to
                return objective(output, target) * 1e-6
            high = 15 <= step < 18 or step >= rises_at  # from three bad steps a run recovers
            return objective(output, target) * (1e3 if high else 1)

        training.objective = risen
        return training

    for unharmed in (start(100), start(20, diverged=0)):
        assert unharmed.run()
    with pytest.raises(FinescaleError, match=r"the loss rose from .* was stopped at step 30; a lower optimiser\.rate"):
        start(20).run()
    # what it was is not forgotten when the run goes on
    stopped = start(20, out=tmp_path / "stopped")
    while stopped.progress.step < 25:
        stopped.step()
        stopped._tick()
    stopped.save()
    again = start(20)
    again.restore(checkpoints.read(stopped.out / "last.ckpt"))
    with pytest.raises(FinescaleError, match=r"was stopped at step 35"):
        again.run()


def test_an_interval_in_steps_is_kept_to_the_step(make_training: MakeTraining) -> None:
    record = Record()
    training = make_training(
        budget=10, validate=lambda *_: (20.0, math.nan, []), validate_every=4, observers=[record], save_every=100
    )
    training._tick_length = 1000
    found: list[int] = []
    validate = training._validate
    training._validate = lambda: found.append(training.progress.step) or validate()  # type: ignore[method-assign,func-returns-value]
    training.run()
    assert found == [4, 8, 10]


def test_validates_the_average_and_keeps_the_best(make_training: MakeTraining) -> None:
    seen: list[bool] = []
    ends: list[bool] = []
    scores = iter([20.0, 30.0, 25.0, 24.0])
    record = Record()
    kept: list[tuple[float, dict[str, Tensor]]] = []

    def validate(network: nn.Module, last: bool) -> tuple[float, float, Sequence[Tensor]]:
        ends.append(last)
        mean = training.ema.mean["head.0.weight"]  # the network's own weights, while they are exchanged
        seen.append(not network.training and not torch.equal(mean, network.get_parameter("head.0.weight")))
        return next(scores), 0.75 if last else math.nan, [torch.zeros(3, 4, 4)]

    training = make_training(budget=8, validate=validate, validate_every=2, save_every=4, observers=[record])
    training._tick_length = 1
    training.on_best = lambda progress, state: kept.append((progress.psnr, state))
    training.run()
    assert seen == [True] * len(record.scores)
    assert [psnr for psnr, _ in kept] == [20.0, 30.0]
    assert ends == [False] * (len(ends) - 1) + [True]
    best, last = (checkpoints.read(training.out / f"{name}.ckpt")["progress"] for name in ("best", "last"))
    assert best["psnr"] == 30.0
    assert math.isnan(best["ssim"]) != ends[1], "of the last validation only"
    assert (last["psnr"], last["ssim"]) == (record.scores[-1], 0.75)
    assert last["best"] == 30.0
    assert training.network.training


def test_what_is_started_from_is_validated_once_and_is_to_be_beaten(
    make_training: MakeTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, at, kept = Clock(), list[int](), list[int]()
    monkeypatch.setattr(loop, "time", clock)

    def start(score: float, **keys: Any) -> Training:
        def validate(network: nn.Module, last: bool) -> tuple[float, float, Sequence[Tensor]]:
            at.append(training.progress.step)
            clock.now += 100
            return score if training.progress.step else 30.0, math.nan, []

        training = make_training(validate=validate, warm_started=True, warm_start="x", **keys)
        training.on_best = lambda progress, state: kept.append(progress.step)
        return training

    training = start(29.0, budget=4)
    before = {name: value.clone() for name, value in training.network.state_dict().items()}
    training.on_best = lambda progress, state: kept.extend(
        progress.step for name, value in state.items() if name == "head.0.weight" and torch.equal(value, before[name])
    )
    assert training.run()
    assert (at, kept, training.progress.best) == ([0, 4], [0], 30.0)
    at.clear()
    kept.clear()
    again = start(31.0, budget=8)
    state = checkpoints.read_last(training.out)
    assert state is not None
    again.restore(state)
    assert again.run()
    assert (at, kept) == ([8], [8])
    # of a budget in time, it is no part of the warm-up
    timed = start(29.0, budget="10m")
    step, shares = timed.step, list[float]()

    def slow() -> None:
        shares.append(timed._moment().spent)
        step()
        clock.now += 50

    monkeypatch.setattr(timed, "step", slow)
    assert timed.run()
    assert shares[0] == 0
    assert timed.progress.seconds == pytest.approx(600, abs=50)


@pytest.mark.parametrize("loss", [{"l1": 1.0, "l2": 0.0}, {"l2": 10.0, "l1": 0.5, "tv": 0.0}])
def test_the_losses_of_a_mix_are_told_one_by_one(make_training: MakeTraining, loss: dict[str, float]) -> None:
    training = make_training(budget=6, loss=loss)
    batch, seen = training.crops.batch, list[dict[str, float]]()

    def noted(count: int) -> tuple[Tensor, Tensor]:
        low, high = batch(count)
        return (low * math.nan if len(seen) == 1 else low), high

    mix = training.objective
    assert isinstance(mix, Mix)
    terms = mix.terms

    def measured(output: Tensor, target: Tensor) -> dict[str, Tensor]:
        found = terms(output, target)
        seen.append({name: float(value.detach()) for name, value in found.items()})
        return found

    training.crops.batch = noted  # type: ignore[method-assign]
    mix.terms = measured  # type: ignore[method-assign]
    for _ in range(4):
        training.step()
    training._tick()
    if len(mix.weights) == 1:
        assert training.progress.terms == {}
        return
    good = [one for one in seen if all(map(math.isfinite, one.values()))]
    assert (len(seen), len(good)) == (4, 3), "one step was skipped"
    means = {name: sum(one[name] for one in good) / 3 for name in ("l2", "l1")}
    assert training.progress.terms == pytest.approx(means, rel=1e-5)
    assert training.progress.loss == pytest.approx(10 * means["l2"] + 0.5 * means["l1"], rel=1e-5)


def test_another_network_than_the_checkpoints_is_one_sentence(make_training: MakeTraining) -> None:
    training = make_training(budget=4)
    training.step()
    training.save()
    state = checkpoints.read(training.out / "last.ckpt")
    assert state["arguments"]["channels"] == 8
    assert state["arguments"].keys() > training.recipe.arguments.keys(), "defaults are there, too"
    other = make_training(budget=4)
    with pytest.raises(UsageError, match=r"run: this run was started with arguments\.channels = 9, not 8 as it is now"):
        other.restore({**state, "arguments": {**state["arguments"], "channels": 9, "gone": 1}})
    arguments = {"channels": 8, "groups": 2, "blocks": 2, "reduction": 4, "attention_reduction": 4}
    other = make_training(budget=4, arguments=arguments)
    del state["arguments"]  # as in checkpoints of before
    with pytest.raises(
        UsageError, match=r"run: the checkpoint's weights do not fit the network.*Missing key"
    ) as raised:
        other.restore(state)
    assert "\n" not in str(raised.value)
    same = make_training(budget=4)
    same.restore(state)
    assert same.progress.step == 1


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({}, None),
        ({"loss": {"l1": 1.0, "tv": 0.1}, "warm_start": "x"}, "loss, warm_start"),
        ({"degradation": {"jpeg": [30, 90]}}, "degradation"),
    ],
)
def test_what_a_loop_of_ones_own_does_not_heed_is_told(tmp_path: Path, keys: dict[str, Any], said: str | None) -> None:
    values = {"network": "mine", "scale": 2, "data": {"batch": 2, "patch": 12}, **keys}
    network = nn.Sequential(nn.Conv2d(3, 12, 1), nn.PixelShuffle(2))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Training(
            network,
            Pairs(),
            parse_recipe(values, "a test"),
            nn.functional.l1_loss,
            world=World(0, 1, torch.device("cpu")),
            out=tmp_path,
        )
    told = [str(one.message) for one in caught if issubclass(one.category, FinescaleWarning)]
    assert len(told) == (said is not None)
    for key in (said or "").split(", "):
        assert all(key in text for text in told)


@pytest.mark.parametrize(("kept", "saved"), [(True, [6, 12, 18, 20]), (False, [3, 6, 9, 12, 15, 18, 20])])
def test_best_weights_that_are_kept_wait_for_their_checkpoint(
    make_training: MakeTraining, kept: bool, saved: list[int]
) -> None:
    """Half of `save_every`; those that nobody keeps are in a checkpoint at once."""
    scores = iter(range(10, 99))
    training = make_training(
        budget=20, validate=lambda network, last: (next(scores), math.nan, []), validate_every=3, save_every=10
    )
    training._tick_length = 1
    training._tick = one_at_a_time(training)  # type: ignore[method-assign]
    training.on_best = (lambda progress, state: None) if kept else None
    at: list[int] = []
    save = training.save

    def saving(*, best: bool = False) -> None:
        assert best
        at.append(training.progress.step)
        save(best=best)

    training.save = saving  # type: ignore[method-assign]
    assert training.run()
    assert at == saved


def test_validation_does_not_try_out_algorithms_for_its_many_sizes(
    make_training: MakeTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    seen: list[bool] = []

    def validate(network: nn.Module, last: bool) -> tuple[float, float, Sequence[Tensor]]:
        seen.append(torch.backends.cudnn.benchmark)
        if len(seen) == 2:
            raise OSError("the pictures are gone")
        return 20.0, math.nan, []

    training = make_training(budget=1, validate=validate)
    training._validate()
    assert torch.backends.cudnn.benchmark
    with pytest.raises(OSError, match="gone"):
        training._validate()
    assert torch.backends.cudnn.benchmark
    assert seen == [False, False]


def test_epochs_are_the_recipes_own(make_training: MakeTraining) -> None:
    at: list[int] = []

    def validate(network: nn.Module, last: bool) -> tuple[float, float, Sequence[Tensor]]:
        at.append(training.progress.step)
        return 20.0, math.nan, []

    training = make_training(validate=validate, budget="3 epochs", epoch=2, validate_every="1 epoch")
    training._tick_length = 1
    training._tick = one_at_a_time(training)  # type: ignore[method-assign]
    assert training.run()
    assert at == [2, 4, 6]


def test_frozen_parts_do_not_move(make_training: MakeTraining) -> None:
    training = make_training(budget=6, groups=[{"match": "head", "rate": 0.5, "frozen_until": 0.5}])
    start = training.network.get_parameter("head.0.weight").detach().clone()
    for _ in range(3):
        training.step()
    assert torch.equal(training.network.get_parameter("head.0.weight"), start)
    training.step()
    assert not torch.equal(training.network.get_parameter("head.0.weight"), start)
    rate = training.progress.rate
    assert {group["lr"] for group in training.optimiser.param_groups} == {0.5 * rate, rate}


def test_gradients_are_no_longer_than_the_recipe_allows(
    make_training: MakeTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    training, norms = make_training(budget=2, optimiser={"clip": 1e-3}), list[Tensor]()

    def step() -> None:
        gradients = [parameter.grad for parameter in training.network.parameters() if parameter.grad is not None]
        norms.append(nn.utils.get_total_norm(gradients))

    monkeypatch.setattr(training.optimiser, "step", step)
    training.step()
    assert [float(norm) for norm in norms] == [pytest.approx(1e-3, rel=1e-2)]


def test_what_wakes_while_a_validation_runs_is_averaged_among_processes(make_training: MakeTraining) -> None:
    """DDP averages the gradients of what was trained when it was last renewed."""
    training = make_training(
        budget=6,
        validate=lambda network, last: (20.0, math.nan, []),
        validate_every=3,
        groups=[{"match": "head", "frozen_until": 0.5}],
    )
    training._tick_length = 1
    training._tick = one_at_a_time(training)  # type: ignore[method-assign]

    def trained() -> set[str]:
        return {name for name, parameter in training.network.named_parameters() if parameter.requires_grad}

    averaged, steps, gradients = [trained()], [], training._gradients
    training.distributed.renew = lambda: averaged.append(trained())  # type: ignore[method-assign]

    def watched(low: Tensor, high: Tensor) -> Tensor:
        steps.append((trained(), averaged[-1]))
        return gradients(low, high)

    training._gradients = watched  # type: ignore[method-assign]
    assert training.run()
    assert [mine == ddp for mine, ddp in steps] == [True] * 6
    assert len(steps[2][0]) < len(steps[3][0])


def test_a_network_that_comes_frozen_is_trained_as_the_groups_say(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 12, 1), nn.PixelShuffle(2))
    for parameter in network[1].parameters():
        parameter.requires_grad_(False)
    before = [parameter.detach().clone() for parameter in network.parameters()]
    values = {"network": "mine", "scale": 2, "budget": "2", "data": {"batch": 2, "patch": 12}}
    training = Training(
        network,
        Pairs(),
        parse_recipe(values, "a test"),
        lambda output, target: (output - target).abs().mean(),
        world=World(0, 1, torch.device("cpu")),
        out=tmp_path,
    )
    training.step()
    for parameter, value in zip(network.parameters(), before, strict=True):
        assert not torch.equal(parameter, value)


def test_a_run_that_trains_nothing_at_first_is_refused(make_training: MakeTraining) -> None:
    groups = [{"match": "tail", "frozen_until": "2"}, {"match": "", "frozen_until": 0.5}]
    with pytest.raises(UsageError, match=r"nothing is trained at first; one group needs frozen_until = 0$"):
        make_training(groups=groups)


@pytest.mark.parametrize("budget", ["20", "1h"])
def test_what_is_made_ready_are_the_forms_that_steps_take(make_training: MakeTraining, budget: str) -> None:
    tail: dict[str, Any] = {"match": "tail"}
    end, early, late = {"match": "tail", "frozen_until": 1}, {"match": "head.", "frozen_until": 0.25}, {"match": "body"}
    tables: list[list[dict[str, Any]]] = [
        [],
        [early, tail],
        [end, early],
        [early, {**late, "frozen_until": 0.5}],
        [early, {**late, "frozen_until": 0.8}],
        [early, {**late, "frozen_until": "5"}],  # at the same step
        [early, {**late, "frozen_until": "9"}],
        [{"match": "head.", "frozen_until": "3"}, {**late, "frozen_until": "18"}],
        [early, {**late, "frozen_until": "1M"}],
    ]
    for groups in tables:
        training = make_training(budget=budget, groups=groups)
        # paces in steps per share: a budget in time may have any
        paces = [20] if budget == "20" else [3, 20, 1000, 10**8]
        if not any(isinstance(group.frozen_until, Amount) for group in training.recipe.groups):
            paces = paces[:1]
        for begin in (0, 0.3, 0.7):
            steps = [[Moment(i / 20, round(pace * i / 20)) for i in range(20) if i / 20 >= begin] for pace in paces]
            taken = {form(training, moment) for run in steps for moment in run}
            training.progress.step, training.progress.spent = steps[0][0].step, begin
            training.progress.seconds = begin * 3600
            ready = [form(training, moment) for moment in training._forms()]
            assert len(set(ready)) == len(ready)
            assert set(ready) >= taken, groups
            if len(paces) == 1:
                assert set(ready) == taken, groups


def form(training: Training, moment: Moment) -> tuple[object, ...]:
    """What steps at a moment are compiled for."""
    trained = [moment.past(member.group.frozen_until) for member in training.members]
    return training.recipe.data.patch_at(moment.spent), *trained


@pytest.mark.slow
def test_everything_is_compiled_before_the_schedule_starts(make_training: MakeTraining) -> None:
    from torch._dynamo.utils import counters

    sizes: list[int] = []

    def validate(network: nn.Module, last: bool) -> tuple[float, float, list[Tensor]]:
        for side in (20, 22):
            sizes.append(network(torch.rand(3, 3, side, side)).shape[2])
        return 20.0, math.nan, []

    groups = [{"match": "tail"}, {"match": "head", "frozen_until": "4"}, {"match": "", "frozen_until": 0.25}]
    arguments = {"channels": 8, "groups": 2, "blocks": 2, "reduction": 4, "attention_reduction": 4}
    training = make_training(
        budget=8, arguments=arguments, groups=groups, validate=validate, validate_every=2, compile="blocks"
    )
    counters.clear()
    with torch.compiler.set_stance(force_backend="eager"):  # otherwise as slow as a compiler
        before = {name: value.clone() for name, value in training.network.state_dict().items()}
        random_state, trained = torch.get_rng_state(), [p.requires_grad for p in training.network.parameters()]
        training.prepare()
        after = training.network.state_dict()
        assert all(torch.equal(after[name], value) for name, value in before.items())
        assert all(parameter.grad is None for parameter in training.network.parameters())
        assert [p.requires_grad for p in training.network.parameters()] == trained
        assert torch.equal(torch.get_rng_state(), random_state)
        graphs = counters["stats"]["unique_graphs"]
        assert graphs == 4  # one for all blocks: frozen, trained, the head too, and with larger crops
        training.run()
    assert counters["stats"]["unique_graphs"] == graphs
    assert training.crops.patch == 16
    assert sizes[:2] == [40, 44]


@pytest.mark.slow
def test_a_compiler_that_fails_is_told_and_training_goes_on_without(make_training: MakeTraining) -> None:
    def compiler(graph: object, inputs: object) -> None:
        raise RuntimeError("no compiler here\nand much more")

    arguments = {"channels": 8, "groups": 2, "blocks": 2, "attention": None}
    plain = make_training(budget=3, arguments=arguments)
    plain.run()
    record = Record()
    training = make_training(budget=3, arguments=arguments, compile="blocks", observers=[record])
    weights = training._weights = StepWeights(training.network, torch.bfloat16)  # as on a GPU
    with torch.compiler.set_stance(force_backend=compiler):
        assert training.run()
    assert training._weights is weights
    assert not any("layer by layer" in text for text in record.lines)
    assert any("no compiler here" in text and "uncompiled" in text and "much more" not in text for text in record.lines)
    for name, value in plain.network.state_dict().items():
        assert torch.equal(training.network.state_dict()[name], value), name


@pytest.mark.slow
def test_getting_ready_belongs_to_the_budget_and_not_to_the_schedule(
    make_training: MakeTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = Record()
    training = make_training(budget="3s", observers=[record], schedule={"warmup": 0.2})

    def slow() -> None:
        time.sleep(1.5)
        training.progress.seconds = training.progress.prepared = 1.5

    monkeypatch.setattr(training, "prepare", slow)
    assert training.run()
    assert 2.7 < training.progress.seconds < 6
    assert record.spent[0] < 0.2  # the warm-up is not over when the first step is done
    assert training.progress.left == 0


def test_several_gpus_without_nccl_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows."""
    for name, value in (("WORLD_SIZE", "2"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(parallel, "try_out", lambda device: None)
    monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: False)
    with pytest.raises(UsageError, match=r"this build of torch has no NCCL, .*; use one process, or --device cpu$"):
        parallel.join("cuda")


def test_batch_norms_see_the_whole_batch_on_several_gpus() -> None:
    for size, device, expected in ((1, "cuda", False), (2, "cpu", False), (2, "cuda", True)):
        network = catalogue.build("unet-2", scale=2, encoder="resnet18")
        names = list(network.state_dict())
        synchronise_norms(network, World(0, size, torch.device(device)))
        assert any(isinstance(module, nn.SyncBatchNorm) for module in network.modules()) == expected
        assert list(network.state_dict()) == names


@pytest.mark.parametrize(
    ("batch", "size", "device", "fine"),
    [(1, 1, "cuda", False), (2, 2, "cpu", False), (4, 2, "cpu", True), (2, 2, "cuda", True)],
)
def test_one_crop_in_each_process_is_too_little_only_where_norms_do_not_see_the_whole_batch(
    batch: int, size: int, device: str, fine: bool
) -> None:
    data = {"batch": batch, "patch": 16}
    recipe = parse_recipe({"network": "unet-1", "scale": 2, "data": data}, "a test")
    network, _ = make_network(recipe, fresh=False)
    with nullcontext() if fine else pytest.raises(UsageError, match="one crop of 16 x 16 is too little"):
        check_norms(network, recipe, World(0, size, torch.device(device)))


def test_units_to_compile_are_small() -> None:
    from finescale.training.parallel import repeated_blocks, units

    plain = catalogue.build("sa-rcan", scale=2, channels=8, groups=2, blocks=3, attention=None)
    assert {type(block).__name__ for block in repeated_blocks(plain)} == {"ResidualBlock"}
    assert len(repeated_blocks(plain)) == 6
    network = catalogue.build("sa-rcan", scale=2, channels=16, groups=4, blocks=3)
    assert len(repeated_blocks(network)) == 4
    assert {type(unit).__name__ for unit in units(network)} == {"ResidualBlock"}
    assert len(units(network)) == 12


class Pairs:
    """Batches of a program's own pictures."""

    def __init__(self) -> None:
        self.patch, self.generator = 12, torch.Generator().manual_seed(0)

    def set_patch(self, patch: int) -> None:
        self.patch = patch

    def batch(self, count: int) -> tuple[Tensor, Tensor]:
        high = torch.rand(count, 3, 2 * self.patch, 2 * self.patch, generator=self.generator)
        return nn.functional.avg_pool2d(high, 2), high


def test_what_a_program_brings_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[tuple[torch.dtype, int]] = set()

    class Repeat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 12, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.layer(x)
            seen.add((y.dtype, x.shape[2]))
            return nn.functional.pixel_shuffle(y, 2)

    data = {"batch": 2, "patch": 12, "late_patch": 16}
    for fast, dtype in ((False, torch.float32), (True, torch.bfloat16)):
        monkeypatch.setattr(loop, "fast_bfloat16", lambda device, fast=fast: fast)
        seen.clear()
        training = Training(
            Repeat(),
            Pairs(),
            parse_recipe({"network": "repeat", "scale": 2, "budget": "40", "data": data}, "a test"),
            lambda output, target: torch.fft.rfft2(output - target, norm="ortho").abs().mean(),
            world=World(0, 1, torch.device("cpu")),
            out=tmp_path / str(dtype),
            validate=lambda network, last: (-1.0, math.nan, []),
        )
        assert training.run()
        assert seen == {(dtype, 12), (dtype, 16)}  # "auto" is decided here too
        assert training.progress.best == -1


def test_a_run_that_nobody_watches_says_what_is_wrong(
    make_training: MakeTraining, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    training = make_training(budget=12, out=str(tmp_path / "run"))
    objective, calls = training.objective, 0

    def sometimes(output: Tensor, target: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return objective(output, target) * (math.nan if calls in worthless else 1)

    worthless = {3, 4}
    training.objective = sometimes
    assert training.run()
    assert "steps were skipped: their gradient was not finite" in caplog.text
    assert (tmp_path / "run" / "last.ckpt").is_file()
    training, calls, worthless = make_training(budget=12), 0, set(range(99))
    training.objective = sometimes
    with pytest.raises(FinescaleError, match="not finite in any of the 12 steps"):
        training.run()
