"""The training loop.

One step: draw crops, enlarge them in the recipe's precision, compare in float32, step the optimiser, update the
averaged weights. Everything else happens at ticks, about twice a second, on a GPU every two seconds: the clock is
read, the loss is fetched from the device, and the run is validated, saved or stopped. Between ticks the device is
never waited for.
"""

import logging
import math
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from finescale.errors import FinescaleError, FinescaleWarning, UsageError, is_out_of_memory, misfit
from finescale.inference.engines.pytorch import fast_bfloat16
from finescale.inference.prepare import full_float32
from finescale.networks.base import Config
from finescale.training import checkpoints, groups, parallel, schedule
from finescale.training.amounts import Amount, parse
from finescale.training.capture import Captured
from finescale.training.ema import EMA
from finescale.training.losses import Mix
from finescale.training.parallel import Distributed, World
from finescale.training.recipe import Recipe
from finescale.training.schedule import Moment
from finescale.training.weights import StepWeights

Objective = Callable[[Tensor, Tensor], Tensor]
# (network, whether the run ends here) -> PSNR-Y in dB, SSIM-Y or NaN (it takes time, so only at the end of a run), and
# sample pictures (3, H, W) in [0, 1]; comes from the room of evaluation, above this one.
Validate = Callable[[nn.Module, bool], tuple[float, float, Sequence[Tensor]]]

log = logging.getLogger("finescale")

_TICK, _GPU_TICK = 0.5, 2.0  # seconds; a GPU runs dry at each
_FORMS = 128  # of one block's code: shapes, times sizes of crops, times what is trained
_TOO_MANY = 100  # steps in a row without a finite gradient end the run
_TOO_HIGH = 10  # ticks in a row with a loss far above its lowest mean do, too, see `Recipe.diverged`
_SMALL, _SETTLED = 1e-3, 100  # a loss that may rise by any factor; steps after which its mean means something


@dataclass
class Progress:
    """Where a run is.

    Attributes:
        step: steps done.
        seconds: time spent, over all sittings.
        loss: running mean.
        psnr: of the last validation, dB.
        ssim: of that validation, if it was the run's last; else NaN.
        best: of all validations.
        skipped: steps that were not taken because the gradient was not finite.
        rate: learning rate of the last step.
        per_second: steps per second of late.
        spent: share of the budget.
        prepared: of `seconds`, what went into getting ready, see `Training.prepare`.
        lowest: the least running mean of the loss, after the first steps.
        validated: when it was validated last, seconds and steps.
        terms: running mean of every loss of a mix of several, unweighted.
    """

    step: int = 0
    seconds: float = 0.0
    loss: float = math.nan
    psnr: float = math.nan
    ssim: float = math.nan
    best: float = -math.inf
    skipped: int = 0
    rate: float = 0.0
    per_second: float = math.nan
    spent: float = 0.0
    prepared: float = 0.0
    lowest: float = math.inf
    validated: tuple[float, int] = (0.0, 0)
    terms: dict[str, float] = field(default_factory=dict)

    @property
    def left(self) -> float:
        """Seconds to the end of the budget, at the pace so far; infinity before the first step."""
        return (self.seconds - self.prepared) * (1 / self.spent - 1) if self.spent > 0 else math.inf


class Batches(Protocol):
    """Where crops come from: `finescale.data.crops.Crops`, or a program's own pairs of pictures.

    Attributes:
        patch: side of the low-resolution crops.
        generator: of all chance in the crops; checkpoints keep its state.
    """

    patch: int
    generator: torch.Generator

    def set_patch(self, patch: int) -> None:
        """Changes the side of the crops, as the recipe has it."""

    def batch(self, count: int) -> tuple[Tensor, Tensor]:
        """This process's part of the next `count` crops: (N, 3, P, P) and (N, 3, sP, sP), float32 in [0, 1]."""
        ...


class Observer(Protocol):
    """Somebody who is told how a run goes; only in the first process."""

    def tick(self, progress: Progress) -> None:
        """About twice a second, on a GPU every two seconds."""

    def validated(self, progress: Progress, samples: Sequence[Tensor]) -> None:
        """After a validation."""

    def said(self, text: str) -> None:
        """Something worth a line."""

    def close(self) -> None:
        """The run ends."""


class Training:
    """A run in progress.

    Args:
        network: on the world's device; which of its parameters are trained, the recipe's groups alone say.
        crops: where batches come from, on that device.
        recipe: what to do; its losses, degradation, pictures and warm start are those of `finescale.training.run`, and
            play no part here, which is a warning.
        objective: (output, target) -> loss, both (B, 3, H, W) float32.
        world: the processes.
        out: folder of the checkpoints.
        validate: scores a network (given with the averaged weights, in evaluation mode); None: no validation.
        observers: are told how it goes; without any the log "finescale" is told what is worth a line.
        notes: plain values that are kept in every checkpoint.
        on_best: given the averaged weights when a validation is the best so far; in the first process, but every
            process is to have one, as checkpoints, which all write together, are rarer then.
        capture: record a step once as a CUDA graph, where there is a single GPU. What the network and the objective do
            in Python beside computing with tensors (counting steps, drawing numbers) they then do only once, and
            convolutions and linear layers get rounded weights, see `StepWeights`.
        warm_started: the network has what the recipe's `warm_start` names already; it is validated before the first
            step, as the start is what the best has to beat.
    """

    def __init__(
        self,
        network: nn.Module,
        crops: Batches,
        recipe: Recipe,
        objective: Objective,
        *,
        world: World,
        out: str | os.PathLike[str],
        validate: Validate | None = None,
        observers: Sequence[Observer] = (),
        notes: dict[str, Any] | None = None,
        on_best: Callable[[Progress, dict[str, Tensor]], None] | None = None,
        capture: bool = False,
        warm_started: bool = False,
    ) -> None:
        self.network: nn.Module = network
        if world.first and (ignored := _ignored(recipe, crops, objective, warm_started)):
            warnings.warn(
                f"the recipe's {', '.join(ignored)} play no part in a `Training` of your own, which takes network, "
                "crops and objective as they are (finescale.training.run.train follows the whole recipe)",
                FinescaleWarning,
                stacklevel=2,
            )
        recipe = with_precision(recipe, world.device)
        if recipe.parallel != "fsdp" or world.size == 1:  # FSDP shards only contiguous parameters
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.crops, self.recipe, self.objective, self.world, self.out = crops, recipe, objective, world, Path(out)
        self.validate, self.notes, self.on_best = validate, notes or {}, on_best
        self.observers = observers if world.first else ()
        self.warm_started = warm_started
        self.progress = Progress()
        self.stop_requested = False
        self._started = time.monotonic()
        self._tick_step, self._tick_length = 0, 1
        self._took = {"validation": 0.0, "checkpoint": 0.0}  # seconds that one takes
        parallel.synchronise_norms(self.network, world)
        self._compiled = recipe.compile != "off"
        # several processes exchange gradients within the backward pass
        self._capture = capture and world.size == 1 and world.device.type == "cuda"
        self._captured: Captured | None = None
        self._weights = StepWeights(network, _arithmetic(recipe)) if self._capture else None
        self._form: tuple[object, ...] = ()  # what the recorded pass is of
        compile_network(self.network, recipe.compile)
        self.members = groups.assign(self.network, recipe.active_groups)
        self.network.train()
        groups.freeze(self.members, self._moment(), again=True)  # of a network some of which is frozen already, too
        self.distributed = Distributed(self.network, recipe.parallel, world)
        if self.distributed.sharded:  # the parameters are other objects now
            self.members = groups.assign(self.network, recipe.active_groups)
        self._parameters = list(self.network.parameters())  # walking through a deep network takes milliseconds
        self.optimiser = groups.optimiser(self.members, recipe.optimiser, dtype=_arithmetic(recipe))
        self.ema = EMA(self.network, recipe.optimiser.average)
        statistics = ("running_mean", "running_var")  # batch norms take them in before a step is found to be bad
        self._running = [tensor for name, tensor in self.network.named_buffers() if name.endswith(statistics)]
        # their values after the last good step, in one piece, so that a step takes few operations for all of them
        self._running_before = _flat(self._running)
        parts = self._running_before.split([tensor.numel() for tensor in self._running])
        self._running_parts = [part.view_as(tensor) for part, tensor in zip(parts, self._running, strict=True)]
        # of a mix of several, each: every step leaves its own here, a recorded one too
        count = len(objective.weights) if type(objective) is Mix else 0  # not one that adds up in a way of its own
        self._terms = torch.zeros(count if count > 1 else 0, device=world.device)
        self._losses = torch.zeros(2 + len(self._terms), device=world.device)  # sum, how many, and the terms' sums
        self._skipped = torch.zeros(2, device=world.device)  # in all, and in a row
        self._high = 0  # ticks in a row with a loss far above its lowest mean

    # The run

    def run(self) -> bool:
        """Trains until the budget is spent, unless it is already, or a stop is requested; whether it is spent.

        Raises:
            FinescaleError: nothing but non-finite gradients for a hundred steps, or for all there are; a loss far above
                what it was for some seconds; or a checkpoint cannot be written.
        """
        with all_digits(self.recipe, self.world.device):
            return self._run()

    def _run(self) -> bool:
        if self.finished:
            return True
        self._started = time.monotonic() - self.progress.seconds
        self._tick_step = self.progress.step
        self.prepare()
        begins = not self.progress.step
        if begins and self.warm_started and self.validate:
            self._validate()
            self.progress.prepared += self._took["validation"]  # no part of the schedule's warm-up
        saved = (self.progress.seconds, self.progress.step)
        if begins:
            self.progress.validated = saved
        while not self.finished:
            self.step()
            early = self.progress.step - self._tick_step < self._tick_length and not self._spent_all_steps
            if early and not self._validates_now:
                continue
            stop = self._tick()
            now = (self.progress.seconds, self.progress.step)
            better = False
            if self.validate and (
                self.finished or (not stop and self._due(self.recipe.validate_every, self.progress.validated, now))
            ):
                self.progress.validated = now
                better = self._validate()
            # weights that `on_best` keeps can wait for the whole checkpoint, which takes seconds on a GPU
            share = 1.0 if not better else 0.5 if self.on_best else 0.0
            if stop or self.finished or self._due(self.recipe.save_every, saved, now, share):
                self.save(best=better)
                saved = now
            if stop:
                break
        return self.finished

    @property
    def finished(self) -> bool:
        """Whether the budget is spent."""
        return self.progress.spent >= 1

    def prepare(self) -> None:
        """Compiles the network for every size and set of trained parameters to come, and records the next step.

        Otherwise the first step's minute would be the schedule's warm-up, and later ones would fall into the decay.
        The time belongs to the budget and not to the schedule. Nothing else of the run is changed. Where compiling
        fails (no C++ compiler, say), that is told and the run goes on uncompiled. A GPU is warm afterwards.
        """
        device = self.world.device
        self._captured, self._form = None, ()  # its gradients are let go of below
        if not (self._compiled or self._capture or device.type == "cuda"):
            return
        started, generators = time.monotonic(), _generators(device)
        buffers = [(buffer, buffer.clone()) for buffer in self.network.buffers()]
        for moment in self._forms():
            self._freeze(moment)
            self._prepare(*self._grey(moment))
        self._freeze(self._moment())
        if self._capture:
            self._gradients(*self._grey(self._moment()))
        if self._captured is None:  # a recorded step writes its gradients where they are
            self.optimiser.zero_grad(set_to_none=True)
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        _set_generators(generators, device)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        took, self.progress.seconds = self.world.max(time.monotonic() - started, time.monotonic() - self._started)
        self.progress.prepared += took
        self._say(f"ready after {took:.0f} s", logging.INFO)

    def _grey(self, moment: Moment) -> tuple[Tensor, Tensor]:
        """Crops of the moment's size, laid out in memory as real ones are."""
        recipe = self.recipe
        count, patch = recipe.data.batch // self.world.size, recipe.data.patch_at(moment.spent)
        low, high = (
            torch.full((count, side, side, 3), 0.5, device=self.world.device).permute(0, 3, 1, 2)
            for side in (patch, patch * recipe.scale)
        )
        return low, high

    def _forms(self) -> list[Moment]:
        """A moment of every form that steps will take from now on: what is trained, and on which size of crops."""
        recipe, now = self.recipe, self._moment()
        limits = [member.group.frozen_until for member in self.members]
        shares = {limit for limit in (*limits, recipe.data.late_from) if isinstance(limit, float)}
        counts = {limit.steps(recipe.epoch) or 0 for limit in limits if isinstance(limit, Amount)}
        steps = recipe.budget.steps(recipe.epoch)
        if steps is None:  # which comes first, a share of the time or a number of steps, is not known
            pairs = {(max(s, now.spent), max(c, now.step)) for s in {0.0, *shares} for c in {0, *counts}}
        else:
            pairs = {(share, math.ceil(share * steps)) for share in shares} | {(c / steps, c) for c in counts}
        ahead = sorted(pair for pair in pairs if pair >= (now.spent, now.step) and pair[0] < 1)
        moments = [now, *(Moment(spent, step, recipe.epoch) for spent, step in ahead)]
        forms: dict[tuple[object, ...], Moment] = {}
        for moment in moments:
            forms.setdefault((recipe.data.patch_at(moment.spent), *map(moment.past, limits)), moment)
        return list(forms.values())

    def _prepare(self, low: Tensor, high: Tensor) -> None:
        """A pass, without what it fails by: `StepWeights` (parts of it want float32, say), compiling, or both."""
        compiled, weights = self._compiled, self._weights
        reasons = {}
        for way in dict.fromkeys(product((compiled, False), (weights, None))):
            self._compiled, self._weights = way
            try:
                self._loss(low, high).backward()
                break
            except Exception as error:
                if is_out_of_memory(error) or not (self._weights or (self._compiled and _of_compiler(error))):
                    raise
                cause = getattr(error, "inner_exception", error)
                reasons[way] = f"{type(cause).__name__}: {cause}".split("\n", 1)[0][:160]
                del cause  # with it the failed pass would stay in memory
            self.distributed.renew()  # forgets the step that was cut short
        if compiled and not self._compiled:
            reason = reasons[True, None]
            self._say(f"the network could not be compiled ({reason}), so it is trained uncompiled, which is slower")
        if weights and not self._weights:
            self._say(f"weights are made layer by layer, which is slower ({reasons[self._compiled, weights]})")

    def step(self) -> None:
        """One step of training; counts itself."""
        recipe, now = self.recipe, self._moment()
        self._freeze(now)
        patch = recipe.data.patch_at(now.spent)
        if patch != self.crops.patch:
            self.crops.set_patch(patch)
        self.progress.rate = recipe.optimiser.rate * schedule.factor(recipe.schedule, now)
        for group in self.optimiser.param_groups:
            group["lr"] = self.progress.rate * group["multiple"]

        self._apply(self._gradients(*self.crops.batch(recipe.data.batch)))
        self.progress.step += 1

    def _gradients(self, low: Tensor, high: Tensor) -> Tensor:
        """Leaves the gradients in the parameters; the loss."""
        form = (low.shape, *(member.parameters[0].requires_grad for member in self.members))
        if self._capture and form != self._form:
            self._captured = None  # its memory is free for the new one
            self._captured, self._form = self._recorded(low, high), form
            self._capture = self._captured is not None
        if self._captured:
            return self._captured(low, high)
        self.optimiser.zero_grad(set_to_none=True)
        loss = self._loss(low, high)
        loss.backward()
        return loss.detach()

    def _recorded(self, low: Tensor, high: Tensor) -> Captured | None:
        """A step for crops like these as a CUDA graph; None where none can be recorded, which is told."""
        try:
            return Captured(self._loss, self.network, low, high)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            reason = str(error).split("\n", 1)[0][:160]
        if self._weights:
            self._weights = None
            self._say(f"a step could not be recorded ({reason}), so weights are made layer by layer, which is slower")
            return self._recorded(low, high)
        self._say(f"a step could not be recorded ({reason}), so its kernels are started one by one")
        return None

    def _loss(self, low: Tensor, high: Tensor) -> Tensor:
        with self.autocast(), without_cudnn_attention(), nullcontext() if self._compiled else self._uncompiled():
            output = (self._weights or self.distributed.model)(low)
        if isinstance(self.objective, Mix) and len(self._terms):
            terms = self.objective.terms(output.float(), high)
            self._terms.copy_(torch.stack([term.detach() for term in terms.values()]))
            return self.objective.total(terms)
        return self.objective(output.float(), high)

    def _apply(self, loss: Tensor) -> None:
        """Takes the optimiser's step unless the gradient is not finite; without waiting for the device."""
        parameters = [parameter for parameter in self._parameters if parameter.grad is not None]
        norm = parallel.whole(nn.utils.clip_grad_norm_(parameters, self.recipe.optimiser.clip or math.inf))
        bad = (~torch.isfinite(norm)).float()
        if self.distributed.sharded:
            if not bad:
                self.optimiser.step()
        else:  # fused Adam leaves everything as it is where this is 1; it is how PyTorch's gradient scaler skips steps
            self.optimiser.found_inf = bad  # type: ignore[attr-defined]
            self.optimiser.step()
        if self._running:
            before = self._running_before
            before.copy_(torch.where(bad > 0, before, _flat(self._running)))
            torch._foreach_copy_(self._running, self._running_parts)
        self.ema.update()
        self._skipped[0] += bad
        self._skipped[1] = (self._skipped[1] + bad) * bad
        self._losses += torch.where(bad > 0, 0, torch.cat((torch.stack((loss, torch.ones_like(loss))), self._terms)))

    def autocast(self) -> AbstractContextManager[Any]:
        """Within it the network computes in the recipe's precision."""
        if self.recipe.precision == "float32":
            return nullcontext()
        return torch.autocast(self.world.device.type, torch.bfloat16)

    def _uncompiled(self) -> AbstractContextManager[Any]:
        """Within it the network runs as it is; in validation, too, so that nothing is compiled for its sizes."""
        return nullcontext() if self.recipe.compile == "off" else torch.compiler.set_stance("force_eager")

    # Time

    def _moment(self) -> Moment:
        """The moment of the next step; between ticks the clock is not read but continued at the speed of late."""
        progress = self.progress
        budget = self.recipe.budget
        steps = budget.steps(self.recipe.epoch)
        if steps is not None:
            spent = progress.step / steps
        else:
            since = (progress.step - self._tick_step) / progress.per_second if progress.per_second > 0 else 0.0
            # getting ready, the last validation and checkpoint belong to the budget, so steps end a little earlier
            other = progress.prepared + sum(self._took.values())
            spent = (progress.seconds - progress.prepared + since) / max(budget.value - other, budget.value / 2)
        return Moment(min(1.0, spent), progress.step, self.recipe.epoch)

    @property
    def _spent_all_steps(self) -> bool:
        steps = self.recipe.budget.steps(self.recipe.epoch)
        return steps is not None and self.progress.step >= steps

    def _tick(self) -> bool:
        """Reads the clock and the losses, the same in all processes; whether a stop was requested in any."""
        progress = self.progress
        total, count, *terms = self._losses.tolist()  # waits for the device
        self._losses.zero_()
        seconds, stop = self.world.max(time.monotonic() - self._started, float(self.stop_requested))
        steps = progress.step - self._tick_step
        pace = steps / max(seconds - progress.seconds, 1e-9)
        progress.per_second = pace if math.isnan(progress.per_second) else 0.8 * progress.per_second + 0.2 * pace
        progress.seconds, self._tick_step = seconds, progress.step
        progress.spent = self._moment().spent
        tick = _GPU_TICK if self.world.device.type == "cuda" else _TICK
        self._tick_length = max(1, min(200, int(min(tick, progress.left / 2) * progress.per_second)))
        if count:
            mean = self.world.mean(torch.tensor(total / count))
            progress.loss = _running(progress.loss, mean, steps)
            if isinstance(self.objective, Mix) and terms:
                for name, term in zip(self.objective.weights, terms, strict=True):
                    now = self.world.mean(torch.tensor(term / count))
                    progress.terms[name] = _running(progress.terms.get(name, math.nan), now, steps)
            limit = self.recipe.diverged * max(progress.lowest, _SMALL)
            self._high = self._high + 1 if mean > limit > 0 else 0
            if progress.step >= _SETTLED:
                progress.lowest = min(progress.lowest, progress.loss)
            if self._high >= _TOO_HIGH:
                raise FinescaleError(
                    f"the loss rose from {progress.lowest:.3g} to {mean:.3g} and stayed there, so the run was stopped "
                    f"at step {progress.step}; a lower optimiser.rate may help"
                )
        skipped, in_a_row = map(int, self._skipped.tolist())
        if skipped > progress.skipped:
            self._say(f"{skipped - progress.skipped} steps were skipped: their gradient was not finite")
            progress.skipped = skipped
        if in_a_row >= _TOO_MANY:
            raise FinescaleError(
                f"the gradient was not finite for {in_a_row} steps in a row, so the run was stopped at step "
                f"{progress.step}; a lower optimiser.rate may help"
            )
        if self.finished and skipped >= progress.step:
            raise FinescaleError(f"the gradient was not finite in any of the {skipped} steps, so nothing was learned")
        for observer in self.observers:
            observer.tick(progress)
        return bool(stop)

    @property
    def _validates_now(self) -> bool:
        """Whether validation is due at this very step; where its interval is a time, ticks are soon enough."""
        every, progress = self.recipe.validate_every, self.progress
        if self.validate is None or every.unit == "seconds":
            return False
        return self._due(every, progress.validated, (progress.seconds, progress.step))

    def _due(self, every: Amount, last: tuple[float, int], now: tuple[float, int], share: float = 1.0) -> bool:
        """Whether this share of so much has passed between two moments, each (seconds, steps)."""
        if every.unit == "seconds":
            return now[0] - last[0] >= share * every.value
        return now[1] - last[1] >= share * (every.steps(self.recipe.epoch) or 1)

    # Validation and checkpoints

    def _validate(self) -> bool:
        """Scores the averaged weights; whether they are the best so far."""
        assert self.validate is not None
        started, progress, device = time.monotonic(), self.progress, self.world.device
        self.network.eval()
        with self.ema.applied(), torch.no_grad(), self._uncompiled(), cudnn_benchmark(False), full_float32(device):
            psnr, ssim, samples = self.validate(self.network, self.finished)  # in float32, as it is scored later
        progress.psnr, progress.ssim = self.world.max(psnr, ssim)
        better = progress.psnr > progress.best
        if better:
            progress.best = progress.psnr
            state = self.averaged_state()
            if self.on_best and self.world.first:
                self.on_best(progress, state)
        self.network.train()
        self._freeze(self._moment(), again=True)
        for observer in self.observers:
            observer.validated(progress, samples)
        self._mark_time("validation", started)
        return better

    def _mark_time(self, what: str, started: float) -> None:
        """Time that is not steps: it counts in the budget and stays out of the speed."""
        self._took[what], self.progress.seconds = self.world.max(
            time.monotonic() - started, time.monotonic() - self._started
        )

    def averaged_state(self) -> dict[str, Tensor]:
        """A copy of the averaged weights, whole; a collective call."""
        with self.ema.applied():
            return {name: value.clone() for name, value in self.distributed.network_state().items()}

    def save(self, *, best: bool = False) -> None:
        """Writes a checkpoint of everything; a collective call, one writer."""
        started = time.monotonic()
        state = {
            "recipe": self.recipe.resolved(),
            "notes": self.notes,
            "arguments": self._arguments(),
            "network": self.distributed.network_state(),
            "average": self.averaged_state(),
            "updates": self.ema.updates,
            "optimiser": self.distributed.optimiser_state(self.optimiser),
            "crops": self.crops.generator.get_state(),
            "generators": _generators(self.world.device),
            "progress": dict(vars(self.progress)),
            "took": dict(self._took),
            "skipped_in_a_row": float(self._skipped[1]),
        }
        if self.world.first:
            checkpoints.save(self.out, state, best=best)
        self._mark_time("checkpoint", started)

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from what `save` wrote, exactly.

        Raises:
            UsageError: it is of a run with another network or other groups, or with "fsdp" on several processes and
                this one is not so, or the other way round.
        """
        before, now = state.get("arguments", {}), self._arguments()  # older ones do not say
        for key in before.keys() & now.keys():  # an argument that is new since then did nothing, by its default
            if before[key] != now[key]:
                raise UsageError(
                    f"{self.out}: this run was started with arguments.{key} = {before[key]!r}, not {now[key]!r} as it "
                    "is now, by what the recipe says or by the default of the network's class"
                )
        try:
            self.distributed.load_network(state["average"])
        except RuntimeError as error:
            if "state_dict" not in str(error):  # of a device, or of the other processes
                raise
            raise UsageError(
                f"{self.out}: the checkpoint's weights do not fit the network, whose class is another than when the "
                f"run was started ({misfit(error)})"
            ) from error
        self.ema.updates = state["updates"]
        for name, mean in self.ema.mean.items():
            mean.copy_(self.ema.live[name])
        self.distributed.load_network(state["network"])
        self._running_before.copy_(_flat(self._running))
        self.progress = Progress(**state["progress"])
        self._took |= state.get("took", {})
        self._tick_step = self.progress.step
        groups.freeze(self.members, self._moment())
        self.distributed.load_optimiser(self.optimiser, state["optimiser"])
        self.crops.generator.set_state(state["crops"])
        _set_generators(state["generators"], self.world.device)
        self._skipped[0], self._skipped[1] = self.progress.skipped, state["skipped_in_a_row"]
        budget = parse(state["recipe"]["budget"])
        same = (budget.value, budget.unit) == (self.recipe.budget.value, self.recipe.budget.unit)
        if not (self.finished and same):  # the last validation may have taken less time than was reckoned with
            self.progress.spent = self._moment().spent  # a longer budget brings the run back to an earlier share
        self.distributed.renew()

    def _arguments(self) -> dict[str, Any]:
        """Every argument of the network's constructor, defaults included, where the catalogue built it."""
        config = getattr(self.network, "config", None)
        return dict(config.arguments) if isinstance(config, Config) else {}

    def _freeze(self, moment: Moment, *, again: bool = False) -> None:
        """As `groups.freeze`; other processes exchange the gradients of what trains from then on, too."""
        if groups.freeze(self.members, moment, again=again):
            self.distributed.renew()

    def request_stop(self) -> None:
        """Saves and ends at the next tick; safe to call from a signal handler."""
        self.stop_requested = True

    def _say(self, text: str, level: int = logging.WARNING) -> None:
        if not self.observers and self.world.first:
            log.log(level, text)
        for observer in self.observers:
            observer.said(text)


@contextmanager
def cudnn_benchmark(on: bool) -> Iterator[None]:
    """Within it cuDNN tries out, or does not, which algorithm is the fastest for every new size.

    That is worth while for crops, which have one or two, and slow for pictures.
    """
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = on
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


@contextmanager
def without_cudnn_attention() -> Iterator[None]:
    """Within it cuDNN, where it would be taken first, does not compute attention.

    Its backward pass was found to give NaN on H100 and H200 (with a mask; nobody knows when else) where the keys are 64
    more than a multiple of 128, as the 576 of a crop of 48 x 48 are: https://github.com/pytorch/pytorch/issues/196678.
    """
    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)


def all_digits(recipe: Recipe, device: torch.device) -> AbstractContextManager[None]:
    """Within it a GPU does not shorten float32 to TF32, where that is the recipe's precision."""
    return full_float32(device) if recipe.precision == "float32" else nullcontext()


def with_precision(recipe: Recipe, device: torch.device) -> Recipe:
    """The recipe with "auto" precision decided for a device."""
    if recipe.precision != "auto":
        return recipe
    return recipe.model_copy(update={"precision": "bfloat16" if fast_bfloat16(device) else "float32"})


def _arithmetic(recipe: Recipe) -> torch.dtype:
    return torch.bfloat16 if recipe.precision == "bfloat16" else torch.float32


def compile_network(network: nn.Module, how: str) -> None:
    """Compiles a network in place; its parameters keep their names.

    Compiling the repeated block alone gives nearly the speed of the whole in a fraction of the time, since all blocks
    share one compiled function. Every size of crops is compiled for itself: free sizes are slow, and break the compiler
    in whole networks.
    """
    if how == "off":
        return
    from torch._dynamo import config  # takes a second to import

    # blocks of one class share their code: a U-Net's have a dozen shapes, and beyond the limit nothing is compiled
    config.recompile_limit = max(config.recompile_limit, _FORMS)
    # PyTorch gives every spectrally normalised layer a class of its own, so that no block would be like another
    classes: dict[tuple[type, ...], type] = {}
    for module in network.modules():
        if parametrize.is_parametrized(module):
            kind = (
                *type(module).__bases__,
                *(type(part) for part in module.get_submodule("parametrizations").children()),
            )
            module.__class__ = classes.setdefault(kind, type(module))
    parts = parallel.units(network) if how == "blocks" else [network]
    for part in parts or [network]:
        part.compile(dynamic=False)


def _ignored(recipe: Recipe, crops: Batches, objective: Objective, warm_started: bool) -> list[str]:
    """The keys that a recipe has and a `Training` does not heed."""
    weights = {name: weight for name, weight in recipe.loss.items() if weight}
    heeded = {
        "warm_start": not recipe.warm_start or warm_started,
        "degradation": recipe.degradation.crops is None or getattr(crops, "degradation", None) is not None,
        "loss": "loss" not in recipe.model_fields_set or (isinstance(objective, Mix) and objective.weights == weights),
    }
    return [key for key, is_heeded in heeded.items() if not is_heeded]


def _running(before: float, now: float, steps: int) -> float:
    """A running mean that takes in the mean of so many steps."""
    weight = 1.0 if math.isnan(before) else 1 - 0.99**steps
    return now if weight == 1 else before + weight * (now - before)


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    """A copy of all their values in a row."""
    return torch.cat([tensor.flatten() for tensor in tensors]) if tensors else torch.empty(0)


def _of_compiler(error: Exception) -> bool:
    """Whether it says that compiling failed. Memory that runs out meanwhile is another matter."""
    from torch._dynamo.exc import TorchDynamoException

    return isinstance(error, TorchDynamoException) and not is_out_of_memory(error)


def _generators(device: torch.device) -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def _set_generators(states: dict[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
