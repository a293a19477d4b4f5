"""Numbers with their units and intervals, and differences, as an English sentence or a table's cell has them."""

from __future__ import annotations

import math

ABSENT = "–"
"""What a value that does not exist is shown as."""
_SCALES = {"s": ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))}
_SHOWN = {"1": ""}


def quantity(value: float, unit: str = "", low: float = math.nan, high: float = math.nan) -> str:
    """A value with its unit and its interval, if it has one: "12.3 ms [11.9, 12.7]"; times below 1 s in ms or µs."""
    if math.isnan(value):
        return ABSENT
    scale, name = _scale(max(abs(x) for x in (value, low, high) if not math.isnan(x)), unit)
    shown = f"{_number(value / scale)}{' ' + name if name else ''}"
    if math.isnan(low):
        return shown
    return f"{shown} [{_number(low / scale)}, {_number(high / scale)}]"


def difference(what: str, where: str, a: str, b: str, value: float, low: float, high: float, unit: str) -> str:
    """What the interval of a paired difference a − b says, as a sentence."""
    shown = quantity(value, unit, low, high)
    if math.isnan(low):
        return f"{where}: nothing can be said of {what} of {a} against {b}: there is no interval."
    if low <= 0 <= high:
        return f"{where}: no difference found in {what} between {a} and {b}: {shown}."
    return f"{where}: {what} is {'less' if high < 0 else 'more'} with {a} than with {b}: by {shown}."


def _scale(size: float, unit: str) -> tuple[float, str]:
    for scale, name in _SCALES.get(unit, ()):
        if size >= scale:
            return scale, name
    scales = _SCALES.get(unit)
    return scales[-1] if scales and size else (1.0, _SHOWN.get(unit, unit))


def _number(value: float) -> str:
    """Four significant digits, whole numbers whole."""
    text = f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return "0" if text == "-0" else text
