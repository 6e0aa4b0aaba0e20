"""What the arguments of networks may be: values held to the annotations of a constructor, by pydantic."""

import inspect
from collections.abc import Mapping
from typing import Annotated, Any, get_origin, get_type_hints

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
    """The arguments as the constructor of `architecture` wants them: lists as tuples, numbers of the right type.

    Nothing is taken for something else: no text for a number, no number for a truth value.

    Raises:
        UsageError: an unknown argument, a wrong type or an impossible value; one sentence that names
            `arguments.KEY` (but `scale` plainly: it is a key of its own in recipes) and, for names, the nearest one.
    """
    hints = dict.fromkeys(inspect.signature(architecture).parameters, Any)  # of a program's own, perhaps without types
    hints |= get_type_hints(architecture.__init__, include_extras=True)  # type: ignore[misc]
    hints.pop("return", None)
    right = {}
    for key, value in arguments.items():
        if key not in hints:
            raise UsageError(f"arguments.{key}: {architecture.__name__} has no argument '{key}'{nearest(key, hints)}")
        adapter: TypeAdapter[Any] = TypeAdapter(hints[key], config=ConfigDict(strict=True))
        plain = value.item() if isinstance(value, np.generic) else value
        if isinstance(value, list) and get_origin(hints[key]) is not list:
            plain = tuple(value)
        try:
            right[key] = adapter.validate_python(plain)
        except ValidationError as error:
            finding: Mapping[str, Any] = error.errors()[0]
            if not finding["loc"]:
                finding = {**finding, "input": value}  # as it was given
            where = (key, *finding["loc"]) if key == "scale" else ("arguments", key, *finding["loc"])
            raise UsageError(explain(finding, where)) from error
    return right
