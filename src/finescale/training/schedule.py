"""The learning rate at every moment of a run, and when parts of a network start to train."""

import math
from dataclasses import dataclass

from finescale.training.amounts import Amount
from finescale.training.recipe import Schedule


@dataclass(frozen=True)
class Moment:
    """Where a run is: the share of its budget that is spent (0 to 1), and the steps that are done."""

    spent: float
    step: int
    epoch: int = 1000

    def share_of(self, moment: float | Amount) -> float:
        """How much of the way to a moment is covered, 1 from there on."""
        if isinstance(moment, Amount):
            steps = moment.steps(self.epoch)
            assert steps is not None
            return min(1.0, self.step / steps)
        return min(1.0, self.spent / moment) if moment > 0 else 1.0

    def past(self, moment: float | Amount) -> bool:
        """Whether a moment has come."""
        return self.share_of(moment) >= 1


def factor(schedule: Schedule, now: Moment) -> float:
    """The multiple of the peak learning rate at a moment.

    For "decay" it is a function of the share of the budget alone: rising from 0 to 1, then 1, then falling to 0 at the
    end of the budget, whether that is in minutes or in steps.
    """
    # the very first step is taken at a thousandth of the peak rather than at 0, which would waste it
    warm = max(now.share_of(schedule.warmup), 1e-3)
    if schedule.kind == "halving":
        every = schedule.halve_every.steps(now.epoch)
        assert every is not None
        before = schedule.halve_from.steps(now.epoch) if schedule.halve_from else 0
        assert before is not None
        return float(warm * 0.5 ** (max(0, now.step - before) // every))
    if now.spent <= schedule.decay_from:
        return warm
    left = max(0.0, 1 - (now.spent - schedule.decay_from) / (1 - schedule.decay_from))
    shapes = {"cosine": 0.5 * (1 - math.cos(math.pi * left)), "linear": left, "square root": 1 - math.sqrt(1 - left)}
    return warm * shapes[schedule.shape]
