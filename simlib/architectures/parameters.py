"""Parameters of the models: frozen, with units; their values are assumed, measured (a calibration file) or set by the user."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from simlib import paths
from simlib.distributions import AnyDistribution
from simlib.errors import BadInput, explained, unknown
from simlib.quantities import PositiveDuration
from simlib.scenario import read_yaml

Count = Annotated[int, Field(ge=1, le=100_000)]
Time = AnyDistribution
"""A distribution of seconds."""


class Parameters(BaseModel):
    """What both sides are made of in every architecture: services on HTTP, each with its database; times are of one visit.

    The defaults are assumptions; `data/calibration/system.yaml` replaces them by what was measured.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    edge: Time = Field("0.2 ms", validate_default=True, description="between a caller and the side it calls, each way")
    network: Time = Field("0.2 ms", validate_default=True, description="between the two sides, each way")
    http_server: Time = Field(
        "0.3 ms", validate_default=True, description="CPU to take in a request, and as much to answer"
    )
    http_client: Time = Field(
        "0.3 ms", validate_default=True, description="CPU to send a call, and as much to take its answer"
    )
    database_client: Time = Field(
        "0.1 ms", validate_default=True, description="CPU to ask the database, and as much after"
    )
    commit: Time = Field(
        "1 ms", validate_default=True, description="flush of the database's log at a commit, one at a time"
    )
    read: Time = Field("0.3 ms", validate_default=True, description="the database server's work for a transaction")
    cores: Count = Field(2, description="cores of the machine that both sides and the database share")
    database_connections: Count = Field(8, description="connections of each side to its database")

    @classmethod
    def variants(cls) -> tuple[type[Parameters], ...]:
        """The classes of these parameters, the default first; several where one of them (a broker) decides which others
        there are."""
        return (cls,)

    @classmethod
    def variant(cls, values: Mapping[str, Any]) -> type[Parameters]:
        """The class of these values; raises BadInput where they name none."""
        return cls

    def replace(self, **changes: Any) -> Parameters:
        """The same parameters but for the changes; raises BadInput as `load` does."""
        return make(type(self), {**self.model_dump(), **changes})

    def hash(self) -> str:
        """Twelve hexadecimal digits that name these values."""
        return hashlib.blake2b(self.model_dump_json().encode(), digest_size=6).hexdigest()


class Calibrated(BaseModel):
    """One parameter's value in a calibration file, and where it comes from."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    value: Any
    provenance: str
    source: str = ""
    fit: dict[str, float] = {}


def make(model: type[Parameters], values: Mapping[str, Any]) -> Parameters:
    """Parameters of these values; raises BadInput for an unknown name or a value out of its range."""
    model = model.variant(values)
    for name in values:
        if name in model.model_fields:
            continue
        others = [_named(other) for other in model.variants() if name in other.model_fields]
        if others:
            raise BadInput(f"parameter '{name}' is of {' or '.join(others)}, not of {_named(model)}: leave it out")
        raise unknown("parameter", name, model.model_fields)
    try:
        return model(**values)
    except ValidationError as error:
        raise explained(error, "parameter") from None


def _named(model: type[Parameters]) -> str:
    """A variant by what tells it from the others."""
    chosen = (name for name in ("broker", "queue_type") if name in model.model_fields)
    return " with ".join(f"{name}={model.model_fields[name].default}" for name in chosen)


def calibration_files(architecture: str, broker: str | None) -> list[Path]:
    """The files that calibrate an architecture: what all share, then its own (with its broker's profile)."""
    own = architecture.replace("/", "-") + (f".{broker}" if broker else "")
    return [paths.CALIBRATION / "system.yaml", paths.CALIBRATION / f"{own}.yaml"]


def calibrated(architecture: str, broker: str | None) -> dict[str, Calibrated]:
    """Calibrated values by parameter; empty where nothing was measured. Raises BadInput for a broken file."""
    values: dict[str, Calibrated] = {}
    for file in calibration_files(architecture, broker):
        if file.exists():
            state = file.stat()
            values |= _entries(file, state.st_mtime_ns, state.st_size)
    return values


@lru_cache(maxsize=64)
def _entries(file: Path, *state: int) -> dict[str, Calibrated]:
    """The entries of a calibration file in a state that it is in: its tables take a fifth of a second to read."""
    data = read_yaml(file)
    if not isinstance(data, dict) or not isinstance(data.get("parameters"), dict):
        raise BadInput(f"{file}: a calibration must be a mapping with the key 'parameters': run simlib calibrate")
    try:
        return {name: Calibrated.model_validate(entry) for name, entry in data["parameters"].items()}
    except ValidationError as error:
        raise explained(error, str(file)) from None


def load(model: type[Parameters], architecture: str, overrides: Mapping[str, Any]) -> Parameters:
    """The defaults, replaced by what was calibrated, replaced by what the user sets; raises BadInput as `make` does."""
    field = model.variant(overrides).model_fields.get("broker")
    broker = field.default if field else None
    measured = {name: entry.value for name, entry in calibrated(architecture, broker).items()}
    return make(model, {**measured, **overrides})


__all__ = [
    "Calibrated",
    "Count",
    "Parameters",
    "PositiveDuration",
    "Time",
    "calibrated",
    "calibration_files",
    "load",
    "make",
]
