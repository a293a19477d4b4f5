"""A sweep's plan, read from YAML: which architectures meet which scenarios, at which rates, how often."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, StringConstraints, model_validator

from simlib import api
from simlib.errors import BadInput
from simlib.quantities import Rate, Whole
from simlib.reading import Frozen, read_model
from simlib.scenario import MESSAGES, SEEDS

Label = Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9][A-Za-z0-9_.-]*)?$")]
"""What a folder may be called."""


class Candidate(Frozen):
    """An architecture, and the parameters that this variant of it changes."""

    architecture: str
    variant: Label = ""
    parameters: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _named(self) -> Candidate:
        if bool(self.variant) != bool(self.parameters):
            raise ValueError("a variant is a name with the parameters that it changes: give both or neither")
        return self


class Load(Frozen):
    """A scenario (a name, or a YAML file) and the base rates to run it at, 1/s; its own where none are given."""

    scenario: str
    rates: tuple[Rate, ...] = ()

    @model_validator(mode="after")
    def _ascending(self) -> Load:
        if any(a >= b for a, b in zip(self.rates, self.rates[1:], strict=False)):
            raise ValueError("rates must ascend, each given once: sort them")
        return self


@dataclass(frozen=True)
class Entry:
    """What one notebook runs: one candidate on one scenario, over its grid of rates and replications."""

    architecture: str
    variant: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    scenario: str = "steady"
    rates: tuple[float, ...] = ()
    messages: int = 20_000
    replications: int = 10
    seed: int = 1

    @property
    def candidate(self) -> str:
        """The architecture, with its variant after a slash."""
        return f"{self.architecture}/{self.variant}" if self.variant else self.architecture

    @property
    def name(self) -> str:
        """The name of the entry's folder in the store."""
        return f"{self.candidate.replace('/', '.')}-{Path(self.scenario).stem}"

    @property
    def runs(self) -> int:
        """How many runs the entry has."""
        return max(1, len(self.rates)) * self.replications

    def cases(self) -> list[api.Case]:
        """One case for each rate of the grid; raises BadInput for what no run can be made of."""
        rates = self.rates or (None,)
        return [api.case(self.architecture, self.scenario, self.parameters, self.messages, rate) for rate in rates]


class Plan(Frozen):
    """A sweep: every candidate on every scenario, on the same seeds. `name` is that of its folder in the store."""

    name: Annotated[Label, Field(min_length=1)]
    seed: Annotated[Whole, Field(ge=0, le=SEEDS)] = 1
    replications: Annotated[Whole, Field(ge=2, le=10_000)] = 10
    messages: Annotated[Whole, Field(ge=1, le=MESSAGES)] = 20_000
    architectures: Annotated[tuple[Candidate, ...], Field(min_length=1)]
    scenarios: Annotated[tuple[Load, ...], Field(min_length=1)]

    @property
    def entries(self) -> list[Entry]:
        """What the notebooks run, those with the longest grids first."""
        entries = [
            Entry(
                candidate.architecture,
                candidate.variant,
                candidate.parameters,
                load.scenario,
                load.rates,
                self.messages,
                self.replications,
                self.seed,
            )
            for load in self.scenarios
            for candidate in self.architectures
        ]
        return sorted(entries, key=lambda entry: -entry.runs)


def load_plan(path: Path | str) -> Plan:
    """The plan in a YAML file; raises BadInput where it cannot be read, or no run can be made of an entry."""
    path = Path(path)
    plan = read_model(Plan, path, "a plan", name=path.stem)
    names = [entry.name for entry in plan.entries]
    for name in names:
        if names.count(name) > 1:
            raise BadInput(f"{path}: '{name}' stands in the plan twice: remove one, or give it a variant of its own")
    try:
        for entry in plan.entries:
            entry.cases()
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from None
    return plan
