"""Numbers as a user writes them, with units or without: "5 ms", "100/s", 0.5. Inside, times are seconds and rates are 1/s."""

from __future__ import annotations

import math
import re
from numbers import Integral
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from simlib.errors import BadInput

SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_NUMBER = r"([+-]?(?:(?:0|[1-9]\d*)\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)"
_DURATION = re.compile(rf"\s*{_NUMBER}\s*([a-zµ]+)\s*\Z")
_RATE = re.compile(rf"\s*{_NUMBER}\s*/\s*([a-zµ]+)\s*\Z")
_PLAIN = re.compile(rf"\s*{_NUMBER}\s*\Z")


def _finite(text: object, value: float) -> float:
    if not math.isfinite(value):
        raise BadInput(f"a number must be finite, got {text}: give a finite one")
    return value


def seconds(value: Any) -> Any:
    """Seconds of "5 ms" or of a bare number, which is already in seconds; other types pass through to the type check.

    Raises BadInput where the text is neither, or its unit is no unit of time.
    """
    if isinstance(value, bool):
        raise BadInput(f"a duration must be a number or a text such as '5 ms', got {value}")
    if isinstance(value, (int, float)):
        return _finite(value, float(value))
    if not isinstance(value, str):
        return value
    if match := _PLAIN.match(value):
        return _finite(value, float(match[1]))
    match = _DURATION.match(value)
    if not match or match[2] not in SECONDS:
        raise BadInput(f"a duration must be a number and a unit of {', '.join(SECONDS)}, got '{value}': write '5 ms'")
    return _finite(value, float(match[1]) * SECONDS[match[2]])


def per_second(value: Any) -> Any:
    """Events a second of "100/s", "6000/min" or of a bare number; raises BadInput as `seconds` does."""
    if isinstance(value, bool):
        raise BadInput(f"a rate must be a number or a text such as '100/s', got {value}")
    if isinstance(value, (int, float)):
        return _finite(value, float(value))
    if not isinstance(value, str):
        return value
    if match := _PLAIN.match(value):
        return _finite(value, float(match[1]))
    match = _RATE.match(value)
    if not match or match[2] not in SECONDS:
        raise BadInput(f"a rate must be a number, a slash and a unit of time, got '{value}': write '100/s'")
    return _finite(value, float(match[1]) / SECONDS[match[2]])


def whole(value: Any, what: str, least: int, most: int | None = None) -> int:
    """A whole number between two others; raises BadInput, which calls it `what`."""
    if isinstance(value, Integral) and not isinstance(value, bool) and least <= int(value):
        if most is None or int(value) <= most:
            return int(value)
    limits = f"of at least {least}" if most is None else f"from {least} to {most}"
    raise BadInput(f"{what} must be a whole number {limits}, got {value!r}: give one")


def _as_python(value: Any) -> Any:
    """Whole numbers of numpy as Python's."""
    return int(value) if isinstance(value, Integral) and not isinstance(value, bool) else value


Whole = Annotated[int, BeforeValidator(_as_python), Field(strict=True)]
"""A whole number, and nothing that could be taken for one: no text, no truth value, no 5.0."""
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
"""A finite number."""
Truth = Annotated[bool, Field(strict=True)]
"""True or false; "no" and 0 are neither."""
Duration = Annotated[float, BeforeValidator(seconds), Field(ge=0)]
"""A time of zero or more, in seconds."""
PositiveDuration = Annotated[float, BeforeValidator(seconds), Field(gt=0)]
"""A time above zero, in seconds."""
Rate = Annotated[float, BeforeValidator(per_second), Field(gt=0)]
"""Events a second, above zero."""
Probability = Annotated[Number, Field(ge=0, le=1)]
"""A probability between 0 and 1."""
