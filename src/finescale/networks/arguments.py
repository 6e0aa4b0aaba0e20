"""What the arguments of networks may be: values held to the annotations of a constructor, by pydantic."""

import inspect
import json
from collections.abc import Mapping
from typing import Annotated, Any, get_type_hints

import numpy as np
from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError

from finescale.errors import UsageError, explain, nearest
from finescale.layers.activation import known


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError(f"should be odd, not {value}")
    return value


Count = Annotated[int, Field(gt=0)]
OddCount = Annotated[Count, AfterValidator(_odd)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
ActivationName = Annotated[str, AfterValidator(known)]
FourCounts = Annotated[tuple[Count, ...], Field(min_length=4, max_length=4)]
FiveCounts = Annotated[tuple[Count, ...], Field(min_length=5, max_length=5)]


def checked(architecture: type, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """All arguments as the constructor of `architecture` wants them, with its defaults, by way of JSON.

    So what is built is what a weight file tells and builds again: lists become tuples where tuples are wanted, tuples
    without a type become lists. Nothing is taken for something else: no text for a number, no number for a truth value.

    Raises:
        UsageError: an unknown or missing argument, a wrong type, an impossible value or one that JSON does not know;
            one sentence that names `arguments.KEY` (but `scale` plainly: it is a key of its own in recipes) and, for
            names, the nearest one.
    """
    parameters = inspect.signature(architecture).parameters
    hints = dict.fromkeys(parameters, Any)  # of a program's own, perhaps without types
    hints |= get_type_hints(architecture.__init__, include_extras=True)  # type: ignore[misc]
    for key in arguments:
        if key not in parameters:
            raise UsageError(
                f"arguments.{key}: {architecture.__name__} has no argument '{key}'{nearest(key, parameters)}"
            )
    right = {}
    for key, parameter in parameters.items():
        name = (key,) if key == "scale" else ("arguments", key)
        value = arguments.get(key, parameter.default)
        if value is parameter.empty:
            raise UsageError(f"{'.'.join(name)}: is missing")
        try:
            plain = json.dumps(value, default=_number)
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"{'.'.join(name)}: no weight file could tell {value!r} (no number, text or list)"
            ) from error
        adapter: TypeAdapter[Any] = TypeAdapter(hints[key], config=ConfigDict(strict=True))
        try:
            right[key] = adapter.validate_json(plain)
        except ValidationError as error:
            finding: Mapping[str, Any] = error.errors()[0]
            if not finding["loc"]:
                finding = {**finding, "input": value}  # as it was given
            raise UsageError(explain(finding, (*name, *finding["loc"]))) from error
    return right


def _number(value: object) -> object:
    """What JSON does not know, as a plain number."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError
