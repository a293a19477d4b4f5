"""From the stamps and CPU times of live runs to samples of each parameter: what a stage of the twin is in the model.

Processor times come from runs of one kind of message with a backlog always there (a busy event loop), by the utilisation
law: CPU seconds of a side over messages, less the handler's work (Denning & Buzen, ACM Computing Surveys 10 (1978)).
Waiting times come from runs of one kind one by one, of messages that met an idle system: a stamp less the processor
times inside it. Where a stamp holds the same time twice (there and back), each is taken as half.

A module for each architecture that has times of its own; its `estimates` makes them from its runs of one kind of message. Where
they do not tell two times apart, or hold none of one, `CONTRASTS` names runs of updates under other parameters, which do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any, Literal

import numpy as np
import pandas as pd

from simlib import architectures
from simlib.calibration.fit import FEWEST
from simlib.errors import BadInput
from simlib.history import History

SHORTEST = 1e-6
"""What a waiting time is taken for where its stamp is shorter than the processor times inside it, s."""

CPU = "processor time of runs with bursts, by the utilisation law"
WAIT = "stamps of messages that met an idle system"


@dataclass(frozen=True)
class Estimate:
    """What a time is taken from: samples to fit, s, shape (n,), or one time, s."""

    of: np.ndarray | float
    source: str
    measured: bool = True
    """Whether it was measured here, or is assumed."""
    elsewhere: bool = False
    """Whether it was measured elsewhere."""

    @property
    def provenance(self) -> str:
        """What a calibration file calls it."""
        return "measured elsewhere" if self.elsewhere else "measured" if self.measured else "assumed"


@dataclass(frozen=True)
class Contrast:
    """A run of updates alone, one after the other (`idle`) or in bursts (`busy`), under other parameters."""

    how: Literal["idle", "busy"]
    changes: dict[str, Any]


Estimates = dict[str, Estimate]
Runs = Mapping[str, History]
"""Runs of one kind of message alone, by kind; and contrasts, by name."""


def estimates(architecture: str, idle: Runs, busy: Runs, known: Mapping[str, float]) -> Estimates:
    """The times of an architecture's own, by parameter: from its runs one by one and in bursts, and the means of the times
    that others were calibrated for, s."""
    found: Estimates = _module(architecture).estimates(idle, busy, known)
    return found


def contrasts(architecture: str, profile: str | None) -> dict[str, Contrast]:
    """An architecture's contrasts, by name: those that change what it has on this broker or proxy."""
    known = architectures.get(architecture)
    variant = next((one for one in known.variants if one.stands_on() == profile), known.parameters)
    named: dict[str, Contrast] = getattr(_module(architecture), "CONTRASTS", {}) if has_own(architecture) else {}
    return {name: one for name, one in named.items() if one.changes.keys() <= variant.model_fields.keys()}


def has_own(architecture: str) -> bool:
    """Whether an architecture has times of its own that are fitted."""
    return find_spec(_path(architecture)) is not None


def _module(architecture: str) -> ModuleType:
    return import_module(_path(architecture))


def _path(architecture: str) -> str:
    return f"{__name__}.{architecture.replace('/', '_')}"


def busy_cpu(history: History, side: str) -> float:
    """CPU seconds of a side for a message, less the handler's work there."""
    stamps = history.attempts.to_pandas()
    handled = stamps[stamps["block"] == f"{side}.handle"]
    work = float((handled["end"] - handled["start"]).sum())
    return (float(history.meta["cpu_seconds"][side]) - work) / history.messages.num_rows


def walks(history: History) -> pd.DataFrame:
    """A row each message that met an idle system and needed one attempt; columns (start | end, block), s.

    Idle is a system in which nothing stamped was going on when the message was issued. Raises BadInput where too few met one.
    """
    stamps = history.attempts.to_pandas()
    wide = stamps[stamps["attempt"] == 1].pivot_table(
        index="message", columns="block", values=["start", "end"], aggfunc="first"
    )
    issued = history.messages["issued"].to_numpy()[wide.index.to_numpy()]
    over = wide["end"].max(axis=1).cummax().shift(1, fill_value=-1.0).to_numpy()
    repeated = set(stamps.loc[stamps["attempt"] > 1, "message"])
    alone = wide[(issued > over) & ~wide.index.isin(repeated)]
    if len(alone) < FEWEST:
        raise BadInput(
            f"{len(alone)} of {len(wide)} messages met an idle system, a fit needs {FEWEST}: measure them further apart"
        )
    return alone


def start(walks: pd.DataFrame, block: str) -> np.ndarray:
    return walks["start"][block].to_numpy()


def end(walks: pd.DataFrame, block: str) -> np.ndarray:
    return walks["end"][block].to_numpy()


def length(walks: pd.DataFrame, block: str) -> np.ndarray:
    return end(walks, block) - start(walks, block)


def times(values: np.ndarray) -> np.ndarray:
    return np.maximum(values[~np.isnan(values)], SHORTEST)
