"""The compiled engine: a flow is lowered to a table of operations, which one numba kernel interprets, row by row as SimPy's
engine does; the histories are the same to the bit."""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa

from simlib import domain, draws
from simlib import scenario as scenarios
from simlib.domain import KINDS
from simlib.engines import kernel, order, records
from simlib.engines.records import BINS, OUTCOME, assemble, must_fit, width_of
from simlib.engines.workspace import Content, Workspace, unset
from simlib.errors import BadInput, RunFailed
from simlib.flow import blocks, lowering
from simlib.flow.lowering import NOWHERE, SELECTS, Lowered, lower
from simlib.flow.model import Breaker, Flow, Key, Queue
from simlib.history import (
    EFFECTS,
    NO_ATTEMPTS,
    NO_FAULTS,
    PARTS,
    History,
    coded,
    texts,
    to_table,
    unset_columns,
)
from simlib.scenario import (
    FAULTS,
    POISON,
    Arrivals,
    Crash,
    Loss,
    Outage,
    Partition,
    Poison,
    PowerLoss,
    Scenario,
    Slowdown,
)

ROOM = {
    "heap": 1024,
    "rows": 256,
    "deliveries": 512,
    "joins": 128,
    "entries": 256,
    "timers": 512,
    "faults": 64,
    "held": 8,
}
"""Records of the tables that may be too small, at first, powers of two; effects (and deliveries in a log) follow the messages."""
ARROW, LITTLE = 105, 2**28
"""Bytes of a message and its effects, as drawn and in a history; what is always free."""
SLICE = 1 << 20
"""Events between two looks at whether the run is interrupted: some tenths of a second."""
WRITTEN = (
    "message", "version", "answer", "responded", "applied", "response", "outcome", "read_from", "attempts", "deliveries",
    "effects", "duplicates",
)  # fmt: skip
"""The columns of the messages that the kernel writes."""
abandoned = threading.Event()
"""Set where runs in other threads are to end, because this process was interrupted."""
MADE_OF = (draws, domain, order, records, blocks, lowering, scenarios)
"""The modules that the kernel has functions or constants from."""


def forget_stale(cache: Path, sources: Iterable[Path]) -> None:
    """Delete what numba keeps of the kernel in a folder where the sources are others than those it was made of: numba looks at the
    kernel's own file only."""
    made_of = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
    noted = cache / "kernel.made_of"
    if noted.exists() and noted.read_text() == made_of:
        return
    for kept in cache.glob("kernel.*.nb?"):
        kept.unlink(missing_ok=True)
    noted.write_text(made_of)


with suppress(OSError):
    forget_stale(Path(str(kernel.run.stats.cache_path)), [Path(str(module.__file__)) for module in MADE_OF])


def run(
    flow: Flow, arrivals: Arrivals, kinds: Iterable[str], seed: int, scenario: Scenario | None, meta: dict[str, Any]
) -> History:
    """Run a flow on a table of arrivals; `kinds` names the codes of its kinds. Raises RunFailed where a draw is no time."""
    kinds = list(kinds)
    lowered = lower(flow, scenario.strikes if scenario else {})
    n = len(arrivals)
    _fits(flow, lowered, n)
    room = ROOM | {"effects": 2 * n + 16}
    if revivable(flow, scenario):
        room["deliveries"] = n * len(flow.queues) + 16
    while True:
        work = Workspace(
            prepare(flow, lowered, arrivals, kinds, seed, scenario, room),
            population=arrivals.population,
            **beginning(flow, lowered, n, n, scenario, room),
        )
        while kernel.run(work.s, SLICE):
            if abandoned.is_set():
                raise KeyboardInterrupt
        if not too_small(work.s, room):
            break
        del work
    check(lowered, work.s)
    return _history(flow, lowered, arrivals, kinds, work, meta)


def _fits(flow: Flow, lowered: Lowered, n: int) -> None:
    """Raise BadInput where the history of so many messages does not fit the memory that is free."""
    columns = {"messages": 1, "effects": 2, "memories": len(lowered.memories), "marks": 2 * len(lowered.marks)}
    columns |= {"published": len(flow.queues), "seen": len(flow.queues), "numbers": len(lowered.celled)}
    need = n * (ARROW + sum(count * kernel.TABLES[name].itemsize for name, count in columns.items()))
    if need > LITTLE and need > (free := psutil.virtual_memory().available):
        raise BadInput(
            f"the history of {n} messages needs {need / 1e9:.1f} GB of memory, of which {free / 1e9:.1f} are free: ask for fewer,"
            " or keep only the metrics (--keep metrics)"
        )


def too_small(s: np.void, room: dict[str, int]) -> bool:
    """Whether a table was too small for a run that ended; its room is then larger."""
    error = int(s["error"])
    if not 0 < error <= len(kernel.ROOMS):
        return False
    room[kernel.ROOMS[error - 1]] *= 4
    return True


def check(lowered: Lowered, s: np.void) -> None:
    """Raise RunFailed where a run ended with an error."""
    error = int(s["error"])
    if error == kernel.NO_TIME:
        stream = lowered.streams[s["stream"]]
        raise RunFailed(
            f"stream '{stream}' drew {s['drawn']} for message {s['of_message']}: a time must be finite and at least 0"
        )
    if error == kernel.NO_KEY:
        order.key(0, int(s["entity"]), int(s["copy"]), int(s["slot"]))


def revivable(flow: Flow, scenario: Scenario | None) -> list[Queue]:
    """The queues whose deliveries may come again when they are settled: those of a log, and those whose part may forget it."""
    dying = {fault.part for fault in scenario.faults if isinstance(fault, Crash | PowerLoss)} if scenario else set()
    return [
        queue
        for queue in flow.queues.values()
        if queue.log is not None or (queue.state_every is not None and queue.at.name in dying)
    ]


def beginning(
    flow: Flow, lowered: Lowered, count: int, drawn_ahead: int, scenario: Scenario | None, room: Mapping[str, int]
) -> dict[str, float]:
    """The state's numbers before the first event, of a run of so many messages, of which some are in their table."""
    law, stream = lowered.thinking
    return {
        "open": count,
        "count": count,
        "drawn_ahead": drawn_ahead,
        "messages_window": -1,
        "deliveries_window": -1 if revivable(flow, scenario) else room["deliveries"] - 1,
        "horizon": scenario.horizon if scenario else math.inf,
        "most_held": room["held"],
        "most_scopes": lowered.depth + 1,
        "think_law": law,
        "think_stream": stream,
    }


def prepare(
    flow: Flow,
    lowered: Lowered,
    arrivals: Arrivals,
    kinds: Sequence[str],
    seed: int,
    scenario: Scenario | None,
    room: Mapping[str, int],
) -> dict[str, Content]:
    """The kernel's tables before the first event; `room` says how many records those have that may be too small."""
    return {
        **_program(lowered, seed),
        **_nouns(flow, lowered, arrivals, scenario),
        **_faults(flow, lowered, scenario),
        **_messages(flow, lowered, arrivals, kinds, seed, scenario),
        **_moving(lowered, room),
    }


def _program(lowered: Lowered, seed: int) -> dict[str, Content]:
    return {
        "code": lowered.code,
        "keys": [draws.stream_key(seed, name) for name in lowered.streams],
        "laws": lowered.laws,
        "quantiles": lowered.quantiles,
        "branches": lowered.branches,
        "choices": lowered.choices,
        "waits": lowered.waits,
    }


def _nouns(flow: Flow, lowered: Lowered, arrivals: Arrivals, scenario: Scenario | None) -> dict[str, Any]:
    """Pools, queues, tables, consumers and their meters."""
    parts = _numbers(flow.parts)
    queue_numbers = {queue: i for i, queue in enumerate(flow.queues.values())}
    pools: list[Any] = []
    members: list[Any] = []
    lists: list[Any] = []
    for i, (pool, levels) in enumerate(zip(flow.pools.values(), lowered.priorities, strict=True)):
        breaker = pool.breaker or Breaker(failures=0, lasts=0.0)
        most = int(breaker.at_most * pool.members)
        pools.append((len(members), pool.members, SELECTS.index(pool.select), 0, breaker.failures, most, breaker.lasts))
        for _ in range(pool.members):
            limit, preemptive = _or_none(pool.queue_limit), pool.discipline == "preemptive"
            first, event_loop = len(lists), pool.discipline == "event_loop"
            lists += [(NOWHERE, NOWHERE, len(members))] * len(levels)
            members.append(
                (pool.capacity, limit, 0, 0, i, first, len(levels), i, 0, -math.inf, preemptive, 0, 0, event_loop)
            )
    groups: list[Any] = []
    actors = 0
    read_by = {}
    for name, group in flow.consumer_groups.items():
        part = parts[group.at.name]
        groups.append((lowered.consumers[name], part, actors, group.count, queue_numbers[group.queue], NOWHERE))
        actors += group.count
        read_by[group.queue] = (1 if group.queue.shared else group.count, part)
    consumers = actors
    received = {}
    for name, actor in flow.actors.items():
        part = parts[actor.at.name]
        groups.append((lowered.actors[name], part, actors, actor.count, NOWHERE, actors - consumers))
        actors += actor.count
        for queue in actor.queues:
            read_by[queue] = (1, part)
            if queue not in received:
                received[queue] = len(lists)
                lists.append((NOWHERE, NOWHERE, NOWHERE))
    coordinators: list[Any] = []
    memberships: list[Any] = []
    assigned: dict[Queue, tuple[int, int]] = {}
    for i, (coordinator, rebalance) in enumerate(zip(flow.coordinators.values(), lowered.rebalances, strict=True)):
        at, its = parts[coordinator.at.name], [parts[part.name] for part in coordinator.members]
        first, cooperative = len(memberships), coordinator.cooperative
        coordinators.append((at, first, len(its), cooperative, *rebalance, 0, 0, 0, 0, coordinator.session_timeout))
        memberships += [(part, 1, 0, 0, 0, 0, math.inf) for part in its]
        its_queues = [queue for queue in flow.queues.values() if queue.coordinator is coordinator]
        assigned |= {queue: (i, its[k % len(its)]) for k, queue in enumerate(its_queues)}
    queues: list[Any] = []
    slots: list[Any] = []
    for (queue, i), ways in zip(queue_numbers.items(), lowered.queue_ways, strict=True):
        count, consumers_at = read_by.get(queue, (0, NOWHERE))
        coordinated, consumers_at = assigned.get(queue, (NOWHERE, consumers_at))
        queues.append((
            parts[queue.at.name], _or_none(queue.prefetch), queue.shared, queue.automatic_ack,
            _or_none(queue.max_deliveries), queue.dead_letter, len(flow.pools) + i, len(slots), count, 0, NOWHERE, NOWHERE,
            consumers_at, *ways, queue.requeue == "back", 0, received.get(queue, NOWHERE), 0, queue.coalesce,
            queue.log is not None, NOWHERE, _or_none(queue.length), queue.overflow == "refuse", coordinated,
            *(math.nan if time is None else time
              for time in (queue.ack_wait, queue.deduplicate, queue.detected_after, queue.flush_every, queue.state_every,
                           queue.commit_every, queue.ttl)),
            -math.inf, math.inf, -math.inf,
        ))  # fmt: skip
        for _ in range(count):
            slots.append((0, len(lists), NOWHERE, NOWHERE, -math.inf))
            lists.append((NOWHERE, NOWHERE, NOWHERE))
    numberings: dict[Any, tuple[int, np.ndarray]] = {}
    cells = _cells(flow, lowered, arrivals, scenario, lists, numberings)
    credits: list[Any] = []
    for i, credit in enumerate(flow.credits.values(), len(flow.pools) + len(flow.queues)):
        key, numbers = _numbering(numberings, arrivals, credit.key, None)
        credits.append((len(members), NOWHERE if credit.key is None else key))
        for _ in range(int(numbers.max()) + 1):
            members.append((credit.tokens, NOWHERE, 0, 0, i, len(lists), 1, NOWHERE, 0, -math.inf, 0, 0, 0, 0))
            lists.append((NOWHERE, NOWHERE, len(members) - 1))
    resting = len(lists)
    lists += [(NOWHERE, NOWHERE, NOWHERE)] * len(parts)
    meters, width = len(flow.pools) + len(flow.queues) + len(flow.credits), width_of(arrivals.issued)
    return {
        "pools": pools,
        "members": members,
        "lists": lists,
        "queues": queues,
        "slots": slots,
        "groups": groups,
        "credits": credits,
        "coordinators": coordinators,
        "memberships": memberships,
        "numbers": _column("numbers", np.concatenate([column for _, column in numberings.values()]))
        if numberings
        else 0,
        "parts": [(0, resting + i, -math.inf, -math.inf, -math.inf, 1.0) for i in range(len(parts))],
        "actors": [(NOWHERE, 0)] * actors,
        "budgets": [(budget.share, budget.reserve, 0.0) for budget in flow.budgets.values()],
        "meters": [(0, 0, 0, 0, 0, 1, 0.0, width, width, 0.0, 0.0, 0.0)] * meters,
        "bins": 4 * BINS * meters,
        "published": len(queues) * len(arrivals),
        "seen": len(queues) * len(arrivals),
        **cells,
    }


def _numbering(
    numberings: dict[Any, tuple[int, np.ndarray]], arrivals: Arrivals, key: Any, window: float | None
) -> tuple[int, np.ndarray]:
    """Which of the numberings of messages goes by a key and a window, and the numbers; shape (messages,)."""
    if (key, window) not in numberings:
        numberings[key, window] = len(numberings), numbered(arrivals, key, window)
    return numberings[key, window]


def _cells(
    flow: Flow,
    lowered: Lowered,
    arrivals: Arrivals,
    scenario: Scenario | None,
    lists: list[Any],
    numberings: dict[Any, tuple[int, np.ndarray]],
) -> dict[str, Any]:
    """The tables' cells, as many as are used, with the stock they begin with; and the lists of those who wait for one."""
    units = scenario.stock() if scenario else np.zeros(0, np.int64)
    parts = _numbers(flow.parts)
    tables, stock = [], [np.zeros(0, np.int64)]
    for i, table in enumerate(flow.tables.values()):
        key = size = 0
        if i in lowered.celled:
            key, numbers = _numbering(numberings, arrivals, table.key, table.window)
            size = max(int(numbers.max()) + 1, units.size * (table.key == "sku"))
        memory, first = lowered.memories.get(i, NOWHERE), sum(map(len, stock))
        watchers = len(lists) if i in lowered.awaited else NOWHERE
        tables.append((key, table.durable, parts[table.at.name], memory, first, size, table.replicas, watchers))
        if i in lowered.awaited:
            lists += [(NOWHERE, NOWHERE, NOWHERE)] * (size * table.replicas)
        start = np.zeros(size, np.int64)
        if table.stocked:
            start[: units.size] = units[:size]
        stock.append(np.tile(start, table.replicas))
    beginning = _column("stock", np.concatenate(stock))
    memories = len(lowered.memories) * len(arrivals)
    return {"tables": tables, "stock": beginning, "cells": beginning.size, "memories": memories}


def numbered(arrivals: Arrivals, key: Key | tuple[Key, ...] | None, window: float | None = None) -> np.ndarray:
    """The number of each message's cell in a replica of a table: by SKU the SKU itself, else in the order of what keys it."""
    columns = {"sku": arrivals.sku, "session": arrivals.session, "message": np.arange(len(arrivals))}
    if key == "sku" and window is None:
        return arrivals.sku
    keys = [columns[one] for one in ((key,) if isinstance(key, str) else key or ())]
    if window is not None:
        keys.append(arrivals.windows(window))
    if not keys:
        return np.zeros(len(arrivals), np.int64)
    return np.unique(np.stack(keys), axis=1, return_inverse=True)[1].ravel()


def _faults(flow: Flow, lowered: Lowered, scenario: Scenario | None) -> dict[str, Any]:
    """What the links keep, and what strikes where and when."""
    parts, links = _numbers(flow.parts), _numbers(flow.links)
    losses = [fault for fault in scenario.faults if isinstance(fault, Loss)] if scenario else []
    ways = []
    for link, end, *numbers in lowered.travels:
        keep = 1.0
        happening = [fault.probability for fault in losses if fault.link == link and fault.direction in (None, end)]
        for probability in (flow.links[link].loss, *happening):
            keep *= 1.0 - probability
        ways.append((links[link], parts[end], *numbers, keep, -math.inf))
    strikes: list[Any] = []
    times: list[float] = []
    faults = list(scenario.strikes.values()) if scenario else []
    for fault, drawn in zip(faults, lowered.strikes, strict=True):
        direction = fault.direction if isinstance(fault, Partition) else None
        strikes.append((
            FAULTS.index(fault.fault), (links if isinstance(fault, Partition) else parts)[fault.where],
            NOWHERE if direction is None else parts[direction], isinstance(fault, Outage) and fault.mode == "refuse",
            len(times), len(fault.at), *drawn, fault.factor if isinstance(fault, Slowdown) else 1.0, fault.probability, -math.inf,
        ))  # fmt: skip
        times += (time + 0.0 for time in fault.at)
    points: list[Any] = []
    struck_here: list[int] = []
    for point in lowered.points:
        here = [i for i, fault in enumerate(faults) if fault.point == point]
        points.append((len(struck_here), len(here)))
        struck_here += here
    return {"ways": ways, "strikes": strikes, "times": times, "points": points, "struck_here": struck_here}


def _messages(
    flow: Flow, lowered: Lowered, arrivals: Arrivals, kinds: Sequence[str], seed: int, scenario: Scenario | None
) -> dict[str, Content]:
    """The messages, and where those of each kind begin."""
    n, parts = len(arrivals), _numbers(flow.parts)
    sources = []
    for i, kind in enumerate(kinds):
        source = flow.sources.get(kind)
        part = NOWHERE if source is None or source.at is None else parts[source.at.name]
        code = KINDS.index(kind) if kind in KINDS else i
        sources.append((lowered.starts.get(kind, lowered.nothing), part, code))
    poisons = [fault for fault in scenario.faults if isinstance(fault, Poison)] if scenario else []
    key = draws.stream_key(seed, POISON)
    return {
        **came(arrivals),
        "poisons": [(kinds.index(poison.kind), key, poison.probability) for poison in poisons],
        "messages": unset("messages", n),
        "customers": n if arrivals.population else 0,
        "sources": sources,
        "marks": unset("marks", len(lowered.marks) * n),
    }


def came(arrivals: Arrivals) -> dict[str, np.ndarray]:
    """What came, a table each column."""
    columns = {"issued": arrivals.issued + 0.0, "kinds": arrivals.kind}
    columns |= {name: getattr(arrivals, name) for name in ("sku", "session", "quantity")}
    return {name: _column(name, values) for name, values in columns.items()}


def _column(name: str, values: np.ndarray) -> np.ndarray:
    """A table of one field, over its values where these are of its kind."""
    dtype = kernel.TABLES[name]
    return np.ascontiguousarray(values, dtype["value"]).view(dtype)


def _moving(lowered: Lowered, room: Mapping[str, int]) -> dict[str, Content]:
    """The tables that may be too small, and what is free of them."""
    return {
        **{name: room[name] for name in ("heap", "rows", "deliveries", "entries", "timers", "joins", "faults")},
        **{f"free_{name}": room[name] for name in ("rows", "entries", "timers", "joins")},
        "effects": unset("effects", room["effects"]),
        "agenda": 2 * room["rows"] + 16,
        "frames": room["rows"] * (lowered.depth + 1),
        "held": room["rows"] * room["held"],
        "lengths": [(NOWHERE, NOWHERE)] * len(lowered.lengths),
    }


def _numbers(nouns: Mapping[str, Any]) -> dict[str, int]:
    return {name: i for i, name in enumerate(nouns)}


def _or_none(value: int | None) -> int:
    return NOWHERE if value is None else value


def _history(
    flow: Flow,
    lowered: Lowered,
    arrivals: Arrivals,
    kinds: Sequence[str],
    work: Workspace,
    meta: dict[str, Any],
) -> History:
    """The tables of a run that is over; those of the kernel are let go as they are used."""
    s, n = work.s, len(arrivals)
    parts = parts_of(flow, work)
    faults = _struck(flow, work["faults"][: s["struck"]]) if s["struck"] else NO_FAULTS
    issued, marks = work["issued"]["value"], work["marks"]["value"]
    work.keep("messages", "effects", "sku")
    effects = _effects(lowered, work)
    work.keep("messages")
    columns: dict[str, Any] = unset_columns("messages", WRITTEN, n)
    answered, most = kernel.message_columns(s, OUTCOME, *columns.values())
    must_fit(most)
    columns["issued"] = issued
    columns["read_from"] = coded(columns["read_from"], _occurring(answered, ["", *lowered.answers]))
    columns |= {f"mark.{name}": marks[i * n : (i + 1) * n] for i, name in enumerate(lowered.marks)}
    return assemble(arrivals, kinds, columns, effects, lowered.undoable, parts, faults, NO_ATTEMPTS, meta)


def _effects(lowered: Lowered, work: Workspace) -> pa.Table:
    """The table of effects from the kernel's."""
    names = [list(dict.fromkeys(pair[side] for pair in lowered.effects)) for side in (0, 1)]
    numbers = np.array(
        [[words.index(pair[side]) for pair in lowered.effects] for side, words in enumerate(names)], np.int8
    )
    columns: dict[str, Any] = unset_columns("effects", EFFECTS.names, int(work.s["effected"]))
    *found, most = kernel.effect_columns(work.s, numbers, *columns.values())
    must_fit(most)
    for name, codes, words in zip(("effect", "store"), found, names, strict=True):
        columns[name] = coded(columns[name], _occurring(codes, words))
    return to_table("effects", columns)


def _occurring(codes: np.ndarray, names: Sequence[str]) -> list[str]:
    return [names[code] for code in codes.tolist()]


def _struck(flow: Flow, struck: np.ndarray) -> pa.Table:
    """The table of faults from the kernel's."""
    parts, links, partition = list(flow.parts), list(flow.links), FAULTS.index("partition")
    where = zip(struck["kind"], struck["where"], strict=True)
    return to_table("faults", {
        "fault": [FAULTS[kind] for kind in struck["kind"]],
        "part": [(links if kind == partition else parts)[i] for kind, i in where],
        **{name: struck[name] for name in ("start", "end", "message")},
    })  # fmt: skip


def parts_of(flow: Flow, work: Workspace) -> pa.Table:
    """The table of the parts from the kernel's meters, of a run that is over."""
    nouns = [(pool.name, pool.kind, float(pool.capacity * pool.members)) for pool in flow.pools.values()]
    nouns += [(queue.name, "queue", math.nan) for queue in flow.queues.values()]
    nouns += [(credit.name, "credit", credit.capacity) for credit in flow.credits.values()]
    words = [[name.encode() for name, _, _ in nouns], [kind.encode() for _, kind, _ in nouns]]
    lengths = np.array([[len(word) for word in column] for column in words], np.int64)
    capacities = np.array([capacity for _, _, capacity in nouns], np.float64)
    bins = int(work.s["bins_begun"])
    rows = bins * len(nouns)
    columns: dict[str, Any] = unset_columns("parts", PARTS.names[2:], rows)
    ends = np.empty((2, rows + 1), np.int32)
    kernel.part_columns(work.s, capacities, lengths, ends, *columns.values())
    for name, its, at in zip(PARTS.names, words, ends, strict=False):
        columns[name] = texts(b"".join(word * bins for word in its), at)
    return to_table("parts", columns)
