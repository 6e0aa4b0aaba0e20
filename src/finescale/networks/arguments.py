"""What the arguments of networks may be: values held to the annotations of a constructor.

By hand and not by pydantic, whose import takes 0.2 s: every use of a weight file builds a network.
"""

import math
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from finescale.errors import UsageError, nearest
from finescale.layers.activation import ACTIVATIONS


@dataclass(frozen=True)
class Bound:
    """What values must be, beyond their type; `words` end the sentence "should be ..."."""

    holds: Callable[[Any], bool]
    words: str


@dataclass(frozen=True)
class Names:
    """The names that a text may be."""

    known: Collection[str]


Count = Annotated[int, Bound(lambda value: value > 0, "greater than 0")]
OddCount = Annotated[Count, Bound(lambda value: value % 2 == 1, "odd")]
Positive = Annotated[float, Bound(lambda value: value > 0, "greater than 0")]
ActivationName = Annotated[str, Names(ACTIVATIONS)]
FourCounts = Annotated[Sequence[Count], Bound(lambda values: len(values) == 4, "a list of 4 values")]
FiveCounts = Annotated[Sequence[Count], Bound(lambda values: len(values) == 5, "a list of 5 values")]

_KINDS: Mapping[Any, tuple[tuple[type, ...], str]] = {  # what is taken, and its word
    bool: ((bool,), "boolean"),
    int: ((int,), "integer"),
    float: ((int, float), "number"),
    str: ((str,), "string"),
}


def checked(architecture: type, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments as the constructor of `architecture` wants them: lists as tuples, numbers of the right type.

    Nothing is taken for something else: no text for a number, no number for a truth value.

    Raises:
        UsageError: an unknown argument, a wrong type or an impossible value; one sentence that names
            `arguments.KEY` (but `scale` plainly: it is a key of its own in recipes) and, for names, the nearest one.
    """
    hints = get_type_hints(architecture.__init__, include_extras=True)  # type: ignore[misc]
    hints.pop("return", None)
    for key in arguments:
        if key not in hints:
            raise UsageError(f"arguments.{key}: {architecture.__name__} has no argument '{key}'{nearest(key, hints)}")
    return {
        key: _checked(key if key == "scale" else f"arguments.{key}", value, hints[key])
        for key, value in arguments.items()
    }


def _checked(where: str, value: Any, hint: Any) -> Any:
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        made = _checked(where, value, inner[0])
        for rule in inner[1:]:
            if isinstance(rule, Names):
                _check_name(where, made, rule.known)
            elif isinstance(rule, Bound) and not rule.holds(made):
                raise _refusal(where, rule.words, value)
        return made
    if origin in (Union, types.UnionType):  # only with None
        (other,) = (one for one in inner if one is not types.NoneType)
        return None if value is None else _checked(where, value, other)
    if origin is Literal:
        _check_name(where, value, inner)
        return value
    if origin in (tuple, Sequence):
        length = "" if origin is Sequence else f" of {len(inner)} values"
        if not isinstance(value, list | tuple) or (origin is tuple and len(value) != len(inner)):
            raise _refusal(where, f"a list{length}", value)
        hints = inner if origin is tuple else inner * len(value)
        return tuple(_checked(f"{where}.{i}", one, part) for i, (one, part) in enumerate(zip(value, hints)))
    taken, word = _KINDS[hint]
    if type(value) not in taken:
        raise _refusal(where, f"a valid {word}", value)
    if hint is float and not math.isfinite(value):
        raise _refusal(where, "a finite number", value)
    return hint(value)


def _check_name(where: str, value: Any, known: Collection[str]) -> None:
    if not isinstance(value, str):
        raise _refusal(where, f"one of {_listed(known)}", value)
    if value not in known:
        hint = nearest(value, known) or f"; there are {_listed(known)}"
        raise UsageError(f"{where}: there is no {where.rpartition('.')[2]} '{value}'{hint}")


def _listed(known: Collection[str]) -> str:
    return ", ".join(f"'{name}'" for name in known)


def _refusal(where: str, words: str, value: Any) -> UsageError:
    return UsageError(f"{where}: should be {words}, not {value!r}")
