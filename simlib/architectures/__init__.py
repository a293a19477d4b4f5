"""The architectures: a folder each, of one shape: model.py (flow), oracle.py (plain SimPy), live.py (real thing)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any

from simlib import paths
from simlib.errors import BadInput, unknown

if TYPE_CHECKING:
    from simlib.architectures.parameters import Parameters
    from simlib.flow import Flow
    from simlib.scenario import Scenario


@dataclass(frozen=True)
class Architecture:
    """An architecture: its name, that of its parameters' class, and whose calibration it stands on, besides what all share.
    Its modules are imported when they are needed."""

    name: str
    class_name: str
    times_of: str | None = None

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
        """The kinds of broker that it may stand on, the default first; None for one that stands on none."""
        return list(dict.fromkeys(variant.stands_on() for variant in self.variants))

    @property
    def kinds(self) -> list[str]:
        """The kinds of broker that may be the user's own, the default first."""
        fields = [variant.model_fields for variant in self.variants]
        return list(dict.fromkeys(each["broker"].default for each in fields if "broker" in each))

    def broker(self, values: Mapping[str, Any]) -> str | None:
        """The broker that these values choose; None for one that stands on none. Raises BadInput for an unknown one."""
        from simlib.architectures.parameters import broker_of

        return broker_of(self.parameters, values)

    def build(self, parameters: Parameters, scenario: Scenario) -> Flow:
        """The flow for these parameters and this scenario."""
        return self._module("model").build(parameters, scenario)

    def load_parameters(self, overrides: Mapping[str, Any] | None = None) -> Parameters:
        """The calibrated parameters with the user's changes; raises BadInput for an unknown name or a bad value."""
        from simlib.architectures.parameters import load

        return load(self.parameters, self.name, overrides or {})

    @property
    def has_twin(self) -> bool:
        """Whether it can be run live."""
        return find_spec(self._path("live")) is not None

    @property
    def live(self) -> ModuleType:
        """The module of the live twin; raises BadInput where there is none."""
        if not self.has_twin:
            raise BadInput(
                f"architecture '{self.name}' has no live twin yet: simulate it, or take {' or '.join(twins())}"
            )
        return self._module("live")

    def _module(self, which: str) -> ModuleType:
        return import_module(self._path(which))

    def _path(self, which: str) -> str:
        return f"simlib.architectures.{self.name.replace('/', '.')}.{which}"


ARCHITECTURES = {
    a.name: a
    for a in (
        Architecture("rest", "Rest"),
        Architecture("message_queue", "MessageQueue"),
        Architecture("outbox", "Outbox", times_of="message_queue"),
        Architecture("batch_exchange", "BatchExchange", times_of="rest"),
        Architecture("service_mesh", "ServiceMesh", times_of="rest"),
        Architecture("cqrs", "Cqrs", times_of="message_queue"),
        Architecture("event_sourcing", "EventSourcing", times_of="rest"),
        Architecture("saga/orchestrated", "Orchestrated", times_of="message_queue"),
        Architecture("saga/choreographed", "Choreographed", times_of="message_queue"),
        Architecture("streaming", "Streaming"),
    )
}


def class_name(name: str) -> str:
    """The class of parameters of an architecture that has no other name for it."""
    return "".join(map(str.capitalize, name.split("_")))


if str(paths.ARCHITECTURES) not in __path__:
    __path__.append(str(paths.ARCHITECTURES))
    for file in sorted(paths.ARCHITECTURES.glob("*/model.py")):
        own = file.parent.name
        ARCHITECTURES.setdefault(own, Architecture(own, class_name(own)))


def names() -> list[str]:
    """Names of all architectures."""
    return list(ARCHITECTURES)


def twins() -> list[str]:
    """Names of the architectures that can be run live, and so be measured."""
    return [name for name, known in ARCHITECTURES.items() if known.has_twin]


def get(name: str) -> Architecture:
    """The architecture of this name; raises BadInput for an unknown one."""
    if name not in ARCHITECTURES:
        raise unknown("architecture", name, ARCHITECTURES)
    return ARCHITECTURES[name]
