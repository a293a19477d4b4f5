"""What the explorer lets the user move: a control for each parameter of an architecture, made from the parameter itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from simlib import architectures
from simlib.architectures.parameters import calibrated
from simlib.distributions import Constant, Distribution
from simlib.figures import style
from simlib.figures.catalogue import TEXTS, Language, text
from simlib.quantities import seconds

Sort = Literal["flag", "choice", "count", "number"]
STEP = 10 ** (1 / 100)
"""What a step of a logarithmic slider multiplies by."""
STEPS = (-100, 200)
"""How many such steps a time can be moved: to a tenth, and to a hundred times its default."""
MORE = 4
"""A count's range, as a multiple of its default."""


@dataclass(frozen=True)
class Control:
    """A parameter that can be moved, in the `unit` that is shown: "ms", "s" or "" (a number of something).

    A slider stands at a whole number: of a count the count itself, else steps away from the default, so that no slider
    moves a default that lies between two steps. `low` and `high` are its ends; `step` is 0 where steps are logarithmic.
    `choices` are those of a choice. A distribution is moved by its mean.
    """

    name: str
    sort: Sort
    default: Any
    unit: str = ""
    low: int = 0
    high: int = 0
    step: float = 0.0
    choices: tuple[str, ...] = ()
    distribution: Distribution | None = None
    description: str = ""
    provenance: str = "assumed"
    source: str = ""

    @property
    def start(self) -> Any:
        """Where its widget stands at first."""
        return 0 if self.sort == "number" else self.default

    def at(self, place: Any) -> Any:
        """What is shown where the widget stands."""
        if self.sort != "number":
            return place
        return self.default + place * self.step if self.step else self.default * STEP**place

    def value(self, place: Any) -> Any:
        """The parameter's value there: in seconds, and for a distribution of that mean, the same in shape."""
        if self.sort != "number":
            return place
        number = self.at(place) * _SECONDS[self.unit]
        if self.distribution is None:
            return number
        mean = self.distribution.mean_value
        return self.distribution.scaled(number / mean) if mean > 0 and number > 0 else Constant(value=number)

    def label(self, language: Language) -> str:
        """What the parameter is, in a few words."""
        name = f"parameter:{self.name}"
        return text(name, language) if name in TEXTS else self.name

    def shown(self, value: Any, language: Language) -> str:
        """A value with its unit, to three digits."""
        if self.sort in ("flag", "choice"):
            return ""
        number = style.number(float(f"{value:.3g}") if self.sort == "number" else value, language)
        return f"{number} {text(f'unit:{self.unit}', language)}" if self.unit else number

    def tooltip(self, language: Language) -> str:
        """Name, description, unit, range, and where the default comes from."""
        described = self.description if language == "en" and self.description else self.label(language)
        lines = [f"{self.name}: {described}"]
        if self.sort in ("count", "number"):
            low, high = (self.shown(self.at(place), language) for place in (self.low, self.high))
            lines.append(text("range", language, low=low, high=high))
        default = self.shown(self.default, language) or _word(self.default, language)
        provenance = text(f"provenance:{self.provenance}", language)
        lines.append(text("default", language, value=default, provenance=provenance))
        if self.distribution is not None:
            lines.append(text("mean_of", language, family=text(f"family:{self.distribution.family}", language)))
        return "\n".join(lines)


_SECONDS = {"ms": 1e-3, "s": 1.0, "": 1.0}


def controls(architecture: str, settings: Mapping[str, Any] | None = None) -> tuple[Control, ...]:
    """The controls of an architecture's parameters, with its calibrated values as defaults; `settings` are overrides that
    choose among calibrations (`broker`). Raises BadInput for an unknown name."""
    known = architectures.get(architecture)
    parameters = known.load_parameters(settings)
    measured = calibrated(architecture, parameters.profile)
    found = []
    for name, field in known.parameters.model_fields.items():
        entry = measured.get(name)
        about: dict[str, Any] = {
            "description": field.description or "",
            "provenance": entry.provenance if entry else "assumed",
            "source": entry.source if entry else "",
        }
        found.append(_control(name, getattr(parameters, name), field.annotation, field.metadata, about))
    return tuple(found)


def _control(name: str, value: Any, annotation: Any, metadata: list[Any], about: dict[str, Any]) -> Control:
    if isinstance(value, bool):
        return Control(name, "flag", value, **about)
    if isinstance(value, str):
        return Control(name, "choice", value, choices=get_args(annotation) or (value,), **about)
    bounds = {side: _bound(metadata, side) for side in ("ge", "gt", "le", "lt")}
    least = next((bounds[side] for side in ("ge", "gt") if bounds[side] is not None), 0.0) or 0.0
    most = next((bounds[side] for side in ("le", "lt") if bounds[side] is not None), None)
    if isinstance(value, int):
        high = max(10, MORE * value)
        return Control(
            name, "count", value, low=int(least), high=int(high if most is None else min(high, most)), **about
        )
    if isinstance(value, Distribution):
        return _time(name, value.mean_value, "ms", value, about)
    if any(getattr(each, "func", None) is seconds for each in metadata):
        return _time(name, value, "ms" if value < 1 else "s", None, about)
    return _linear(name, value, "", least, max(1.0, MORE * value) if most is None else most, about)


def _time(name: str, value: float, unit: str, distribution: Distribution | None, about: dict[str, Any]) -> Control:
    shown = float(f"{value / _SECONDS[unit]:.6g}")
    about = {**about, "distribution": distribution}
    if shown <= 0:
        return _linear(name, 0.0, unit, 0.0, 10.0, about)
    return Control(name, "number", shown, unit, *STEPS, **about)


def _linear(name: str, value: float, unit: str, low: float, high: float, about: dict[str, Any]) -> Control:
    step = (high - low) / 200
    ends = math.ceil((low - value) / step - 1e-9), math.floor((high - value) / step + 1e-9)
    return Control(name, "number", value, unit, *ends, step=step, **about)


def _bound(metadata: list[Any], side: str) -> float | None:
    return next((getattr(each, side) for each in metadata if getattr(each, side, None) is not None), None)


def _word(value: Any, language: Language) -> str:
    return text("yes" if value else "no", language) if isinstance(value, bool) else str(value)
