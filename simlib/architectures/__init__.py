"""The architectures: a folder each, of one shape: model.py (flow), oracle.py (plain SimPy), live.py (real thing)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from simlib.errors import unknown

if TYPE_CHECKING:
    from simlib.architectures.parameters import Parameters
    from simlib.flow import Flow
    from simlib.scenario import Scenario


@dataclass(frozen=True)
class Architecture:
    """An architecture: its name, and that of its parameters' class. Its modules are imported when they are needed."""

    name: str
    class_name: str

    @property
    def parameters(self) -> type[Parameters]:
        """The class of its parameters, in the default variant."""
        return self.variants[0]

    @property
    def variants(self) -> tuple[type[Parameters], ...]:
        """The classes that its parameters may be of, the default first."""
        return getattr(self._module("model"), self.class_name).variants()

    @property
    def brokers(self) -> list[str | None]:
        """The brokers that it may stand on, the default first; None for one that stands on none."""
        fields = (variant.model_fields.get("broker") for variant in self.variants)
        return list(dict.fromkeys(field.default if field else None for field in fields))

    def build(self, parameters: Parameters, scenario: Scenario) -> Flow:
        """The flow for these parameters and this scenario."""
        return self._module("model").build(parameters, scenario)

    def load_parameters(self, overrides: Mapping[str, Any] | None = None) -> Parameters:
        """The calibrated parameters with the user's changes; raises BadInput for an unknown name or a bad value."""
        from simlib.architectures.parameters import load

        return load(self.parameters, self.name, overrides or {})

    @property
    def live(self) -> ModuleType:
        """The module of the live twin."""
        return self._module("live")

    def _module(self, which: str) -> ModuleType:
        return import_module(f"simlib.architectures.{self.name.replace('/', '.')}.{which}")


ARCHITECTURES = {a.name: a for a in (Architecture("rest", "Rest"), Architecture("message_queue", "MessageQueue"))}


def names() -> list[str]:
    """Names of all architectures."""
    return list(ARCHITECTURES)


def get(name: str) -> Architecture:
    """The architecture of this name; raises BadInput for an unknown one."""
    if name not in ARCHITECTURES:
        raise unknown("architecture", name, ARCHITECTURES)
    return ARCHITECTURES[name]
