"""The checker: what became of the messages of a history, simulated or live, judged from its tables.

Anomalies are results: they say what an architecture does to messages. Each counts messages, never effects:

lost         the caller was told ok, no effect of the message ever happened, and nothing accounts for it (it
was not superseded, rejected, dead-lettered, expired, compensated, and is not in flight) duplicated   an
effect of the message happened again: the same effect on the same store recovered    the caller was told that
it failed or was refused, or gave up, and yet its effect happened unexpected   an effect of a message that was
never issued, or that a message of its kind cannot have stale        a query that saw a version older than the
newest that accounting had made before it was issued reordered    an update or order whose version was written
to the shop's copy after a newer version of the SKU

Violations are impossible in any run, so each is a defect of an engine or a twin: of conservation (every
message is issued once and has one outcome, which its effects bear out) or of causality (nothing precedes its
cause).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from simlib.domain import (
    ANNOUNCED,
    COPIED,
    COPY,
    ISSUED,
    KINDS,
    ORDER,
    OUTCOMES,
    RESPONSES,
    STOCK,
    STOCK_QUERY,
    STOCK_UPDATE,
    TAKEN,
)
from simlib.errors import unknown
from simlib.history import History
from simlib.ledger import Ledger

ANOMALIES = ("lost", "duplicated", "recovered", "unexpected", "stale", "reordered")
POSSIBLE = {
    STOCK_UPDATE: {(ISSUED, STOCK), (COPIED, COPY)},
    ORDER: {(TAKEN, STOCK), (ANNOUNCED, COPY)},
    STOCK_QUERY: set(),
}
"""The effects, with their stores, that messages of the domain's kinds can have; other kinds may have any."""
SHOWN = 10
"""Messages that a printed verdict names of each finding."""


@dataclass(frozen=True)
class Violation:
    """A law that the history breaks: its name, what it says, and the ids of the messages that break it."""

    name: str
    law: str
    messages: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name}: {self.law}: broken by {_listed(self.messages)}"


@dataclass(frozen=True)
class Verdict:
    """What the checker found: the ids of the messages of each anomaly, and the laws that are broken."""

    messages: int
    found: Mapping[str, tuple[int, ...]]
    violations: tuple[Violation, ...]

    @property
    def counts(self) -> dict[str, int]:
        """How many messages each anomaly struck."""
        return {name: len(ids) for name, ids in self.found.items()}

    @property
    def ok(self) -> bool:
        """Whether conservation and causality hold; anomalies are results, and do not matter here."""
        return not self.violations

    def offenders(self, name: str) -> tuple[int, ...]:
        """The ids of the messages of an anomaly or a law, ascending; raises BadInput for an unknown name."""
        broken = {violation.name: violation.messages for violation in self.violations}
        if name in self.found:
            return self.found[name]
        if name not in LAWS:
            raise unknown("finding", name, [*self.found, *LAWS])
        return broken.get(name, ())

    def as_dict(self) -> dict[str, Any]:
        """The counts, and `violations`: how many messages break each law that is broken."""
        return {**self.counts, "violations": {v.name: len(v.messages) for v in self.violations}}

    def __str__(self) -> str:
        lines = [f"{self.messages} messages"]
        for name, ids in self.found.items():
            lines.append(f"  {name:<10} {len(ids):>7}" + (f"  {_listed(ids, counted=False)}" if ids else ""))
        lines += [f"  VIOLATED {violation}" for violation in self.violations]
        lines += ["  conservation and causality hold"] if self.ok else []
        return "\n".join(lines)


def check(history: History) -> Verdict:
    """The checker's verdict on a history."""
    ledger = Ledger(history)
    found = {name: _ids(ids) for name, ids in anomalies(ledger).items()}
    broken = {name: _ids(ids) for name, ids in _broken(ledger)}
    violations = tuple(Violation(name, LAWS[name], ids) for name, ids in broken.items() if ids)
    return Verdict(len(ledger), found, violations)


def anomalies(ledger: Ledger) -> dict[str, np.ndarray]:
    """The ids of the messages of each anomaly, by its name; ascending, each once."""
    told = ledger.response
    delivers = ledger.kind.among(*(kind for kind in KINDS if kind != STOCK_QUERY))
    unexplained = ledger.outcome.among("applied", "answered", "failed", "lost") & delivers & (ledger.happened == 0)
    lost = ledger.outcome.among("lost") | (told.among("ok") & unexplained)
    denied = told.among("refused", "failed", "timed_out")
    found = {
        "lost": ledger.ids[lost],
        "duplicated": ledger.ids[ledger.repeated > 0],
        "recovered": ledger.ids[denied & (ledger.happened > 0)],
        "unexpected": ledger.effect_message[_impossible(ledger)],
        "stale": ledger.ids[ledger.reads[ledger.stale]],
        "reordered": ledger.effect_message[_late(ledger)],
    }
    return {name: np.unique(ids) for name, ids in found.items()}


def _impossible(ledger: Ledger) -> np.ndarray:
    """Effects of messages never issued, and effects that a message of its kind cannot have."""
    bad = ledger.effect_row < 0
    for kind, possible in POSSIBLE.items():
        allowed = np.zeros(bad.size, bool)
        for effect, store in possible:
            allowed |= ledger.effect.among(effect) & ledger.store.among(store)
        mine = np.append(ledger.kind.among(kind), False)[ledger.effect_row]
        bad |= mine & ~allowed
    return bad


def _late(ledger: Ledger) -> np.ndarray:
    """Rows of the effects that wrote to the copy a version older than one it had been given before."""
    rows = np.flatnonzero(ledger.store.among(COPY))
    rows = rows[np.lexsort((ledger.effect_time[rows], ledger.effect_sku[rows]))]
    sku = ledger.effect_sku[rows].astype(np.int64)
    version = ledger.effect_version[rows]
    newest = np.maximum.accumulate((sku << np.int64(32)) + version) & 0xFFFFFFFF
    return rows[version < newest]


LAWS = {
    "ids": "the messages are numbered from 0 on, each issued once",
    "outcome": "each message has one known response and one outcome, which response and effects bear out",
    "counts": "a message's effects and duplicates are as many as its rows of effects say",
    "applied": "a message is applied when its first effect happens",
    "response_time": "no message is answered before it is issued",
    "effect_time": "no effect happens before its message is issued",
    "effect_order": "effects stand in order of time",
    "versions": "the versions of a SKU at accounting count up by one, and a message has one that it made",
    "units": "accounting never has fewer than no units",
    "copied": "the shop's copy gets no version before accounting has made it",
    "read": "a query sees no version before accounting has made it",
}
"""The laws of conservation and causality, by name."""


def _broken(ledger: Ledger) -> Iterator[tuple[str, np.ndarray]]:
    """The name of each law with the ids of the messages that break it (none where it holds)."""
    ids, row = ledger.ids, ledger.effect_row
    yield "ids", ids[(ids < 0) | (ids >= ids.size) | (np.diff(ids, prepend=-1) == 0)]
    yield "outcome", ids[_contradictory(ledger)]
    yield "counts", ids[(ledger.effects != ledger.happened) | (ledger.duplicates != ledger.repeated)]
    first = np.full(ids.size, np.inf)
    np.minimum.at(first, row[ledger.counted], ledger.effect_time[ledger.counted])
    yield "applied", ids[np.where(np.isnan(ledger.applied), np.inf, ledger.applied) != first]
    yield "response_time", ids[ledger.responded < ledger.issued]
    yield "effect_time", ledger.effect_message[~(ledger.effect_time >= ledger.effect_issued)]
    yield "effect_order", ledger.effect_message[1:][np.diff(ledger.effect_time) < 0]
    yield "versions", _miscounted(ledger)
    stock = ledger.stock
    overdrawn = stock.effect[stock.units < 0] if stock.known else np.empty(0, int)
    yield "units", ledger.effect_message[overdrawn]
    copied = np.flatnonzero(ledger.store.among(COPY) & (ledger.effect_version > 0))
    sku, version, time = (column[copied] for column in (ledger.effect_sku, ledger.effect_version, ledger.effect_time))
    yield "copied", ledger.effect_message[copied[_foreseen(ledger, sku, version, time)]]
    reads = ledger.reads
    sku, version, time = (column[reads] for column in (ledger.sku, ledger.version, ledger.responded))
    yield "read", ids[reads[_foreseen(ledger, sku, version, time)]]


def _foreseen(ledger: Ledger, sku: np.ndarray, version: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Whether each version was there before accounting made it, or never was made.

    A live side stamps its commit when it hears of it, when others may have seen it already: there the version
    is foreseen only if it was there before its message was issued.
    """
    maker = ledger.stock.maker(sku, version)
    stamps = ledger.effect_issued if ledger.meta.get("engine") == "live" else ledger.effect_time
    return (version > 0) & (np.append(stamps, np.inf)[maker] > time)


def _contradictory(ledger: Ledger) -> np.ndarray:
    """Messages whose response or outcome is no known one, or is contradicted by the effects."""
    outcome, ok = ledger.outcome, ledger.response.among("ok")
    unknown_word = ~outcome.among(*OUTCOMES) | ~ledger.response.among(*RESPONSES)
    unapplied = outcome.among("applied") & (ledger.happened == 0)
    denied = ~outcome.among("applied", "compensated") & (ledger.happened > 0)
    misnamed = (outcome.among("lost") & ~ok) | (outcome.among("failed") & ok)
    return unknown_word | unapplied | denied | misnamed


def _miscounted(ledger: Ledger) -> np.ndarray:
    """Messages that made another version than the next at accounting, or have one that they did not make."""
    stock = ledger.stock
    expected = np.arange(stock.sku.size) - np.searchsorted(stock.sku, stock.sku) + 1
    skipping = ledger.effect_message[stock.effect[stock.version != expected]]
    row = ledger.effect_row[stock.effect]
    issued = row >= 0
    row, version = row[issued], stock.version[issued]
    claimed = np.zeros(len(ledger), bool)
    claimed[row[ledger.version[row] == version]] = True
    made = np.zeros(len(ledger), bool)
    made[row] = True
    return np.append(skipping, ledger.ids[made & ~claimed])


def _ids(ids: np.ndarray) -> tuple[int, ...]:
    return tuple(np.unique(ids).tolist())


def _listed(ids: tuple[int, ...], counted: bool = True) -> str:
    """The ids as text: the first few, and how many there are in all."""
    shown = ", ".join(str(i) for i in ids[:SHOWN]) + (", …" if len(ids) > SHOWN else "")
    return f"{len(ids)} message{'s' if len(ids) != 1 else ''} ({shown})" if counted else shown
