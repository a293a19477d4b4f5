"""A history as arrays, and what its effects add up to: accounting's versions and units at any moment."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from simlib.domain import (
    COPY,
    COUNTED,
    DONE_BY,
    ORDER,
    PROCESSES,
    STOCK,
    STOCK_QUERY,
    WINDOWS,
    counts,
    undoes,
    undone,
)
from simlib.history import History

_SHIFT = np.int64(32)


class Words:
    """A column of words, as codes into the words that there are."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        if not pa.types.is_dictionary(column.type):
            column = column.dictionary_encode()
        encoded = column.unify_dictionaries().combine_chunks()
        self.codes: np.ndarray = encoded.indices.to_numpy()
        self.names: list[str] = encoded.dictionary.to_pylist()

    def among(self, *names: str) -> np.ndarray:
        """Whether each row is one of the names, shape (rows,)."""
        found = np.zeros(self.codes.size, bool)
        for code, name in enumerate(self.names):
            if name in names:
                found |= self.codes == code
        return found

    def used(self, rows: np.ndarray | slice = slice(None)) -> list[str]:
        """The words that these rows have, in the order of their codes."""
        counts = np.bincount(self.codes[rows], minlength=len(self.names))
        return [name for name, count in zip(self.names, counts.tolist(), strict=True) if count]


class Stock:
    """Accounting's stock through time, replayed from its effects: each SKU's versions and the units left.

    Built from columns with a row each effect, and the rows that are accounting's. A SKU's stock before its
    first effect is version 0. The attributes have a row each such effect, in the order of SKU and time: `effect`
    (its row), `sku`, `version`, `time`, `units` (what it left; as if from 0 where the start is not known).
    """

    def __init__(
        self,
        rows: np.ndarray,
        sku: np.ndarray,
        version: np.ndarray,
        change: np.ndarray,
        time: np.ndarray,
        initial: Mapping[str, Any] | None,
    ) -> None:
        self.effect = rows[np.lexsort((time[rows], sku[rows]))]
        self.sku, self.version, self.time = sku[self.effect], version[self.effect], time[self.effect]
        self._initial = initial
        self._clock = np.sort(self.time)
        self._moments = self._key(self.sku, np.searchsorted(self._clock, self.time))
        total = np.cumsum(change[self.effect], dtype=np.int64)
        first = np.searchsorted(self.sku, self.sku)
        self.units = total - np.where(first > 0, total[first - 1], 0) + self.initial(self.sku)
        made = self._key(self.sku, self.version)
        by_version = np.argsort(made, kind="stable")
        self._made, self._made_at = made[by_version], self.time[by_version]
        self._maker, self._left = self.effect[by_version], self.units[by_version]

    @property
    def known(self) -> bool:
        """Whether it is known how many units there were to start with."""
        return self._initial is not None

    def initial(self, sku: np.ndarray) -> np.ndarray:
        """Units of each SKU at the start, 0 where that is not known."""
        if self._initial is None:
            return np.zeros(sku.size, np.int64)
        units, sale = self._initial["units"], self._initial.get("sale")
        return np.where((sku == 0) & (sale is not None), sale or 0, units).astype(np.int64)

    def newest(self, sku: np.ndarray, time: np.ndarray) -> np.ndarray:
        """The newest version of each SKU made before each time."""
        place = self._place(sku, time, "left")
        some = place > np.searchsorted(self.sku, sku)
        return np.where(some, self._at(self.version, place - 1), 0)

    def maker(self, sku: np.ndarray, version: np.ndarray) -> np.ndarray:
        """The row of the effect that made each version, -1 where none did."""
        place, there = self._version(sku, version)
        return np.where(there, self._at(self._maker, place), -1)

    def left(self, sku: np.ndarray, version: np.ndarray) -> np.ndarray:
        """The units that each version left of its SKU, those at the start where nothing made it."""
        place, there = self._version(sku, version)
        return np.where(there, self._at(self._left, place), self.initial(sku))

    def outdated(self, sku: np.ndarray, version: np.ndarray) -> np.ndarray:
        """When a newer version than this one was first made, inf where none was."""
        place = np.searchsorted(self._made, self._key(sku, version), side="right")
        there = (self._at(self._made, place) >> _SHIFT == sku) & (place < self._made.size)
        return np.where(there, self._at(self._made_at, place), np.inf)

    def least(self, sku: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """The fewest units that there were of each SKU at any moment from `start` to `end`."""
        first, last = self._place(sku, start, "left"), self._place(sku, end, "right")
        some = first > np.searchsorted(self.sku, sku)
        before = np.where(some, self._at(self.units, first - 1), self.initial(sku))
        changed = np.flatnonzero(last > first)
        changed = changed[np.argsort(first[changed])]
        if changed.size:
            spans = np.column_stack((first[changed], last[changed])).ravel()
            within = np.minimum.reduceat(np.append(self.units, 0), spans)[::2]
            before[changed] = np.minimum(before[changed], within)
        return before

    def _version(self, sku: np.ndarray, version: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The places of these versions in the order of SKU and version, and whether each was made."""
        key = self._key(sku, version)
        place = np.searchsorted(self._made, key)
        return place, (self._at(self._made, place) == key) & (place < self._made.size)

    def _place(self, sku: np.ndarray, time: np.ndarray, side: Literal["left", "right"]) -> np.ndarray:
        """How many effects come before these SKUs' at these times, in the order of SKU and time."""
        return np.searchsorted(self._moments, self._key(sku, np.searchsorted(self._clock, time, side=side)))

    @staticmethod
    def _key(high: np.ndarray, low: np.ndarray) -> np.ndarray:
        return (high.astype(np.int64) << _SHIFT) + low

    @staticmethod
    def _at(values: np.ndarray, place: np.ndarray) -> np.ndarray:
        """The values at places, where a place outside gives some value that the caller masks."""
        if not values.size:
            return np.zeros(place.shape, values.dtype)
        return values[np.clip(place, 0, values.size - 1)]


class Ledger:
    """The messages of a history in order of their ids, its effects in their own, and the stock they make.

    Arrays have the shapes (messages,) or, where named `effect_*`, (effects,); times in seconds.
    """

    def __init__(self, history: History) -> None:
        self.meta = history.meta
        self.parts = history.parts
        messages, effects = history.messages, history.effects
        self.ids = messages["message"].to_numpy()
        if np.any(np.diff(self.ids) < 0):
            messages = messages.take(np.argsort(self.ids, kind="stable"))
            self.ids = messages["message"].to_numpy()
        self.sku, self.session, self.quantity, self.version, self.answer = (
            messages[name].to_numpy() for name in ("sku", "session", "quantity", "version", "answer")
        )
        self.attempts, self.effects, self.duplicates = (
            messages[name].to_numpy() for name in ("attempts", "effects", "duplicates")
        )
        self.issued, self.responded, self.applied = (
            messages[name].to_numpy() for name in ("issued", "responded", "applied")
        )
        self.kind, self.response, self.outcome, self.read_from = (
            Words(messages[name]) for name in ("kind", "response", "outcome", "read_from")
        )
        self.effect, self.store = Words(effects["effect"]), Words(effects["store"])
        self.effect_message, self.effect_sku, self.effect_version, self.effect_change, self.effect_time = (
            effects[name].to_numpy() for name in ("message", "sku", "version", "change", "time")
        )

    def __len__(self) -> int:
        return int(self.ids.size)

    @cached_property
    def effect_row(self) -> np.ndarray:
        """The row of each effect's message, -1 where no such message was issued."""
        if not len(self):
            return np.full(self.effect_message.size, -1)
        row = np.minimum(np.searchsorted(self.ids, self.effect_message), len(self) - 1)
        return np.where(self.ids[row] == self.effect_message, row, -1)

    @cached_property
    def effect_issued(self) -> np.ndarray:
        """When each effect's message was issued, -inf where it never was."""
        return np.append(self.issued, -np.inf)[self.effect_row]

    @cached_property
    def counted(self) -> np.ndarray:
        """Whether each effect is of an issued message and counts as its delivery: see `domain.counts`."""
        return self.effect.among(*filter(counts, self.effect.names)) & (self.effect_row >= 0)

    @cached_property
    def again(self) -> np.ndarray:
        """Whether each effect that counts had happened before: the same of the message on the same store."""
        which = self.effect.codes.astype(np.int64) * len(self.store.names) + self.store.codes
        key = (self.effect_message.astype(np.int64) << _SHIFT) + which
        order = np.argsort(key, kind="stable")
        same = np.zeros(key.size, bool)
        same[order[1:]] = np.diff(key[order]) == 0
        return same & self.counted

    @cached_property
    def happened(self) -> np.ndarray:
        """How many effects that count each message had."""
        return np.bincount(self.effect_row[self.counted], minlength=len(self))

    @cached_property
    def repeated(self) -> np.ndarray:
        """How many effects that count each message had again."""
        return np.bincount(self.effect_row[self.again], minlength=len(self))

    def times(self, effect: str, store: str) -> np.ndarray:
        """How often each message had an effect on a store, shape (messages,)."""
        rows = (self.effect_row >= 0) & self.effect.among(effect) & self.store.among(store)
        return np.bincount(self.effect_row[rows], minlength=len(self))

    @cached_property
    def undone(self) -> tuple[np.ndarray, np.ndarray]:
        """Of each message whether something was undone, and how much of what was undone in any is left of it (below 0: more
        was undone than done); of shape (messages,) and (effects that were undone, messages)."""
        known = [
            (effect, store) for name in self.effect.names if (effect := undoes(name)) for store in self.store.names
        ]
        back = np.array([self.times(undone(effect), store) for effect, store in known]).reshape(len(known), len(self))
        done = np.array([self.times(effect, store) for effect, store in known]).reshape(len(known), len(self))
        return np.any(back, axis=0), (done - back)[np.any(back, axis=1)]

    @cached_property
    def half_finished(self) -> np.ndarray:
        """Rows of the orders of which some steps of their process stand, and not all."""
        steps = [DONE_BY[step] for step in PROCESSES[self.meta.get("process", "simple")]]
        stands = np.array([self.times(*step) > self.times(undone(step[0]), step[1]) for step in steps])
        half = stands.any(axis=0) & ~stands.all(axis=0)
        return np.flatnonzero(half & self.kind.among(ORDER))

    @cached_property
    def miscounted(self) -> np.ndarray:
        """Rows of the orders that windows counted more than once; and where they count at all, of those answered ok, of which
        nothing is under way, that they never counted."""
        times = self.times(COUNTED, WINDOWS)
        promised = self.kind.among(ORDER) & self.response.among("ok") & ~self.outcome.among("in_flight")
        return np.flatnonzero((times > 1) | (promised & (times == 0) & times.any()))

    @cached_property
    def stock(self) -> Stock:
        """Accounting's stock through time."""
        columns = (self.effect_sku, self.effect_version, self.effect_change, self.effect_time)
        return Stock(np.flatnonzero(self.store.among(STOCK)), *columns, self.meta.get("stock"))

    @cached_property
    def reads(self) -> np.ndarray:
        """Rows of the queries that were answered with a version."""
        return np.flatnonzero(self.kind.among(STOCK_QUERY) & self.response.among("ok") & (self.version >= 0))

    @cached_property
    def stale(self) -> np.ndarray:
        """For each of `reads`: whether it saw a version older than the newest made before it was issued."""
        seen = self.reads
        return self.version[seen] < self.stock.newest(self.sku[seen], self.issued[seen])

    @cached_property
    def own_write_unseen(self) -> np.ndarray:
        """For each of `reads`: whether its customer's last order was of its SKU and answered ok before the
        read was issued, and the read saw a version older than that order made."""
        seen, orders = self.reads, np.flatnonzero(self.kind.among(ORDER))
        if not orders.size:
            return np.zeros(seen.size, bool)
        orders = orders[np.argsort(self.session[orders], kind="stable")]
        sessions = self.session[orders].astype(np.int64) << _SHIFT
        place = np.searchsorted(sessions + orders, (self.session[seen].astype(np.int64) << _SHIFT) + seen) - 1
        last = orders[np.maximum(place, 0)]
        mine = (place >= 0) & (self.session[last] == self.session[seen]) & (self.sku[last] == self.sku[seen])
        promised = self.response.among("ok")[last] & (self.responded[last] <= self.issued[seen])
        return mine & promised & (self.version[seen] < self.version[last])

    @cached_property
    def unfinished(self) -> np.ndarray:
        """Rows of the effects that made a version at accounting, which the shop's copy never got, nor a newer one."""
        known = np.zeros(int(self.effect_sku.max(initial=0)) + 1, np.int64)
        copied = np.flatnonzero(self.store.among(COPY))
        np.maximum.at(known, self.effect_sku[copied], self.effect_version[copied])
        return np.flatnonzero(self.store.among(STOCK) & (self.effect_version > known[self.effect_sku]))

    @cached_property
    def oversold(self) -> np.ndarray:
        """Rows of the orders answered ok that were rejected, or undone."""
        gone = self.outcome.among("rejected", "compensated")
        return np.flatnonzero(self.kind.among(ORDER) & self.response.among("ok") & gone)

    @cached_property
    def undersold(self) -> np.ndarray:
        """Rows of the orders refused, and not undone, though accounting had their units all the time from issue to response;
        none where the initial stock is not known."""
        told, undone = self.response.among("refused"), self.outcome.among("compensated")
        refused = np.flatnonzero(self.kind.among(ORDER) & told & ~undone)
        if not self.stock.known:
            return refused[:0]
        least = self.stock.least(self.sku[refused], self.issued[refused], self.responded[refused])
        return refused[least >= self.quantity[refused]]
