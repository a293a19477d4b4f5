"""Numbers as a Russian report prints them, and what the interval of a paired difference lets it say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

NBSP = "\u00a0"
MINUS = "\u2212"
ABSENT = "—"
"""What a value that does not exist is printed as."""

Verdict = Literal["меньше", "больше", "различие не обнаружено"]


@dataclass(frozen=True)
class Number:
    """A value and the run that it comes from.

    `unit` is Russian, as printed ("мс", "сообщ./с", "%"), empty for none; `low` and `high` are the ends of the value's
    95 % interval, NaN where there is none. A value that does not exist is NaN.
    """

    value: float
    unit: str = ""
    low: float = math.nan
    high: float = math.nan
    run: str = ""

    def __post_init__(self) -> None:
        if math.isnan(self.low) != math.isnan(self.high):
            raise ValueError(f"an interval has two ends, got {self.low} and {self.high}: give both or neither")
        if self.bounded and not self.low <= self.value <= self.high:
            raise ValueError(f"an interval must hold its value, got {self.value} outside {self.low}..{self.high}")

    @property
    def bounded(self) -> bool:
        """Whether there is an interval."""
        return not math.isnan(self.low)


@dataclass(frozen=True)
class Difference:
    """A paired difference, first minus second, of one metric under one load.

    `metric` is its Russian name in the nominative ("p95 времени ответа на заказ"), `where` the conditions as a sentence
    begins with them ("при равномерной нагрузке 100 сообщ./с"), `first` and `second` are names of architectures,
    `number` the mean difference with its interval. `better` says which sign is an advantage; None where neither is.
    """

    metric: str
    where: str
    first: str
    second: str
    number: Number
    better: Literal["меньше", "больше"] | None = "меньше"

    @property
    def winner(self) -> str | None:
        """The architecture with the advantage; None where no difference was found or none is an advantage."""
        found = verdict(self.number)
        if self.better is None or found == "различие не обнаружено":
            return None
        return self.first if found == self.better else self.second


def verdict(difference: Number) -> Verdict:
    """What the interval of a difference says: the first is less, is more, or nothing was found (zero lies within).

    Raises ValueError where there is no interval: then nothing may be concluded.
    """
    if not difference.bounded:
        raise ValueError(f"a conclusion needs an interval, got none (run {difference.run or 'unnamed'})")
    if difference.high < 0:
        return "меньше"
    return "больше" if difference.low > 0 else "различие не обнаружено"


def sentence(difference: Difference, first: str, second: str) -> str:
    """The conclusion from a difference, a sentence with its numbers; `first`, `second`: the architectures' titles."""
    number = difference.number
    found = verdict(number)
    where = difference.where[:1].upper() + difference.where[1:]
    if found == "различие не обнаружено":
        value, low, high = _as_one(number)
        return (
            f"{where} различие между архитектурами «{first}» и «{second}» не обнаружено: {difference.metric}, "
            f"парная разность {with_unit(value, number.unit)} "
            f"(ДИ от {low} до {with_unit(high, number.unit)})."
        )
    value, *ends = (text.removeprefix(MINUS) for text in _as_one(number))
    low, high = ends if found == "больше" else reversed(ends)
    return (
        f"{where} {difference.metric} у архитектуры «{first}» {found}, чем у архитектуры «{second}», "
        f"на {with_unit(value, number.unit)} "
        f"(ДИ парной разности от {low} до {with_unit(high, number.unit)})."
    )


def russian(value: float, decimals: int | None = None) -> str:
    """A number with a decimal comma, groups of three parted by U+00A0 and a true minus.

    Without `decimals` it has as many as it is exact with, at most three significant digits; NaN is a dash.
    """
    if math.isnan(value):
        return ABSENT
    if math.isinf(value):
        return "∞" if value > 0 else f"{MINUS}∞"
    text = f"{value:,.{_fewest(value) if decimals is None else decimals}f}"
    negative = text.startswith("-") and any(digit in text for digit in "123456789")
    text = text.removeprefix("-").replace(",", NBSP).replace(".", ",")
    return f"{MINUS}{text}" if negative else text


def with_unit(text: str, unit: str) -> str:
    """A printed number and its unit, which no line break parts."""
    return f"{text}{NBSP}{unit.replace(' ', NBSP)}" if unit else text


def brief(number: Number) -> str:
    """The value and its unit: "12,3 мс"."""
    return with_unit(_as_one(number)[0], number.unit)


def full(number: Number) -> str:
    """The value, its unit and its interval as running text has them."""
    value, low, high = _as_one(number)
    printed = with_unit(value, number.unit)
    return f"{printed} (ДИ от {low} до {with_unit(high, number.unit)})" if low else printed


def cell(number: Number) -> str:
    """The value and its interval as a table's cell has them, whose column names the unit: "12,3 [11,9; 12,7]"."""
    value, low, high = _as_one(number)
    return f"{value} [{low};{NBSP}{high}]" if low else value


def column(values: Sequence[object]) -> list[str]:
    """The cells of a table's column as texts.

    Its plain numbers share one count of decimals, so that the smallest shows up to three significant digits; where
    they span more than four orders of magnitude each has its own. Texts stay, None and NaN are a dash, truths да, нет.
    """
    plain = [value for value in values if isinstance(value, int | float) and math.isfinite(value)]
    sizes = [abs(value) for value in plain if value]
    shared = None
    if sizes and max(sizes) / min(sizes) <= 1e4:
        shared = min(max(_fewest(value) for value in plain), _decimals(min(sizes), 3))
    return [_cell(value, shared) for value in values]


def _cell(value: object, decimals: int | None) -> str:
    if isinstance(value, Number):
        return cell(value)
    if isinstance(value, bool):
        return "да" if value else "нет"
    if isinstance(value, int | float):
        return russian(value, decimals)
    return ABSENT if value is None else str(value)


def _as_one(number: Number) -> tuple[str, str, str]:
    """Value, low and high with one count of decimals: two significant digits of the interval's half-width."""
    if not number.bounded:
        return russian(number.value), "", ""
    half = (number.high - number.low) / 2
    decimals = _decimals(half, 2) if half > 0 and math.isfinite(half) else None
    return russian(number.value, decimals), russian(number.low, decimals), russian(number.high, decimals)


def _fewest(value: float) -> int:
    """The fewest decimals with which a value is exact, but no more than three significant digits need."""
    if value == int(value):
        return 0
    most = _decimals(value, 3)
    return next((decimals for decimals in range(most) if value == round(value, decimals)), most)


def _decimals(value: float, digits: int) -> int:
    """How many decimals show a value, which is not zero, to so many significant digits."""
    return max(0, digits - 1 - math.floor(math.log10(abs(value))))
