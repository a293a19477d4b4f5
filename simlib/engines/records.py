"""What an engine writes while it runs, and how it becomes a history: message columns, effects, areas by bins of time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from simlib.domain import OUTCOMES, RESPONSES, counts, undone
from simlib.errors import RunFailed
from simlib.history import SCHEMAS, History, coded, to_table
from simlib.ledger import Words
from simlib.scenario import Arrivals

BINS = 50
"""Bins between the start and the last arrival; a run that goes on adds bins, and doubles their width at four times as many."""
APPLIED, ANSWERED, SUPERSEDED, REJECTED, DEAD_LETTERED, EXPIRED = 1, 2, 4, 8, 16, 32
"""What was noted of a message: bits of `Records.noted`."""
NOTED = 64
"""What can be noted of a message, and more."""
MOST_COUNTED = np.iinfo(np.int16).max
"""What is counted of one message fits a history up to this."""


class Meter:
    """Areas of busy, waiting and unacknowledged under their steps, in equal bins of time."""

    def __init__(self, name: str, kind: str, capacity: float, width: float) -> None:
        self.name, self.kind, self.capacity, self.width = name, kind, capacity, width
        self.busy = self.waiting = self.unacknowledged = 0
        self.since, self.edge = 0.0, width
        self.areas: list[list[float]] = [[0.0, 0.0, 0.0]]
        self.most, self.completed = [0], [0]

    def change(self, now: float, busy: int = 0, waiting: int = 0, unacknowledged: int = 0, completed: int = 0) -> None:
        """Levels go up or down at `now`, and something is completed."""
        if now > self.edge:
            self.advance(now)
        elif now > self.since:
            self._add(now - self.since)
            self.since = now
        self.busy += busy
        self.waiting += waiting
        self.unacknowledged += unacknowledged
        self.completed[-1] += completed

    def advance(self, now: float) -> None:
        """Add the areas up to `now`; what happens at the edge of two bins belongs to the first."""
        while now > self.edge:
            self._add(self.edge - self.since)
            self.since, self.edge = self.edge, (len(self.areas) + 1) * self.width
            self.areas.append([0.0, 0.0, 0.0])
            self.most.append(0)
            self.completed.append(0)
            if len(self.areas) == 4 * BINS:
                self._coarsen()
        if now > self.since:
            self._add(now - self.since)
            self.since = now

    def _coarsen(self) -> None:
        """Bins of twice the width, half as many."""
        self.areas = [
            [a + b for a, b in zip(x, y, strict=True)] for x, y in zip(self.areas[::2], self.areas[1::2], strict=True)
        ]
        self.most = [max(pair) for pair in zip(self.most[::2], self.most[1::2], strict=True)]
        self.completed = [a + b for a, b in zip(self.completed[::2], self.completed[1::2], strict=True)]
        self.width *= 2
        self.edge = len(self.areas) * self.width

    def _add(self, time: float) -> None:
        """The levels have lasted so long; what lasts no time, within an instant, is never seen."""
        area = self.areas[-1]
        if self.busy:
            area[0] += self.busy * time
        if self.waiting:
            area[1] += self.waiting * time
            if self.waiting > self.most[-1]:
                self.most[-1] = self.waiting
        if self.unacknowledged:
            area[2] += self.unacknowledged * time


class Records:
    """Columns of the messages and rows of the effects and faults, as a run writes them."""

    def __init__(self, arrivals: Arrivals, kinds: list[str], width: float) -> None:
        n = len(arrivals)
        self.arrivals, self.kinds, self.width = arrivals, kinds, width
        self.issued: list[float] = arrivals.issued.tolist()
        self.responded, self.applied = [math.nan] * n, [math.nan] * n
        self.response, self.noted, self.alive = [0] * n, [0] * n, [0] * n
        self.version, self.answer, self.read_from = [-1] * n, [-1] * n, [""] * n
        self.attempts, self.deliveries, self.effects, self.duplicates, self.copies = ([0] * n for _ in range(5))
        self.marks: dict[str, list[float]] = {}
        self.done: set[tuple[int, str, str]] = set()
        self.effect_rows: list[tuple[int, str, str, int, int, int, float, int]] = []
        self.fault_rows: list[tuple[str, str, float, float, int]] = []
        self.attempt_rows: list[tuple[int, str, int, float, float, str]] = []
        self.meters: list[Meter] = []

    def meter(self, name: str, kind: str, capacity: float) -> Meter:
        """A new meter of a noun."""
        meter = Meter(name, kind, capacity, self.width)
        self.meters.append(meter)
        return meter

    def respond(self, message: int, now: float, response: int) -> None:
        """Note what the caller believes, at the first response."""
        if math.isnan(self.responded[message]):
            self.responded[message], self.response[message] = now, response

    def effect(
        self, message: int, effect: str, store: str, sku: int, version: int, change: int, now: float, delivery: int
    ) -> None:
        """Note an effect; one that was there before is a duplicate."""
        self.effect_rows.append((message, effect, store, sku, version, change, now, delivery))
        if not counts(effect):
            return
        self.effects[message] += 1
        if (message, effect, store) in self.done:
            self.duplicates[message] += 1
        self.done.add((message, effect, store))
        self.noted[message] |= APPLIED
        if math.isnan(self.applied[message]):
            self.applied[message] = now

    def history(self, now: float, meta: Mapping[str, Any], undoable: Sequence[tuple[str, str]] = ()) -> History:
        """The five tables, at the end of a run; `undoable` are the effects, with their stores, that can be undone. Raises RunFailed
        where more was counted of a message than fits."""
        must_fit(
            max((*self.attempts, *self.deliveries, *self.effects, *(row[-1] for row in self.effect_rows)), default=0)
        )
        for meter in self.meters:
            meter.advance(now)
        columns = {
            name: getattr(self, name)
            for name in (
                "version", "answer", "read_from", "issued", "responded", "applied", "attempts", "deliveries", "effects",
                "duplicates",
            )
        }  # fmt: skip
        columns["message"] = np.arange(len(self.arrivals), dtype=np.int32)
        columns["response"] = np.array(self.response, np.int8)
        columns["outcome"] = OUTCOME[columns["response"], self.noted, (np.array(self.alive) > 0).view(np.int8)]
        return assemble(
            self.arrivals,
            self.kinds,
            columns | {f"mark.{name}": values for name, values in self.marks.items()},
            _rows("effects", self.effect_rows),
            undoable,
            self._areas().table(now),
            _rows("faults", self.fault_rows),
            _rows("attempts", self.attempt_rows),
            meta,
        )

    def _areas(self) -> Areas:
        meters, bins = self.meters, len(self.meters[0].most) if self.meters else 0
        areas = np.array([m.areas for m in meters]).reshape(len(meters), bins, 3)
        counts = (
            np.array([getattr(m, name) for m in meters]).reshape(len(meters), bins) for name in ("most", "completed")
        )
        width = meters[0].width if meters else self.width
        return Areas([(m.name, m.kind, m.capacity) for m in meters], width, *np.moveaxis(areas, 2, 0), *counts)


def _outcomes() -> np.ndarray:
    response, noted, alive = np.indices((len(RESPONSES), NOTED, 2))
    known = [
        (APPLIED, "applied"), (ANSWERED, "answered"), (SUPERSEDED, "superseded"), (REJECTED, "rejected"),
        (DEAD_LETTERED, "dead_lettered"), (EXPIRED, "expired"),
    ]  # fmt: skip
    conditions = [*((noted & bit > 0, name) for bit, name in known), (alive > 0, "in_flight")]
    conditions.append((response == RESPONSES.index("ok"), "lost"))
    choices = [OUTCOMES.index(name) for _, name in conditions]
    return np.select([where for where, _ in conditions], choices, OUTCOMES.index("failed")).astype(np.int8)


OUTCOME = _outcomes()
"""What is so at the end of a message that was not compensated, as its place in `domain.OUTCOMES`: by the response, what was
noted, and whether something of it is alive; shape (responses, `NOTED`, 2)."""


@dataclass(frozen=True)
class Areas:
    """The meters at the end, which all have the same bins: name, kind and capacity of each; the areas of busy, waiting and
    unacknowledged, maxima and completions, each of shape (meters, bins)."""

    nouns: Sequence[tuple[str, str, float]]
    width: float
    busy: np.ndarray
    waiting: np.ndarray
    unacknowledged: np.ndarray
    most: np.ndarray
    completed: np.ndarray

    def table(self, now: float) -> pa.Table:
        """A row each meter and bin that began before `now`."""
        edges = np.arange(self.most.shape[1] + 1) * self.width
        bins = int(np.searchsorted(edges[:-1], now))
        names, kinds, capacities = zip(*self.nouns, strict=True) if self.nouns else ((), (), ())
        which = np.repeat(np.arange(len(names)), bins)
        levels = self.busy, self.waiting, self.unacknowledged, self.most, self.completed
        columns = [
            *(pa.array(words, pa.string()).take(pa.array(which)) for words in (names, kinds)),
            np.array(capacities, float)[which],
            *(np.tile(ends, len(names)) for ends in (edges[:bins], np.minimum(edges[1 : bins + 1], now))),
            *(level[:, :bins].ravel() for level in levels),
        ]
        return to_table("parts", dict(zip(SCHEMAS["parts"].names, columns, strict=True)))


def assemble(
    arrivals: Arrivals,
    kinds: Sequence[str],
    columns: Mapping[str, Any],
    effects: pa.Table,
    undoable: Sequence[tuple[str, str]],
    parts: pa.Table,
    faults: pa.Table,
    attempts: pa.Table,
    meta: Mapping[str, Any],
) -> History:
    """A history from what an engine recorded: in `columns` the messages but for what came, responses and outcomes by their numbers;
    `undoable` names the effects, with their stores, that can be undone."""
    if undoable:
        columns["outcome"][_compensated(effects, undoable, len(arrivals))] = OUTCOMES.index("compensated")
    came = {name: getattr(arrivals, name) for name in ("sku", "session", "quantity")}
    coded_columns = {
        "kind": coded(arrivals.kind, kinds),
        "response": coded(columns["response"], RESPONSES),
        "outcome": coded(columns["outcome"], OUTCOMES),
    }
    messages = to_table("messages", {**columns, **came, **coded_columns})
    return History(messages, effects, parts, faults, attempts, dict(meta))


def _compensated(effects: pa.Table, undoable: Sequence[tuple[str, str]], count: int) -> np.ndarray:
    """Whether each message had something undone, and nothing of what can be undone is left; shape (count,)."""
    message, effect, store = effects["message"].to_numpy(), Words(effects["effect"]), Words(effects["store"])
    back, left = np.zeros((2, count), bool)
    for name, where in undoable:
        there = store.among(where)
        done, taken = (np.bincount(message[there & effect.among(e)], minlength=count) for e in (name, undone(name)))
        back |= taken > 0
        left |= done != taken
    return back & ~left


def must_fit(most: int) -> None:
    """Raise RunFailed where so much was counted of one message that it does not fit a history."""
    if most > MOST_COUNTED:
        raise RunFailed(
            f"one message was tried, handed out or applied {most} times, a history counts up to {MOST_COUNTED}: limit its"
            " retries, deliveries or repeats"
        )


def width_of(issued: np.ndarray) -> float:
    """The width of the bins, in seconds, of a run whose messages are issued at these times."""
    span = float(issued[-1]) if issued.size and math.isfinite(issued[-1]) else 1.0
    return max(span / BINS, 1e-9)


def _rows(name: str, rows: list[Any]) -> pa.Table:
    names = SCHEMAS[name].names
    return to_table(name, {column: [row[i] for row in rows] for i, column in enumerate(names)})
