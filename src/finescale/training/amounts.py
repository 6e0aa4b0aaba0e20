"""How much: `20m`, `1.5h`, `90s`, `300k`, `5000`, `30 epochs` - a budget, a moment in a run, or an interval."""

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, PlainSerializer

Unit = Literal["seconds", "steps", "epochs"]

_FORMS = re.compile(
    r"\s*([0-9]*\.?[0-9]+(?:e[0-9]+)?)\s*"
    r"(?:(k|M)(?:\s*steps?)?|(seconds?|s|minutes?|min|m|hours?|h|steps?|epochs?))?\s*"
)
_UNITS: dict[str, tuple[Unit, float]] = {
    "s": ("seconds", 1),
    "m": ("seconds", 60),
    "h": ("seconds", 3600),
    "k": ("steps", 1e3),
    "M": ("steps", 1e6),
    "e": ("epochs", 1),
}


@dataclass(frozen=True)
class Amount:
    """A number of seconds, steps or epochs; `text` is how a person wrote it."""

    value: float
    unit: Unit
    text: str

    def __str__(self) -> str:
        return self.text

    def steps(self, epoch: int) -> int | None:
        """In steps, where an epoch has so many; None for a time."""
        return None if self.unit == "seconds" else max(1, round(self.value * (epoch if self.unit == "epochs" else 1)))


def parse(text: object) -> Amount:
    """Reads an amount.

    Raises:
        ValueError: it is none, not above 0, or beyond reason.
    """
    if isinstance(text, Amount):
        return text
    if isinstance(text, bool) or not isinstance(text, str | int):
        raise ValueError(f"should be an amount such as '20m', '300k' or '30 epochs', not {text!r}")
    match = _FORMS.fullmatch(str(text))
    if match is None or not 0 < float(match[1]) < 1e15:
        raise ValueError(f"should be an amount such as '20m', '300k' or '30 epochs', not {text!r}")
    word = match[2] or match[3] or "steps"
    unit, factor = ("steps", 1.0) if word.startswith("st") else _UNITS[word if word in _UNITS else word[0]]
    return Amount(float(match[1]) * factor, unit, str(text).strip())  # type: ignore[arg-type]


def _moment(value: Any) -> float | Amount:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1:
        return float(value)
    if not isinstance(value, str | Amount) or parse(value).unit == "seconds":
        raise ValueError(
            f"should be a share of the budget from 0 to 1, or such as '200k' or '30 epochs', not {value!r}"
        )
    moment = parse(value)
    if moment.unit == "steps" and moment.value < 1:
        raise ValueError(f"should be a share of the budget as a number, or whole steps, not {value!r}")
    return moment


# An amount in a recipe; and a moment of a run, as a share of the budget (0 to 1) or a number of steps or epochs.
AmountField = Annotated[Amount, BeforeValidator(parse), PlainSerializer(str)]
Moment = Annotated[
    float | Amount, BeforeValidator(_moment), PlainSerializer(lambda m: m.text if isinstance(m, Amount) else m)
]
