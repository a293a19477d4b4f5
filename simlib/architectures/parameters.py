"""Parameters of the models: frozen, with units; their values are assumed, measured (a calibration file) or set by the user."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from simlib import paths
from simlib.architectures import ARCHITECTURES
from simlib.brokers import own
from simlib.distributions import AnyDistribution, distribution
from simlib.errors import BadInput, explained, unknown
from simlib.quantities import PositiveDuration, Truth, Whole
from simlib.reading import Frozen, read_model

Count = Annotated[Whole, Field(ge=1, le=100_000)]
Retries = Annotated[Whole, Field(ge=0, le=100)]
Time = AnyDistribution
"""A distribution of seconds."""
CONNECTION_GIVEN = 3
"""Turns of a service's event loop from the one in which a connection to the database is given back until who waited for it goes on:
psycopg_pool waits in a task within a task (asyncio.wait_for on Python 3.11)."""
THREAD_DONE = 2
"""Turns from a thread's being done until who waits for it goes on: one tells the event loop, in the next the task goes on."""
PROFILES = ("broker", "proxy")
"""Parameters that name what an architecture stands on, which has a calibration of its own."""


class Parameters(Frozen):
    """What both sides are made of in every architecture: services on HTTP, each with its database; times are of one visit.

    The defaults are assumptions; `data/calibration/system.yaml` replaces them by what was measured.
    """

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
    event_loop: Truth = Field(
        True,
        description="whether a service's tasks run until they wait, as in an event loop, or each piece of work waits in line",
    )

    @classmethod
    def variants(cls) -> tuple[type[Parameters], ...]:
        """The classes of these parameters, the default first; several where one of them (a broker) decides which others
        there are."""
        return (cls,)

    @classmethod
    def variant(cls, values: Mapping[str, Any]) -> type[Parameters]:
        """The class of these values; raises BadInput where they name none."""
        return cls

    @classmethod
    def stands_on(cls) -> str | None:
        """The kind of broker, or the proxy, of this variant; None where it stands on none."""
        return next((cls.model_fields[name].default for name in PROFILES if name in cls.model_fields), None)

    @property
    def profile(self) -> str | None:
        """The broker or proxy whose times these are, perhaps a broker of the user's own; None where there is none."""
        return next((getattr(self, name) for name in PROFILES if name in type(self).model_fields), None)

    def replace(self, **changes: Any) -> Parameters:
        """The same parameters but for the changes; raises BadInput as `load` does."""
        return make(type(self), {**self.model_dump(), **changes})

    def hash(self) -> str:
        """Twelve hexadecimal digits that name these values."""
        return hashlib.blake2b(self.model_dump_json().encode(), digest_size=6).hexdigest()


class Calibrated(Frozen):
    """One parameter's value in a calibration file, and where it comes from."""

    value: Time
    provenance: str
    source: str = ""
    fit: dict[str, float] = Field(default_factory=dict)


class Calibration(Frozen):
    """A calibration file: what `simlib calibrate` writes names its architecture, and is whole."""

    architecture: str | None = None
    broker: str | None = None
    machine: dict[str, Any] = Field(default_factory=dict)
    parameters: dict[str, Calibrated]


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
        raise explained(error, "parameters") from None


def broker_of(model: type[Parameters], values: Mapping[str, Any]) -> str | None:
    """The broker that these values choose, perhaps the user's own; None where there is none. Raises BadInput as `make` does."""
    return make(model, values).profile


def _named(model: type[Parameters]) -> str:
    """A variant by what tells it from the others."""
    chosen = (name for name in (*PROFILES, "queue_type") if name in model.model_fields)
    return " with ".join(f"{name}={model.model_fields[name].default}" for name in chosen)


def calibration_files(architecture: str, broker: str | None) -> list[Path]:
    """The files that calibrate an architecture: what all share, what the one has whose times it takes, and its own (with its
    broker's profile), each before those that stand on it."""
    files = [] if architecture == "rest" else calibration_files(_stands_on(architecture), broker)
    return [*files, paths.CALIBRATION / (f"{_file(architecture, broker)}.yaml" if files else "system.yaml")]


def _stands_on(architecture: str) -> str:
    """The architecture whose times this one takes."""
    known = ARCHITECTURES.get(architecture)
    return known.times_of if known and known.times_of else "rest"


def _file(architecture: str, broker: str | None) -> str:
    return architecture.replace("/", "-") + (f".{broker}" if broker else "")


def calibrated(architecture: str, broker: str | None) -> dict[str, Calibrated]:
    """Calibrated values by parameter; empty where nothing was measured. Raises BadInput for a broken file."""
    return entries(calibration_files(architecture, broker))


def entries(files: Iterable[Path]) -> dict[str, Calibrated]:
    """What calibration files hold, the later in place of the earlier; raises BadInput for a broken file."""
    found = map(_calibration, files)
    return {name: entry for one in found if one for name, entry in one.parameters.items()}


def _calibration(file: Path) -> Calibration | None:
    if not file.exists():
        return None
    state = file.stat()
    return _read(file, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=64)
def _read(file: Path, *state: int) -> Calibration:
    """A calibration file in a state that it is in: its tables take a fifth of a second to read."""
    return read_model(Calibration, file, "a calibration")


def load(model: type[Parameters], architecture: str, overrides: Mapping[str, Any]) -> Parameters:
    """The defaults, replaced by what was calibrated, replaced by what the user sets; raises BadInput as `make` does, and where
    a calibration has other parameters than the model's times."""
    for file, names in _layers(model, architecture, overrides):
        one = _calibration(file)
        for name in one.parameters if one else ():
            if name not in names:
                raise BadInput(f"{file}: {unknown('parameter', name, names)}")
        if one and one.architecture and (missing := sorted(names - set(one.parameters))):
            raise BadInput(f"{file} must hold '{missing[0]}', but was cut short: run simlib calibrate")
    broker = broker_of(model, overrides)
    measured = {name: entry.value for name, entry in calibrated(architecture, broker).items()}
    return make(model, {**measured, **overrides})


def _layers(
    model: type[Parameters], architecture: str, overrides: Mapping[str, Any]
) -> Iterator[tuple[Path, set[str]]]:
    """Each calibration file of an architecture, with the times that it may hold: those that none before it does."""
    line = [Parameters]
    if (of := _stands_on(architecture)) != "rest":
        line.append(ARCHITECTURES[of].parameters.variant(overrides))
    if architecture != "rest":
        line.append(model.variant(overrides))
    before: set[str] = set()
    for file, one in zip(calibration_files(architecture, broker_of(model, overrides)), line, strict=True):
        yield file, times(one) - before
        before |= times(one)


def require_calibrated(architecture: str, broker: str | None) -> None:
    """Raise BadInput where a broker of the user's own has no times yet: it takes those of no other."""
    own_files = [file for file in calibration_files(architecture, broker) if file.name.endswith(f".{broker}.yaml")]
    if broker in own.names() and not any(file.exists() for file in own_files):
        standing_on = own_files[0].name.removesuffix(f".{broker}.yaml")
        raise BadInput(f"broker '{broker}' is not calibrated: run simlib calibrate {standing_on} --set broker={broker}")


def own_times(architecture: str, values: Mapping[str, Any]) -> set[str]:
    """The times that an architecture has of its own, beside those of what it stands on."""
    *_, (_, names) = _layers(ARCHITECTURES[architecture].parameters, architecture, values)
    return names


def times(model: type[Parameters]) -> set[str]:
    """The parameters that are distributions of times."""
    fields = model.model_fields.items()
    return {name for name, field in fields if any(getattr(one, "func", None) is distribution for one in field.metadata)}


__all__ = [
    "PROFILES",
    "Calibrated",
    "Calibration",
    "Count",
    "Parameters",
    "PositiveDuration",
    "Retries",
    "Time",
    "Truth",
    "broker_of",
    "calibrated",
    "calibration_files",
    "entries",
    "load",
    "make",
    "own_times",
    "require_calibrated",
    "times",
]
