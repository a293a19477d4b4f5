"""Numbers as a Russian report prints them, and what the interval of a paired difference lets it say."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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
class Standing:
    """How the architectures stand by one criterion.

    `metric` is its Russian name in the nominative ("95-й процентиль времени ответа на заказ"), `where` the conditions as a sentence
    begins with them ("при равномерной нагрузке 100 сообщ./с"). `values` are by the architectures' names, NaN where an
    architecture is overloaded. `leader` is the one with the best mean, None where all are overloaded; `differences` are the
    paired ones of the others from the leader.
    """

    metric: str
    where: str
    values: Mapping[str, Number]
    leader: str | None
    differences: Mapping[str, Number]

    @property
    def level(self) -> list[str]:
        """The architectures that no difference from the leader was found of."""
        return [name for name, each in self.differences.items() if verdict(each) == "различие не обнаружено"]

    @property
    def behind(self) -> list[str]:
        """The architectures that a difference from the leader was found of, the closest first."""
        level = self.level
        others = {name: abs(each.value) for name, each in self.differences.items() if name not in level}
        return sorted(others, key=lambda name: others[name])

    @property
    def overloaded(self) -> list[str]:
        """The architectures that have no value."""
        return [name for name, value in self.values.items() if math.isnan(value.value)]


def verdict(difference: Number) -> Verdict:
    """What the interval of a difference says: the first is less, is more, or nothing was found (zero lies within).

    Raises ValueError where there is no interval: then nothing may be concluded.
    """
    if not difference.bounded:
        raise ValueError(f"a conclusion needs an interval, got none (run {difference.run or 'unnamed'})")
    if difference.high < 0:
        return "меньше"
    return "больше" if difference.low > 0 else "различие не обнаружено"


def sentence(standing: Standing, titles: Mapping[str, str]) -> str:
    """What a standing says, with its numbers; `titles` are the architectures' by their names."""
    where = standing.where[:1].upper() + standing.where[1:]
    if standing.leader is None:
        return f"{where} перегружены все архитектуры."
    best, behind = standing.values[standing.leader], standing.behind
    if not behind and len({each.value for each in standing.values.values()}) == 1:
        return f"{where} {standing.metric} у всех архитектур одинаково: {brief(best)}".removesuffix(".") + "."
    said = f"{where} лучшее значение показателя «{standing.metric}» — {brief(best)} — у архитектуры «{titles[standing.leader]}»"
    if standing.level:
        said += f"; различие с ней не обнаружено у {listed([titles[name] for name in standing.level])}"
    if behind:
        first, last = behind[0], behind[-1]
        said += f"; «{titles[first]}» отстаёт от неё на {_distance(standing.differences[first])}"
        if last != first:
            said += f", дальше всех — «{titles[last]}», на {_distance(standing.differences[last])}"
    if standing.overloaded:
        said += f"; перегрузка — у {listed([titles[name] for name in standing.overloaded])}"
    return said if said.endswith(".") else f"{said}."


def listed(titles: Sequence[str]) -> str:
    """Titles as a sentence has them: "«А», «Б» и «В»"."""
    quoted = [f"«{title}»" for title in titles]
    return " и ".join([", ".join(quoted[:-1]), quoted[-1]] if len(quoted) > 1 else quoted)


def _distance(difference: Number) -> str:
    """The size of a difference that was found, with its interval."""
    value, *ends = (text.removeprefix(MINUS) for text in _as_one(difference))
    low, high = ends if verdict(difference) == "больше" else reversed(ends)
    unit = "п. п." if difference.unit == "%" else difference.unit
    return f"{with_unit(value, unit)} (ДИ парной разности от {low} до {with_unit(high, unit)})"


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
