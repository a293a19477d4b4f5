"""The checker: what became of the messages of a history, simulated or live, judged from its tables.

Anomalies are results: they say what an architecture does to messages. Each counts messages, never effects. Violations
are impossible in any run, so each is a defect of an engine or a twin: of conservation (every message is issued once and
has one outcome, which its effects bear out) or of causality (nothing precedes its cause).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from simlib.domain import (
    ANNOUNCED,
    COPIED,
    COPY,
    COUNTED,
    DONE_BY,
    ISSUED,
    KINDS,
    ORDER,
    OUTCOMES,
    RESPONSES,
    RESTOCKED,
    STOCK,
    STOCK_QUERY,
    STOCK_UPDATE,
    TAKEN,
    WINDOWS,
    undone,
)
from simlib.errors import unknown
from simlib.history import History
from simlib.ledger import Ledger, Words

ANOMALIES = {
    "lost": "told ok, but no effect ever happened, and nothing accounts for it (superseded, rejected, parked, expired …)",
    "duplicated": "the same effect happened again on the same store",
    "recovered": "the caller gave up or never heard, and yet the effect happened",
    "denied": "the caller was told refused or failed, and yet the effect happened",
    "unexpected": "an effect of a message never issued, of another kind, SKU or number of units than the message's, or undone "
    "more often than it was done",
    "half_done": "accounting changed its stock, and the shop's copy never got that version or a newer one",
    "half_finished": "an order of which some steps stand, neither undone nor followed by the others",
    "miscounted": "an order that windows counted more than once; or never, though they count and it was answered ok",
    "reordered": "written to the shop's copy after a newer version of the SKU",
    "stale": "a query that saw an older version than accounting had made before it was issued",
    "unseen_write": "a query that did not see its customer's own last order, answered ok before it was issued",
    "oversold": "an order answered ok that was rejected, or undone",
    "undersold": "an order refused, and not undone, though accounting had the units all the time from issue to response",
}
"""What can befall a message, by name."""
POSSIBLE = {
    STOCK_UPDATE: {(ISSUED, STOCK), (COPIED, COPY)},
    ORDER: {
        *((ANNOUNCED, COPY), (RESTOCKED, COPY), (COUNTED, WINDOWS)),
        *DONE_BY.values(),
        *((undone(e), s) for e, s in DONE_BY.values()),
    },
    STOCK_QUERY: set(),
}
"""The effects, with their stores, that messages of the domain's kinds can have; other kinds may have any."""
SHOWN = 10
"""Messages that a printed verdict names of each finding."""


@dataclass(frozen=True)
class Violation:
    """A law that the history breaks: its name, what it says, and what breaks it: ids of messages, or names of parts."""

    name: str
    law: str
    offenders: tuple[int | str, ...]

    def __str__(self) -> str:
        number = len(self.offenders)
        what = ("part" if self.name == "parts" else "message") + ("s" if number != 1 else "")
        return f"{self.name}: {self.law}: broken by {number} {what} ({listed(self.offenders)})"


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

    def offenders(self, name: str) -> tuple[int | str, ...]:
        """The ids of the messages of an anomaly or a law, ascending (of the law `parts` the names of parts); raises
        BadInput for an unknown name."""
        broken = {violation.name: violation.offenders for violation in self.violations}
        if name in self.found:
            return self.found[name]
        if name not in LAWS:
            raise unknown("finding", name, [*self.found, *LAWS])
        return broken.get(name, ())

    def as_dict(self) -> dict[str, Any]:
        """The counts, and `violations`: how many messages break each law that is broken."""
        return {**self.counts, "violations": {v.name: len(v.offenders) for v in self.violations}}

    def __str__(self) -> str:
        lines = [f"{self.messages} messages"]
        for name, ids in self.found.items():
            lines.append(f"  {name:<12} {len(ids):>7}" + (f"  {ANOMALIES[name]}: {listed(ids)}" if ids else ""))
        lines += [f"  VIOLATED {violation}" for violation in self.violations]
        lines += ["  conservation and causality hold"] if self.ok else []
        return "\n".join(lines)


def check(history: History) -> Verdict:
    """The checker's verdict on a history."""
    ledger = Ledger(history)
    found = {name: _ids(ids) for name, ids in anomalies(ledger).items()}
    broken: dict[str, tuple[int | str, ...]] = {name: _ids(ids) for name, ids in _broken(ledger)}
    broken["parts"] = _overfull(ledger.parts)
    violations = tuple(Violation(name, LAWS[name], offenders) for name, offenders in broken.items() if offenders)
    return Verdict(len(ledger), found, violations)


def anomalies(ledger: Ledger) -> dict[str, np.ndarray]:
    """The ids of the messages of each anomaly, by its name; ascending, each once."""
    told = ledger.response
    delivers = ledger.kind.among(*(kind for kind in KINDS if kind != STOCK_QUERY))
    unexplained = ledger.outcome.among("applied", "answered", "failed", "lost") & delivers & (ledger.happened == 0)
    lost = ledger.outcome.among("lost") | (told.among("ok") & unexplained)
    happened = (ledger.happened > 0) & ~ledger.outcome.among("compensated")
    unheard = told.among("timed_out") | (told.among("none") & ledger.kind.among(*KINDS))
    pending = ledger.ids[ledger.outcome.among("in_flight")]
    found = {
        "lost": ledger.ids[lost],
        "duplicated": ledger.ids[ledger.repeated > 0],
        "recovered": ledger.ids[unheard & happened],
        "denied": ledger.ids[told.among("refused", "failed") & happened],
        "unexpected": ledger.effect_message[_impossible(ledger)],
        "half_done": np.setdiff1d(ledger.effect_message[ledger.unfinished], pending),
        "half_finished": ledger.ids[ledger.half_finished],
        "miscounted": ledger.ids[ledger.miscounted],
        "reordered": ledger.effect_message[_late(ledger)],
        "stale": ledger.ids[ledger.reads[ledger.stale]],
        "unseen_write": ledger.ids[ledger.reads[ledger.own_write_unseen]],
        "oversold": ledger.ids[ledger.oversold],
        "undersold": ledger.ids[ledger.undersold],
    }
    return {name: np.unique(ids) for name, ids in found.items()}


def _impossible(ledger: Ledger) -> np.ndarray:
    """Effects of messages never issued, effects that a message of its kind, SKU and quantity cannot have, and those of
    messages of which something was undone that was not done."""
    row = ledger.effect_row
    bad = (row < 0) | (np.append(ledger.sku, -1)[row] != ledger.effect_sku)
    units = np.append(ledger.quantity, 0)[row]
    bad |= ledger.effect.among(ISSUED) & (ledger.effect_change != units)
    bad |= ledger.effect.among(TAKEN) & (ledger.effect_change != -units)
    bad |= ledger.effect.among(undone(TAKEN)) & (ledger.effect_change != units)
    _, left = ledger.undone
    bad |= np.append((left < 0).any(axis=0), False)[row]
    for kind, possible in POSSIBLE.items():
        allowed = np.zeros(bad.size, bool)
        for effect, store in possible:
            allowed |= ledger.effect.among(effect) & ledger.store.among(store)
        mine = np.append(ledger.kind.among(kind), False)[row]
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
    "response_time": "a message that is answered has the time of its answer, no earlier than its issue",
    "effect_time": "no effect happens before its message is issued",
    "effect_order": "effects stand in order of time",
    "versions": "the versions of a SKU at accounting count up by one, and a message has one that it made",
    "units": "accounting never has fewer than no units",
    "copied": "the shop's copy gets no version before accounting has made it",
    "read": "a query sees no version before accounting has made it, and at accounting the units that this version left",
    "parts": "no part has less than nothing, more units in service than it has, or more waiting than its most",
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
    answered = ~ledger.response.among("none")
    yield "response_time", ids[np.where(answered, ~(ledger.responded >= ledger.issued), ~np.isnan(ledger.responded))]
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
    misread = ledger.read_from.among(STOCK)[reads] & (ledger.answer[reads] != stock.left(sku, version)) & stock.known
    yield "read", ids[reads[_foreseen(ledger, sku, version, time) | misread]]


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
    back, left = ledger.undone
    denied |= outcome.among("compensated") & ~(back & (left == 0).all(axis=0))
    misnamed = (outcome.among("lost") & ~ok) | (outcome.among("failed") & ok)
    of_the_domain, query = ledger.kind.among(*KINDS), ledger.kind.among(STOCK_QUERY) & ok & (ledger.version >= 0)
    unanswered = outcome.among("answered") & of_the_domain & ~query
    return unknown_word | unapplied | denied | misnamed | unanswered


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


def _overfull(parts: pa.Table) -> tuple[str, ...]:
    """The names of the parts whose areas and maxima cannot be, in the order of the alphabet."""
    columns = ("start", "end", "capacity", "busy", "waiting", "unacknowledged", "waiting_max", "completed")
    start, end, capacity, *levels = (parts[name].to_numpy() for name in columns)
    busy, waiting, _, most, _ = levels
    time = (end - start) * (1 + 1e-9)
    full = (busy > capacity * time) & np.array(Words(parts["kind"]).among("pool"))
    bad = ~(end > start) | full | (waiting > most * time) | np.any([~(level >= 0) for level in levels], axis=0)
    return tuple(sorted(Words(parts["name"]).used(np.flatnonzero(bad))))


def story(history: History, message: int) -> str:
    """What is known of a message, in one line: what it was, what its caller was told, what became of it, its effects."""
    row = history.messages.filter(pc.equal(history.messages["message"], message)).to_pylist()
    words = [f"{message}: never issued"]
    for one in row:
        said = f"{one['response']} at {one['responded']:.3f} s" if one["response"] != "none" else "never answered"
        version = f", version {one['version']}" if one["version"] >= 0 else ""
        words = [f"{message}: {one['kind']} of SKU {one['sku']}{version}, issued at {one['issued']:.3f} s, {said}"]
        words.append(f"outcome {one['outcome']}")
    for one in history.effects.filter(pc.equal(history.effects["message"], message)).to_pylist():
        words.append(f"{one['effect']} version {one['version']} at {one['time']:.3f} s")
    return "; ".join(words)


def listed(offenders: Sequence[object]) -> str:
    """The first few of them."""
    return ", ".join(str(one) for one in offenders[:SHOWN]) + (", …" if len(offenders) > SHOWN else "")


def _ids(ids: np.ndarray) -> tuple[int, ...]:
    return tuple(np.unique(ids).tolist())
