"""What the tests share: real parts that may be absent on a user's machine, histories written by hand, and the laws that
every simulated history must obey."""

from __future__ import annotations

import math
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from simlib.domain import (
    ANNOUNCED,
    COPIED,
    COPY,
    COUNTED,
    DONE_BY,
    ISSUED,
    KINDS,
    RESTOCKED,
    STOCK,
    WINDOWS,
    counts,
    undone,
)
from simlib.engines import ENGINES, compiled
from simlib.engines import simpy as simpy_engine
from simlib.engines.simpy import engine, pools, queues
from simlib.errors import RunFailed
from simlib.history import SCHEMAS, History, to_table
from simlib.metrics import unit_of


def pytest_configure() -> None:
    """Let the programs that tests start hear an interrupt, even where the tests run in the background of a shell."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def require_part(found: bool, reason: str) -> None:
    """Skip where a real part is absent on a user's machine; fail where SIMLIB_REQUIRE_PARTS asks for it."""
    if not found:
        if os.environ.get("SIMLIB_REQUIRE_PARTS"):
            pytest.fail(reason)
        pytest.skip(reason)


HistoryMaker = Callable[..., History]
"""What the fixture `make_history` gives."""
_STORES = {ISSUED: STOCK, COPIED: COPY, ANNOUNCED: COPY, RESTOCKED: COPY, **dict(DONE_BY.values())}
_STORES |= {COUNTED: WINDOWS} | {undone(effect): store for effect, store in DONE_BY.values()}


@pytest.fixture
def make_history() -> HistoryMaker:
    """A maker of histories written by hand: see `written`."""
    return written


def written(
    messages: Sequence[Mapping[str, Any]],
    effects: Sequence[tuple[Any, ...]] = (),
    pools: Sequence[tuple[Any, ...]] = (),
    **meta: Any,
) -> History:
    """A history from rows of messages, effects and bins of pools.

    A message needs `kind` and `issued`; the rest has defaults, and `applied`, `effects`, `duplicates` follow from
    the effects unless given. An effect is (message, effect, time, version, change, sku), of which the last three
    may be left out. A bin of a pool is (pool, capacity, start, end, busy).
    """
    rows = [{"message": i, **_MESSAGE, **row} for i, row in enumerate(messages)]
    skus = {row["message"]: row["sku"] for row in rows}
    happened = []
    for message, effect, time, *rest in effects:
        version, change, sku = (*rest, *(-1, 0, skus.get(message, 0))[len(rest) :])
        store = _STORES.get(effect, "")
        happened.append((message, effect, store, sku, version, change, time, 1))
    for row in rows:
        own = [effect for effect in happened if effect[0] == row["message"] and counts(effect[1])]
        row.setdefault("applied", min((effect[6] for effect in own), default=math.nan))
        row.setdefault("effects", len(own))
        row.setdefault("duplicates", len(own) - len({effect[:3] for effect in own}))
    bins = [(name, "pool", capacity, start, end, busy, 0.0, 0.0, 0, 0) for name, capacity, start, end, busy in pools]
    return History(
        messages=to_table("messages", {name: [row[name] for row in rows] for name in SCHEMAS["messages"].names}),
        effects=to_table("effects", _columns("effects", happened)),
        parts=to_table("parts", _columns("parts", bins)),
        faults=to_table("faults", _columns("faults", [])),
        attempts=to_table("attempts", _columns("attempts", [])),
        meta=meta,
    )


_MESSAGE = {
    "sku": 0, "session": -1, "quantity": 1, "version": -1, "answer": -1, "read_from": "",
    "responded": math.nan, "response": "none", "outcome": "failed", "attempts": 1, "deliveries": 0,
}  # fmt: skip


def _columns(name: str, rows: Sequence[tuple[Any, ...]]) -> dict[str, list[Any]]:
    return {column: [row[i] for row in rows] for i, column in enumerate(SCHEMAS[name].names)}


# --- a sweep's results, invented ------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def invented_results(request: pytest.FixtureRequest) -> pd.DataFrame:
    """Rows as a sweep's store has them, of invented numbers: three candidates, four runs a point, overloaded at 400/s, or with
    the columns that the test gives.

    The times of a run are those of REST times 0.8 for the queue and 0.9 for its variant, at every cut longer by 1 ms.
    """
    rows = []
    points = [("steady", 100.0), ("steady", 200.0), ("steady", 400.0), ("burst", 100.0), ("flash_sale", 160.0)]
    points += [("fulfilment", 100.0), ("crashes", 100.0)]
    candidates = (("rest", "", 1.0), ("message_queue", "", 0.8), ("message_queue", "reply", 0.9))
    for architecture, variant, factor in candidates:
        for scenario, rate in points:
            for r in range(4):
                run = {
                    "architecture": architecture, "variant": variant, "scenario": scenario, "rate": rate,
                    "messages": 1000, "replication": r, "seed": 7 + r, "overloaded": rate == 400.0,
                    "warm_up": 0 if scenario == "flash_sale" else 40 + 30 * r, "failed": None,
                    "parameters_hash": f"{architecture}{variant}"[:12],
                    "calibration_hash": "system.yaml:0123456789ab", "version": "0.1.0+test", "draws": "1",
                }  # fmt: skip
                for cut in (0,) if scenario == "flash_sale" else (0, 100, 250, 500):
                    values = _invented(rate, r, factor, cut)
                    rows += [
                        run | {"cut": cut, "metric": name, "value": values[name], "unit": unit_of(name)}
                        for name in values
                    ]
    return pd.DataFrame(rows).assign(**getattr(request, "param", {}))


def _invented(rate: float, r: int, factor: float, cut: int) -> dict[str, float]:
    time = factor * (0.01 + rate / 20_000 + r / 1000) + cut / 100_000
    kinds = {"response_time": KINDS, "delivery_time": KINDS[:2]}
    times = {
        f"{name}_{level}.{kind}": time * share
        for name in kinds
        for kind in kinds[name]
        for level, share in (("mean", 0.5), ("p50", 0.4), ("p95", 1.0), ("p99", 1.5))
    }
    counts = {"lost": 0.0, "duplicated": 0.0, "oversold_units": r * (1 - factor), "undersold_units": 1.0}
    counts |= {"failed": 100 * factor + r, "half_finished": 5.0}
    reads = {"stale_read_fraction": 0.1 * (1 - factor), "read_your_writes_violations": 0.0}
    return times | counts | reads | {"goodput": min(rate, 350 * factor) + r, "backlog_max": rate / 10}


# --- the laws that every simulated history of the suite must obey ---------------------------------------------------


class Presence:
    """Who is somewhere, and for how long in all: the sum of the times of all, each from entering to leaving."""

    def __init__(self) -> None:
        self.entered: list[float] = []
        self.left: list[float] = []

    def total(self, end: float) -> float:
        """The sum of all times up to the end; those who are still there have stayed until then."""
        still = end * (len(self.entered) - len(self.left))
        return math.fsum([still, *self.left, *(-time for time in self.entered)])


class Watch:
    """The presences of one run, by noun and what is done there: present, in service, unacknowledged."""

    running: Watch

    def __init__(self) -> None:
        self.presences: dict[tuple[str, str], Presence] = {}

    def of(self, noun: str, what: str) -> Presence:
        return self.presences.setdefault((noun, what), Presence())


Watch.running = Watch()


class WatchedMember(pools.Member):
    """A pool's member that notes when each row comes, is served, and goes."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.present = Watch.running.of(self.meter.name, "present")
        self.served = Watch.running.of(self.meter.name, "served")

    def take(self, row: Any, priority: int) -> bool:
        taken = super().take(row, priority)
        self.present.entered.append(self.clock.now)
        if taken:
            self.served.entered.append(self.clock.now)
        return taken

    def release(self, row: Any) -> None:
        somebody_waits = self.requests > self.busy
        super().release(row)
        self.present.left.append(self.clock.now)
        self.served.left.append(self.clock.now)
        if somebody_waits:
            self.served.entered.append(self.clock.now)

    def forget(self, row: Any) -> None:
        super().forget(row)
        self.present.left.append(self.clock.now)


class WatchedQueue(queues.QueueState):
    """A queue that notes when each delivery comes, is handed out, is handed back or settled."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.present = Watch.running.of(self.name, "present")
        self.unsettled = Watch.running.of(self.name, "unacknowledged")

    def _enter(self, delivery: Any, at_head: bool = False) -> None:
        super()._enter(delivery, at_head)
        self.present.entered.append(self.engine.clock.now)

    def _lend(self, delivery: Any, slot: int) -> int:
        self.unsettled.entered.append(self.engine.clock.now)
        return super()._lend(delivery, slot)

    def _reopen(self, delivery: Any) -> None:
        super()._reopen(delivery)
        self.present.entered.append(self.engine.clock.now)
        self.unsettled.entered.append(self.engine.clock.now)

    def _returned(self, delivery: Any) -> None:
        if delivery.out:
            self.unsettled.left.append(self.engine.clock.now)
        super()._returned(delivery)

    def _close(self, delivery: Any) -> None:
        super()._close(delivery)
        self.present.left.append(self.engine.clock.now)


def obey(history: History, watch: Watch) -> None:
    """Conservation and causality by the checker; Little's law and the utilisation law by who was seen to come and go.

    Little: the area under a noun's number present is the sum of the times that each stayed. Utilisation: the area under
    the units in service is the sum of the services, and never more than the units there are.
    """
    verdict = history.check()
    assert verdict.ok, str(verdict)
    parts = history.parts.to_pandas()
    if parts.empty:
        return
    end = float(parts["end"].max())
    nouns = parts.groupby("name", sort=False)[["busy", "waiting", "unacknowledged", "completed"]].sum()
    for (noun, what), presence in watch.presences.items():
        area = nouns.loc[noun]
        expected = {
            "present": area["busy"] + area["waiting"] + area["unacknowledged"],
            "served": area["busy"],
            "unacknowledged": area["unacknowledged"],
        }[what]
        scale = end * max(1, len(presence.entered))
        assert math.isclose(presence.total(end), expected, rel_tol=1e-9, abs_tol=1e-12 * scale), (
            f"law of '{what}' at '{noun}'"
        )
    for noun, presence in ((noun, p) for (noun, what), p in watch.presences.items() if what == "served"):
        assert nouns.loc[noun, "completed"] == len(presence.left), f"completions of '{noun}'"
    room = parts["capacity"] * (parts["end"] - parts["start"])
    assert not (parts["busy"] > room * (1 + 1e-9)).any(), "more units in service than there are"


def differences(one: History, other: History) -> list[str]:
    """The tables and columns in which two histories are not the same to the bit, with the first row that differs."""
    found = []
    for name in SCHEMAS:
        a, b = getattr(one, name), getattr(other, name)
        if a.schema != b.schema or a.num_rows != b.num_rows:
            found.append(f"{name}: {a.num_rows} rows and {b.num_rows}")
            continue
        for column in a.column_names:
            x, y = (table[column].combine_chunks() for table in (a, b))
            if pa.types.is_floating(x.type):
                x, y = (np.asarray(values).view(np.int64) for values in (x.fill_null(0.0), y.fill_null(0.0)))
                rows = np.flatnonzero(x != y)
            elif x.equals(y):
                continue
            else:
                rows = np.flatnonzero([p != q for p, q in zip(x.to_pylist(), y.to_pylist(), strict=True)])
            if len(rows):
                found.append(
                    f"{name}.{column}: {len(rows)} rows, the first {rows[0]}: {a[column][rows[0]]}, {b[column][rows[0]]}"
                )
    return found


@pytest.fixture(scope="session", name="differences")
def _differences() -> Callable[[History, History], list[str]]:
    """See `differences`."""
    return differences


def _watched(*arguments: Any) -> History:
    """A run of SimPy's engine whose history is seen to obey the laws."""
    with ONE_AT_A_TIME:
        watch = Watch.running = Watch()
        history = _simpy(*arguments)
    obey(history, watch)
    return history


def _by_both(*arguments: Any) -> tuple[History, History]:
    """A run on both engines, whose histories are seen to be the same; where one fails, so does the other, in the same words."""
    try:
        slow = _watched(*arguments)
    except RunFailed as failure:
        with pytest.raises(RunFailed, match=re.escape(str(failure))):
            _compiled(*arguments)
        raise
    fast = _compiled(*arguments)
    assert differences(slow, fast) == []
    return slow, fast


def _fast(*arguments: Any) -> History:
    """A run of the compiled engine whose history obeys the laws; a short one is compared with SimPy's."""
    if len(arguments[1]) <= SHORT:
        return _by_both(*arguments)[1]
    history = _compiled(*arguments)
    obey(history, Watch())
    return history


ONE_AT_A_TIME = threading.Lock()
"""Replications run in threads, and a watch is of one run."""
SHORT = 5000
"""Messages of a run that SimPy's engine does again."""
_simpy, _compiled = simpy_engine.run, compiled.run


@pytest.fixture(scope="session", autouse=True)
def _laws() -> Iterator[None]:
    """Every history that is simulated in a test obeys the laws, and is the same on both engines."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pools, "Member", WatchedMember)
        patch.setattr(engine, "QueueState", WatchedQueue)
        patch.setitem(ENGINES, "simpy", lambda *arguments: _by_both(*arguments)[0])
        patch.setitem(ENGINES, "compiled", _fast)
        yield
