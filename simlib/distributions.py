"""Distributions of durations and counts: frozen, validated, written "5 ms" or "lognormal(2 ms, 0.5)", and drawn by key."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import BeforeValidator, Field, ValidationError, model_validator

from simlib import draws
from simlib.errors import BadInput, explained, shown, unknown
from simlib.quantities import Duration, Number, PositiveDuration, Whole, seconds
from simlib.reading import Frozen

Draw = Callable[[int], float]


class Distribution(Frozen):
    """A distribution on [0, ∞). `mean` is in seconds where the value is a time; `draw(stream)` samples it by place."""

    family: str
    positional: ClassVar[tuple[str, ...]] = ()
    scales: ClassVar[tuple[str, ...]] = ("mean",)
    """The fields that are values of the distribution's own unit."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if len(args) > len(self.positional):
            raise BadInput(
                f"{type(self).__name__} takes {', '.join(self.positional)}, got {len(args)} values: take some out"
            )
        try:
            super().__init__(**dict(zip(self.positional, args, strict=False)), **kwargs)
        except ValidationError as error:
            raise explained(error, type(self).__name__) from None

    def law(self) -> tuple[int, float, float, float, np.ndarray]:
        """The arguments of `draws.sample`: family, a, b, c, table."""
        raise NotImplementedError(type(self).__name__)

    @property
    def mean_value(self) -> float:
        """The expectation."""
        raise NotImplementedError(type(self).__name__)

    def scaled(self, factor: float) -> Self:
        """The same distribution with every value multiplied by a factor above 0."""
        scaled = {name: np.multiply(getattr(self, name), factor).tolist() for name in self.scales}
        return type(self)(**{**dict(self), **scaled})

    def draw(self, stream: int) -> Draw:
        """A sampler of one stream: place → value."""
        family, a, b, c, table = self.law()
        if family == draws.CONSTANT:
            return lambda place: a
        sample = draws.sample
        return lambda place: sample(family, a, b, c, table, stream, place)

    def sample(self, seed: int, stream: str, n: int, first: int = 0) -> np.ndarray:
        """Draws of n entities from the first on, shape (n,)."""
        return draws.samples(*self.law(), draws.stream_key(seed, stream), n, first)


class Constant(Distribution):
    """Always `value`."""

    family: Literal["constant"] = "constant"
    positional = ("value",)
    scales = ("value",)
    value: Duration

    def law(self) -> tuple[int, float, float, float, np.ndarray]:
        return draws.CONSTANT, self.value, 0.0, 0.0, draws.NO_TABLE

    @property
    def mean_value(self) -> float:
        return self.value


class Exponential(Distribution):
    """Exponential with the given mean."""

    family: Literal["exponential"] = "exponential"
    positional = ("mean",)
    mean: PositiveDuration

    def law(self) -> tuple[int, float, float, float, np.ndarray]:
        return draws.EXPONENTIAL, self.mean, 0.0, 0.0, draws.NO_TABLE

    @property
    def mean_value(self) -> float:
        return self.mean


class Uniform(Distribution):
    """Uniform between `low` and `high`."""

    family: Literal["uniform"] = "uniform"
    positional = ("low", "high")
    scales = ("low", "high")
    low: Duration
    high: Duration

    @model_validator(mode="after")
    def _ordered(self) -> Uniform:
        if self.low > self.high:
            raise ValueError(f"low must not exceed high, got {self.low:g} and {self.high:g}: exchange them")
        return self

    def law(self) -> tuple[int, float, float, float, np.ndarray]:
        return draws.UNIFORM, self.low, self.high, 0.0, draws.NO_TABLE

    @property
    def mean_value(self) -> float:
        return (self.low + self.high) / 2


class Lognormal(Distribution):
    """Lognormal of the given mean and coefficient of variation, moved by `shift` (the mean is without the shift)."""

    family: Literal["lognormal"] = "lognormal"
    positional = ("mean", "cv", "shift")
    scales = ("mean", "shift")
    mean: PositiveDuration
    cv: Annotated[Number, Field(gt=0)]
    shift: Duration = 0.0

    def law(self) -> tuple[int, float, float, float, np.ndarray]:
        variance = math.log(1.0 + self.cv * self.cv)
        return draws.LOGNORMAL, math.log(self.mean) - variance / 2, math.sqrt(variance), self.shift, draws.NO_TABLE

    @property
    def mean_value(self) -> float:
        return self.shift + self.mean


class Weibull(Distribution):
    """Weibull of `scale` and `shape`, moved by `shift`."""

    family: Literal["weibull"] = "weibull"
    positional = ("scale", "shape", "shift")
    scales = ("scale", "shift")
    scale: PositiveDuration
    shape: Annotated[Number, Field(gt=0)]
    shift: Duration = 0.0

    def law(self) -> tuple[int, float, float, float, np.ndarray]:
        return draws.WEIBULL, self.scale, 1.0 / self.shape, self.shift, draws.NO_TABLE

    @property
    def mean_value(self) -> float:
        return self.shift + self.scale * math.gamma(1.0 + 1.0 / self.shape)


class Erlang(Distribution):
    """Sum of `stages` exponentials, of the given mean in all."""

    family: Literal["erlang"] = "erlang"
    positional = ("mean", "stages")
    mean: PositiveDuration
    stages: Annotated[Whole, Field(ge=1, le=1000)]

    def law(self) -> tuple[int, float, float, float, np.ndarray]:
        return draws.ERLANG, self.mean / self.stages, float(self.stages), 0.0, draws.NO_TABLE

    @property
    def mean_value(self) -> float:
        return self.mean


class Hyperexponential(Distribution):
    """Exponential of mean `first` with probability `p`, else of mean `second`."""

    family: Literal["hyperexponential"] = "hyperexponential"
    positional = ("p", "first", "second")
    scales = ("first", "second")
    p: Annotated[Number, Field(gt=0, lt=1)]
    first: PositiveDuration
    second: PositiveDuration

    def law(self) -> tuple[int, float, float, float, np.ndarray]:
        return draws.HYPEREXPONENTIAL, self.p, self.first, self.second, draws.NO_TABLE

    @property
    def mean_value(self) -> float:
        return self.p * self.first + (1 - self.p) * self.second


class Quantiles(Distribution):
    """A table of quantiles at equal steps of probability from 0 to 1, with straight lines between: what else was fitted."""

    family: Literal["quantiles"] = "quantiles"
    positional = ("values",)
    scales = ("values",)
    values: Annotated[tuple[Duration, ...], Field(min_length=2, max_length=10_001)]

    @model_validator(mode="after")
    def _ascending(self) -> Quantiles:
        if any(a > b for a, b in zip(self.values, self.values[1:], strict=False)):
            raise ValueError("values must ascend: sort them")
        return self

    def law(self) -> tuple[int, float, float, float, np.ndarray]:
        return draws.QUANTILES, 0.0, 0.0, 0.0, np.array(self.values)

    @property
    def mean_value(self) -> float:
        v = self.values
        return (math.fsum(v) - (v[0] + v[-1]) / 2) / (len(v) - 1)


FAMILIES: dict[str, type[Distribution]] = {
    c.model_fields["family"].default: c
    for c in (Constant, Exponential, Uniform, Lognormal, Weibull, Erlang, Hyperexponential, Quantiles)
}
_CALL = re.compile(r"\s*([a-z]+)\s*\((.*)\)\s*\Z", re.DOTALL)


def distribution(value: Any) -> Distribution:
    """A distribution from what a user writes: "5 ms" (constant), "lognormal(2 ms, 0.5)", or a mapping with `family`.

    Raises BadInput for an unknown family, and for what is none of these.
    """
    if isinstance(value, Distribution):
        return value
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        if not isinstance(value, str) or not (call := _CALL.match(value)):
            return Constant(value=seconds(value))
        arguments = [_argument(part.strip()) for part in call[2].split(",") if part.strip()]
        return _family(call[1])(*([arguments] if call[1] == "quantiles" else arguments))
    if isinstance(value, dict):
        return _family(value.get("family"))(**{str(key): one for key, one in value.items()})
    raise BadInput(
        f"must be a time such as '5 ms', or a distribution such as 'exponential(5 ms)', got {shown(value)}: write one"
    )


def _family(name: Any) -> type[Distribution]:
    if not isinstance(name, str) or name not in FAMILIES:
        raise unknown("distribution", str(name), FAMILIES)
    return FAMILIES[name]


def _argument(text: str) -> Any:
    """A number where it is one, else the text, such as "5 ms"."""
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


AnyDistribution = Annotated[
    Annotated[
        Constant | Exponential | Uniform | Lognormal | Weibull | Erlang | Hyperexponential | Quantiles,
        Field(discriminator="family"),
    ],
    BeforeValidator(distribution),
]
"""The type of a parameter that is a distribution."""
