"""The compiled engine's kernel: interprets a lowered flow on arrays, event by event, exactly as the SimPy engine does.

Rows (messages and what branches off them, consumers), deliveries and joins are records in tables that do not grow: a table
that is full ends the run with its name as the error, and the run is repeated with a larger one. Whoever waits stands in
one doubly linked list. What a row waits for has a number, `seq`; an event with another number comes for nobody. Between
timed events there is one agenda, first in, first out. `engines.simpy` says in readable form what each operation does.

The state, `s`, is one record: whole numbers, and where each table lies. A record of a table is had by `NAME_at(s, i)`,
which counts no references and copies nothing: passing some fifty arrays from function to function would cost a hundred
times the work that is done with them.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import config, from_dtype, types
from numba.core import cgutils
from numba.extending import intrinsic

from simlib.domain import RESPONSES
from simlib.draws import CONSTANT, QUANTILES, closed_form, fold, uniform
from simlib.engines import order
from simlib.engines.records import ANSWERED, APPLIED, BINS, DEAD_LETTERED, EXPIRED, NOTED, REJECTED, SUPERSEDED
from simlib.flow.blocks import COMPARISONS, FIELDS
from simlib.flow.lowering import AT_RANDOM, BY_SESSION, NOWHERE, OPERATION, SELECTS, STEP, UNWATCHED
from simlib.scenario import FAULTS

(
    END, RECEIVE, DELAY, SEIZE, RELEASE, SEND, ARRIVE, JUMP, TEST, DRAW, CHOOSE, REPEAT, AGAIN,
    FAIL, RESCUE, RESCUED, RETRY, NEXT_TRY, RETRIED, TIMEOUT, IN_TIME, BY_ATTEMPT, BY_ATTEMPT_END,
    FORK, SPAWN, CALL, CALLED, REPLY, PUBLISH, ACK, NACK, READ, WRITE, WRITE_IF_NEWER, ADD,
    TAKE, ONCE, KEEP, RESPOND, APPLY, REJECT, SUPERSEDE, MARK, POINT, EVERY, UNTIL, FETCH,
    FOR_EACH, MEMBER, UNTIL_CELL, APPEND, SEEK, BY_SKU, CHECKPOINT, CHECKED, TAKE_TOKEN, GIVE_TOKEN,
    HEDGE, HEDGED, TURN,
) = OPERATION.values()  # fmt: skip
OK, REFUSED, FAILED, TIMED_OUT = (RESPONSES.index(name) for name in ("ok", "refused", "failed", "timed_out"))
ROUND_ROBIN, BY_KEY, LEAST_REQUESTS, RANDOM, TWO_CHOICES = range(len(SELECTS))
CRASH, POWER_LOSS, OUTAGE, SLOWDOWN, PAUSE, PARTITION = range(len(FAULTS))
EQUAL, DIFFERENT, LESS, AT_MOST, MORE, AT_LEAST = range(len(COMPARISONS))
(
    KIND, SKU, SESSION, QUANTITY, POISON, ATTEMPT, DELIVERY_NUMBER, RESULT, LEVEL, VERSION, BATCH, NTH, MEMBER_NUMBER, AWAITED,
) = range(len(FIELDS))  # fmt: skip
CELLS = len(FIELDS)
"""The first of the fields that are of cells: two of each table."""

RUNNING, ASLEEP, SERVED, QUEUED, JOINING, CALLING = range(6)
"""Where a row is: not waiting (or about to be resumed), in a delay, in a service, in a list, at a join, at a call."""
(
    RESUME, EXPIRE, CUSTOMER, ISSUE, GIVE_UP, DELIVER, ACKED, NACKED, UNACKED, STRIKE, PASSED, NOTICE, TOO_OLD,
    SESSION_OVER, SILENT, SHARE_OUT,
) = range(16)  # fmt: skip
"""Kinds of timed event."""
NOTHING_BEGUN = -1.0
"""Left of the service of a row that waits for it."""
LOST = 2
"""How a delivery is settled that went with the power."""
MANTISSA, LEAST_EXPONENT, EXPONENTS = 9, 1023 - 40, 64
"""Times are counted by 9 bits of their mantissa, and by their exponent from 2^-40 s (a picosecond) on: whatever is of a
bucket's middle as far as the bucket reaches is within 2^-10 of it. Bounds of this kind are those of DDSketch (Masson, Rim and Lee,
PVLDB 12 (2019)); a float's bits are a logarithm, linear between powers of two."""
SPREAD = EXPONENTS << MANTISSA
"""Buckets of times."""
STOP = -1
"""On the agenda: the run is over."""
SCOPE = 16
"""What is thrown at a row: from here on, the time of that scope is up; below, its step failed with that result."""
ROOMS = ("heap", "rows", "joins", "entries", "deliveries", "effects", "faults", "held", "timers")
"""The tables that may be too small; the error is 1 and more."""
HEAP_FULL, ROWS_FULL, JOINS_FULL, ENTRIES_FULL, DELIVERIES_FULL, EFFECTS_FULL, FAULTS_FULL, HELD_FULL, TIMERS_FULL = (
    range(1, 10)
)
NO_TIME, NO_KEY = 20, 21
"""Errors: a draw is no time, an event's key overflows."""


njit = partial(numba.njit, forceinline=False)
"""Of most functions: without the word, what an inlined function calls would be inlined, too."""
inlined = numba.njit(cache=True, forceinline=True)
"""Of functions on the way of every event: a call costs more than what they do."""


merged = numba.njit(cache=True, inline="always")
"""Of the two that take every event further: what they call would have its result's slot cleared whenever one of them begins, some
eighty stores for every event; as a part of their caller's own code, once."""


def _apart(typing):  # type: ignore[no-untyped-def]
    """Says that the function where it stands is called, and not compiled into its callers: what seldom happens, or is large."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.none(), generate


apart: Any = intrinsic(_apart)


# --- the state ------------------------------------------------------------------------------------------------------


def record(names: str, kind: Any = np.int64, /, **others: Any) -> np.dtype[Any]:
    """A record of fields of one kind, and of others."""
    return np.dtype([(name, kind) for name in names.split()] + list(others.items()), align=True)


I1, I4, I8, F8 = np.int8, np.int32, np.int64, np.float64
TABLES = {
    # what was lowered, and the streams of this run
    "code": STEP,
    "keys": record("value"),
    "laws": record("family first size", a=F8, b=F8, c=F8),
    "quantiles": record("value", F8),
    "ways": record("link end law stream loss", keep=F8, cut=F8),
    "branches": record("value"),
    "choices": record("stage", probability=F8),
    "waits": record("value", F8),
    "sources": record("start part code"),
    # nouns: what a pool's breaker says (no `failures`: there is none), `most` of its members left out; a member's first list of
    # rows, how many `levels` of priority it has, until when it is left out, which row of which level had its unit last, and whether
    # it is an event loop; a queue's slots (credit of one consumer or of all) and its list of deliveries, and the list of those who
    # wait for it to fill (where actors receive from it);
    # where a table's cells are, of how many replicas, by which of the `numbers` of messages, the lists of those who wait for
    # each, and which of the memories of `once` is its own; the `number` of a group's first actor; a credit's `first` member,
    # of as many as it has keys; a coordinator's first membership, each of a part
    "pools": record("first members select turn failures most", lasts=F8),
    "members": record(
        "capacity limit busy requests meter list levels pool failures", out_until=F8, preemptive=I8, user=I8, level=I8,
        event_loop=I8,
    ),
    "budgets": record("share reserve paid", F8),
    "lists": record("first last member"),
    "queues": record(
        "at prefetch shared automatic_ack max_deliveries dead_letter meter first slots turn ready end consumers_at there "
        "back_one back_other one dispatch dispatch_stream wait_length requeue_back closed watchers waiting coalesce keeps "
        "urgent length refuses coordinator",
        ack_wait=F8, deduplicate=F8, detected_after=F8, flush_every=F8, state_every=F8, commit_every=F8, ttl=F8, written=F8, due=F8,
        given=F8,
    ),
    "slots": record("out idle first last", latest=F8),
    "tables": record("key durable at memory first size replicas watchers"),
    "numbers": record("value", I4),
    "stock": record("value"),
    "cells": record("level version"),
    "memories": record("level version", I4, known=I1, result=I1),
    "groups": record("start part first count queue number"),
    "credits": record("first key"),
    "coordinators": record(
        "at first members cooperative law stream rebalancing sharing generation session", session_timeout=F8
    ),
    "memberships": record("part known unnoticed joined in_hand load", patience=F8),
    "actors": record("value turn"),
    "meters": record(
        "busy waiting unacknowledged completed most bins",
        since=F8, edge=F8, width=F8, busy_area=F8, waiting_area=F8, unacknowledged_area=F8,
    ),
    "bins": record("busy waiting unacknowledged", F8, most=I8, completed=I8),
    # faults: until when a part is in which state, how slow it is, and the list of those who rest there until it is up; what
    # strikes it (`where`: a part, or a link from the end that `direction` names; by its own list of times, or every so
    # often), at which points, and what happened
    "parts": record("down resting", refuses=F8, shut=F8, paused=F8, slow=F8),
    "strikes": record(
        "kind where direction refuses first times every lasts gap_stream stream chance",
        factor=F8, probability=F8, until=F8,
    ),
    "times": record("value", F8),
    "points": record("first count"),
    "struck_here": record("value"),
    "faults": record("kind where message", start=F8, end=F8),
    # messages: what came, a table each column, and of which kinds some are poison; what becomes of it (the `code` of its kind as
    # conditions see it), which fits a line of the cache; of whom, where customers come again
    "issued": record("value", F8),
    "kinds": record("value", I1),
    "sku": record("value", I4),
    "session": record("value", I4),
    "quantity": record("value", I4),
    "poisons": record("kind key", probability=F8),
    "messages": record(
        "version answer alive copies effects duplicates attempts deliveries",
        I4, responded=F8, applied=F8, done=I8,
        **dict.fromkeys(("response", "noted", "read_from", "kind", "code", "poison"), I1),
    ),
    "customers": record("number turn", I4),
    "effects": record("message effect version change delivery", I4, time=F8),
    # where only metrics are kept: of each message when it had its last effect, and whether it is counted; of each kind what its
    # messages add up to, and the spread of its response times and of its delivery times; how many messages ended in which way
    "kept": record("counted", last_effect=F8),
    "tallies": record("messages settled good attempted attempts", responded=F8, applied=F8, settled_last=F8),
    "spreads": record("count"),
    "ends": record("messages units duplicated"),
    "marks": record("value", F8),
    "published": record("value", I4),
    "seen": record("value", F8),
    # what moves: `last` and `next` beside it in a list (`last` is the one before), `ticket` of its timer
    "heap": record("key what more", time=F8),
    "agenda": record("row seq"),
    # timers of one length, in the order in which they are set, which is that in which they are due
    "lengths": record("first last"),
    "timers": record("key what more next", time=F8),
    "free_timers": record("value"),
    "rows": record(
        "pc message part copy attempt number result scopes calls level version main delivery answer_row answer_call "
        "at where thrown group consumer alive depth holding join next last place seq ticket actor batch hand cursor passes nth "
        "member membership keeps awaited",
        due=F8, left=F8,
    ),
    "free_rows": record("value"),
    "frames": record("pc kind attempt part holding turn unheard place ticket level version result first second copy"),
    "held": record("value"),
    "deliveries": record(
        "id queue message copy number slot out settled urgent level version result answer_row answer_call next last ticket",
        published=F8, changed=F8,
    ),
    "entries": record("delivery number next"),
    "free_entries": record("value"),
    "joins": record("row needed branches"),
    "free_joins": record("value"),
}  # fmt: skip
"""The records of each table."""
NUMBERS = (
    "begun heaped happens first turns rows_free joins_free entries_free timers_free delivered effected struck open stopped "
    "following issues bins_begun error key stream of_message entity copy slot most_held most_scopes count drawn_ahead cut "
    "population think_law think_stream"
)
"""The state's whole numbers: how much of each table is in use, the error and where it struck, limits, customers."""
WINDOWS = dict.fromkeys(("issued", "kinds", "sku", "session", "quantity", "messages"), "messages_window") | {
    "deliveries": "deliveries_window"
}
"""Tables that may hold the last records only, each in the place of one that is over: where the mask of their numbers stands."""
STATE = np.dtype(
    [(name, I8) for name in (*NUMBERS.split(), *dict.fromkeys(WINDOWS.values()))]
    + [(name, F8) for name in ("now", "horizon", "drawn", "latest", "begins", "last_arrival", "timeout")]
    + [(part, I8) for name in TABLES for part in (name, f"{name}_size")]
)


def of(name: str) -> Any:
    """Record i of a table, by reference; with numba's bounds checking on, raises IndexError where there is none."""
    kind, size = from_dtype(TABLES[name]), TABLES[name].itemsize
    address, count = (STATE.fields[field][1] for field in (name, f"{name}_size"))  # type: ignore[index]
    window = STATE.fields[WINDOWS[name]][1] if name in WINDOWS else None  # type: ignore[index]
    whole = ir.IntType(64)

    @intrinsic
    def at(typing: Any, s: Any, i: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            start = builder.bitcast(arguments[0], ir.IntType(8).as_pointer())

            def field(offset: int) -> Any:
                place = builder.gep(start, [ir.Constant(whole, offset)])
                loaded = builder.load(builder.bitcast(place, whole.as_pointer()))
                loaded.set_metadata("invariant.load", builder.module.add_metadata([]))
                return loaded

            index = arguments[1]
            if window is not None:
                index = builder.and_(index, field(window))
            if config.BOUNDSCHECK:  # type: ignore[attr-defined]  # made when numba is imported
                outside = builder.icmp_unsigned(">=", index, field(count))
                with cgutils.if_unlikely(builder, outside):
                    context.call_conv.return_user_exc(builder, IndexError, (f"no such record of table '{name}'",))
            table = builder.inttoptr(field(address), ir.IntType(8).as_pointer())
            place = builder.gep(table, [builder.mul(index, ir.Constant(whole, size))])
            return builder.bitcast(place, context.get_value_type(kind))

        return kind(s, types.int64), generate

    return at


op_at, key_at, law_at, quantile_at, way_at, branch_at, choice_at, wait_at, source_at = map(
    of, ("code", "keys", "laws", "quantiles", "ways", "branches", "choices", "waits", "sources")
)
(
    pool_at,
    member_at,
    budget_at,
    line_at,
    queue_at,
    slot_at,
    table_at,
    stock_at,
    cell_at,
    number_at,
    memory_at,
    group_at,
    actor_at,
) = map(
    of,
    (
        "pools",
        "members",
        "budgets",
        "lists",
        "queues",
        "slots",
        "tables",
        "stock",
        "cells",
        "numbers",
        "memories",
        "groups",
        "actors",
    ),
)
credit_at = of("credits")
coordinator_at, membership_at = of("coordinators"), of("memberships")
meter_at, bin_at, part_at, strike_at, time_at, point_at, struck_here_at, fault_at = map(
    of, ("meters", "bins", "parts", "strikes", "times", "points", "struck_here", "faults")
)
message_at, customer_at, effect_at, mark_at, published_at, seen_at, event_at, turn_at = map(
    of, ("messages", "customers", "effects", "marks", "published", "seen", "heap", "agenda")
)
issued_at, kind_at, sku_at, session_at, quantity_at = map(of, ("issued", "kinds", "sku", "session", "quantity"))
poison_at = of("poisons")
row_at, free_row_at, frame_at, held_at, delivery_at, entry_at, free_entry_at, join_at, free_join_at = map(
    of, ("rows", "free_rows", "frames", "held", "deliveries", "entries", "free_entries", "joins", "free_joins")
)
kept_at, tally_at, spread_at, end_at = map(of, ("kept", "tallies", "spreads", "ends"))
length_at, timer_at, free_timer_at = map(of, ("lengths", "timers", "free_timers"))


@inlined
def beside(s, i, message):  # type: ignore[no-untyped-def]
    """The place in column i of a table beside that of the messages."""
    return i * s.messages_size + (np.int64(message) & s.messages_window)


# --- events ---------------------------------------------------------------------------------------------------------


def _sooner(typing, time, key, other_time, other_key):  # type: ignore[no-untyped-def]
    """Whether an event comes before another: one comparison without a jump, as the bits of times that are not negative (nor
    -0.0) are in the order of the times."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        def place(time, key):  # type: ignore[no-untyped-def]
            wide = ir.IntType(128)
            high = builder.zext(builder.bitcast(time, ir.IntType(64)), wide)
            return builder.or_(builder.shl(high, ir.Constant(wide, 64)), builder.zext(key, wide))

        return builder.icmp_unsigned("<", place(*arguments[:2]), place(*arguments[2:]))

    return types.boolean(types.float64, types.int64, types.float64, types.int64), generate


sooner: Any = intrinsic(_sooner)


@inlined
def put(s, i, time, key, what, more):  # type: ignore[no-untyped-def]
    """An event at a place in the heap."""
    new = event_at(s, i)
    new.time, new.key, new.what, new.more = time, key, what, more


@inlined
def move(s, i, to):  # type: ignore[no-untyped-def]
    """An event goes to another place in the heap."""
    source = event_at(s, i)
    put(s, to, source.time, source.key, source.what, source.more)


@njit(cache=True)
def sink(s, time, key, what, more):  # type: ignore[no-untyped-def]
    """An event comes into the heap where its first was, and sinks to its place."""
    n, i, k = s.heaped, 0, 1
    while k < n:
        below = event_at(s, k)
        if k + 1 < n:
            other = event_at(s, k + 1)
            k += sooner(other.time, other.key, below.time, below.key)
            below = event_at(s, k)
        if sooner(time, key, below.time, below.key):
            break
        move(s, k, i)
        i, k = k, 2 * k + 1
    put(s, i, time, key, what, more)


@njit(cache=True)
def push(s, time, key, what, more):  # type: ignore[no-untyped-def]
    """One more timed event, in the place of the one that happens now where that is still there."""
    apart()
    if s.happens:
        s.happens = 0
        sink(s, time, key, what, more)
        return
    i = s.heaped
    if i >= s.heap_size:
        s.error = HEAP_FULL
        return
    s.heaped = i + 1
    while i > 0:
        above = event_at(s, (i - 1) >> 1)
        if sooner(above.time, above.key, time, key):
            break
        move(s, (i - 1) >> 1, i)
        i = (i - 1) >> 1
    put(s, i, time, key, what, more)


@njit(cache=True)
def drop(s):  # type: ignore[no-untyped-def]
    """What happened is over and nothing took its place in the heap: the last event does."""
    apart()
    s.happens = 0
    s.heaped -= 1
    if s.heaped > 0:
        last = event_at(s, s.heaped)
        sink(s, last.time, last.key, last.what, last.more)


@inlined
def key_of(s, rank, entity, copy, slot):  # type: ignore[no-untyped-def]
    """As `order.key`."""
    if copy >= order.COPIES or slot >= order.SLOTS:
        s.error, s.entity, s.copy, s.slot = NO_KEY, entity, copy, slot
    return (np.int64(rank) << 60) | (np.int64(entity) << 26) | (np.int64(copy) << 6) | np.int64(slot)


@inlined
def event(s, time, rank, entity, copy, slot, kind, of, more):  # type: ignore[no-untyped-def]
    """A timed event of a kind, of something with a number."""
    push(s, time, key_of(s, rank, entity, copy, slot), (np.int64(kind) << 40) | np.int64(of), more)


@njit(cache=True)
def put_off(s, time, kind, of, more):  # type: ignore[no-untyped-def]
    """The event that happens now happens later, under its key."""
    push(s, time, s.key, (np.int64(kind) << 40) | np.int64(of), more)


@inlined
def for_nobody(s, kind, of, more):  # type: ignore[no-untyped-def]
    """Whether what was to come has been given up."""
    if kind == UNACKED:
        return delivery_at(s, of).ticket != more
    row = row_at(s, of)
    for i in range(row.depth):
        if frame_at(s, of * s.most_scopes + i).ticket == more:
            return False
    return True


@inlined
def free_timer(s, k):  # type: ignore[no-untyped-def]
    """The timer is no more; those behind it go on."""
    free_timer_at(s, s.timers_free).value = k
    s.timers_free += 1
    return timer_at(s, k).next


@inlined
def wanted(s, k):  # type: ignore[no-untyped-def]
    """The first timer from one on that comes for somebody, -1 for none; those before it are no more."""
    while k >= 0:
        timer = timer_at(s, k)
        if not for_nobody(s, timer.what >> 40, timer.what & 0xFFFFFFFFFF, timer.more):
            break
        s.latest = max(s.latest, timer.time)
        k = free_timer(s, k)
    return k


@inlined
def set_timer(s, i, time, key, kind, of, more):  # type: ignore[no-untyped-def]
    """An event, of a length of timer, that mostly comes for nobody. Of each length only the first stands in the heap, which
    those that came for nobody before they were due never see; one that would not be the last stands there by itself."""
    what = (np.int64(kind) << 40) | np.int64(of)
    line = length_at(s, i)
    if line.last >= 0 and sooner(time, key, timer_at(s, line.last).time, timer_at(s, line.last).key):
        push(s, time, key, what, more)
        return
    n = s.timers_free
    if n == 0:
        s.error = TIMERS_FULL
        return
    s.timers_free = n - 1
    k = free_timer_at(s, n - 1).value
    timer = timer_at(s, k)
    timer.time, timer.key, timer.what, timer.more, timer.next = time, key, what, more, -1
    if line.last >= 0:
        timer_at(s, line.last).next = k
        first = timer_at(s, line.first)
        first.next = wanted(s, first.next)
    else:
        line.first = k
        push(s, time, key, what | (np.int64(i + 1) << 48), more)
    line.last = k


@njit(cache=True)
def next_timer(s, i):  # type: ignore[no-untyped-def]
    """The first of the timers of a length is due: the next that is wanted takes its place in the heap."""
    line = length_at(s, i)
    line.first = wanted(s, free_timer(s, line.first))
    if line.first < 0:
        line.last = -1
        return
    timer = timer_at(s, line.first)
    push(s, timer.time, timer.key, timer.what | (np.int64(i + 1) << 48), timer.more)


@inlined
def say(s, row, seq):  # type: ignore[no-untyped-def]
    """One more entry on the agenda."""
    if s.turns >= s.agenda_size:
        s.error = ROWS_FULL
        return
    i = s.first + s.turns
    turn = turn_at(s, i if i < s.agenda_size else i - s.agenda_size)
    turn.row, turn.seq = row, seq
    s.turns += 1


@inlined
def wake(s, r, thrown):  # type: ignore[no-untyped-def]
    """The row goes on when its turn comes; with something thrown at it, or not."""
    row = row_at(s, r)
    row.at, row.thrown = RUNNING, thrown
    say(s, r, row.seq)


# --- areas ----------------------------------------------------------------------------------------------------------


@inlined
def lasted(m, time):  # type: ignore[no-untyped-def]
    """As `records.Meter._add`, where 0 times a time adds nothing; the bin that is not over stands in the meter."""
    m.busy_area += m.busy * time
    m.waiting_area += m.waiting * time
    m.unacknowledged_area += m.unacknowledged * time
    m.most = max(m.most, m.waiting)


@njit(cache=True)
def write_bin(s, i):  # type: ignore[no-untyped-def]
    """The meter's last bin is as the meter has it."""
    m = meter_at(s, i)
    bin = bin_at(s, 4 * BINS * i + m.bins - 1)
    bin.busy, bin.waiting, bin.unacknowledged = m.busy_area, m.waiting_area, m.unacknowledged_area
    bin.most, bin.completed = m.most, m.completed


@njit(cache=True)
def coarsen(s, i):  # type: ignore[no-untyped-def]
    """As `records.Meter._coarsen`; the last bin is a new one, and nothing stands in the meter yet."""
    m = meter_at(s, i)
    write_bin(s, i)
    for k in range(2 * BINS):
        one, other = bin_at(s, 4 * BINS * i + 2 * k), bin_at(s, 4 * BINS * i + 2 * k + 1)
        bin = bin_at(s, 4 * BINS * i + k)
        bin.busy = one.busy + other.busy
        bin.waiting = one.waiting + other.waiting
        bin.unacknowledged = one.unacknowledged + other.unacknowledged
        bin.most = max(one.most, other.most)
        bin.completed = one.completed + other.completed
    m.bins = 2 * BINS
    m.width *= 2
    m.edge = m.bins * m.width
    last = bin_at(s, 4 * BINS * i + m.bins - 1)
    m.busy_area, m.waiting_area, m.unacknowledged_area = last.busy, last.waiting, last.unacknowledged
    m.most, m.completed = last.most, last.completed


@njit(cache=True)
def advance(s, i):  # type: ignore[no-untyped-def]
    """As `records.Meter.advance`."""
    apart()
    m, now = meter_at(s, i), s.now
    while now > m.edge:
        lasted(m, m.edge - m.since)
        write_bin(s, i)
        m.since, m.edge = m.edge, (m.bins + 1) * m.width
        m.bins += 1
        m.busy_area = m.waiting_area = m.unacknowledged_area = 0.0
        m.most = m.completed = 0
        if m.bins == 4 * BINS:
            coarsen(s, i)
    if now > m.since:
        lasted(m, now - m.since)
        m.since = now


@inlined
def tell(s, i, busy, waiting, unacknowledged, completed):  # type: ignore[no-untyped-def]
    """As `records.Meter.change`, now."""
    m = meter_at(s, i)
    if s.now > m.edge:
        advance(s, i)
    elif s.now > m.since:
        lasted(m, s.now - m.since)
        m.since = s.now
    m.busy += busy
    m.waiting += waiting
    m.unacknowledged += unacknowledged
    m.completed += completed


# --- lists, pools ---------------------------------------------------------------------------------------------------


@inlined
def line_up(s, i, r):  # type: ignore[no-untyped-def]
    """The row waits at the end of a list."""
    row, line = row_at(s, r), line_at(s, i)
    row.at, row.where, row.last, row.next = QUEUED, i, line.last, -1
    if line.last >= 0:
        row_at(s, line.last).next = r
    else:
        line.first = r
    line.last = r


@inlined
def line_up_first(s, i, r):  # type: ignore[no-untyped-def]
    """The row waits at the head of a list."""
    row, line = row_at(s, r), line_at(s, i)
    row.at, row.where, row.last, row.next = QUEUED, i, -1, line.first
    if line.first >= 0:
        row_at(s, line.first).last = r
    else:
        line.last = r
    line.first = r


@inlined
def step_out(s, r):  # type: ignore[no-untyped-def]
    """The row leaves its list."""
    row = row_at(s, r)
    line = line_at(s, row.where)
    if row.last >= 0:
        row_at(s, row.last).next = row.next
    else:
        line.first = row.next
    if row.next >= 0:
        row_at(s, row.next).last = row.last
    else:
        line.last = row.last


@inlined
def hold(s, r, member):  # type: ignore[no-untyped-def]
    """The row has a unit of the member."""
    row = row_at(s, r)
    if row.holding >= s.most_held:
        s.error = HELD_FULL
        return
    held_at(s, r * s.most_held + row.holding).value = member
    row.holding += 1


@njit(cache=True)
def is_out(s, member):  # type: ignore[no-untyped-def]
    """As `simpy.Member.out`."""
    return s.now < member.out_until


@njit(cache=True)
def among(s, pool, i):  # type: ignore[no-untyped-def]
    """The i-th of the members that are not left out."""
    at = pool.first
    while is_out(s, member_at(s, at)):
        at += 1
    while i > 0:
        at += 1
        i -= not is_out(s, member_at(s, at))
    return at


@njit(cache=True)
def how_many_out(s, pool):  # type: ignore[no-untyped-def]
    """Of the members of a pool."""
    count = 0
    for i in range(pool.first, pool.first + pool.members):
        count += is_out(s, member_at(s, i))
    return count


@inlined
def pick(s, r, p, stream):  # type: ignore[no-untyped-def]
    """The member that a row goes to, -1 where all are left out: as `simpy.PoolState.pick`."""
    pool = pool_at(s, p)
    n = pool.members
    if pool.failures:
        n -= how_many_out(s, pool)
        if n == 0:
            return -1
    if pool.members == 1:
        return pool.first
    at = choose(s, r, pool, n, stream)
    row_at(s, r).member = at - pool.first
    return at


@njit(cache=True)
def choose(s, r, pool, n, stream):  # type: ignore[no-untyped-def]
    """As `simpy.PoolState.choose`, of the n members that are not left out."""
    place = row_at(s, r).place
    if pool.select == ROUND_ROBIN:
        pool.turn += 1
        return among(s, pool, (pool.turn - 1) % n)
    if pool.select == BY_KEY:
        return among(s, pool, sku_at(s, row_at(s, r).message).value % n)
    if pool.select == LEAST_REQUESTS:
        best = among(s, pool, 0)
        for i in range(best + 1, pool.first + pool.members):
            if not is_out(s, member_at(s, i)) and member_at(s, i).requests < member_at(s, best).requests:
                best = i
        return best
    one = among(s, pool, int(uniform(stream, place) * n))
    if pool.select == RANDOM:
        return one
    other = among(s, pool, int(uniform(stream, fold(place, 1)) * n))
    return one if member_at(s, one).requests <= member_at(s, other).requests else other


@njit(cache=True)
def member_failed(s, i):  # type: ignore[no-untyped-def]
    """As `simpy.Member.failed`."""
    member = member_at(s, i)
    pool = pool_at(s, member.pool)
    member.failures += 1
    if pool.failures == 0 or is_out(s, member) or member.failures < pool.failures:
        return
    if how_many_out(s, pool) < pool.most:
        member.out_until = s.now + pool.lasts


@inlined
def claim(s, r, i, level):  # type: ignore[no-untyped-def]
    """A unit at once (1), or in line for one (0), or too many are (-1)."""
    member = member_at(s, i)
    queued = member.requests - member.busy
    if member.busy < member.capacity and queued == 0:
        member.busy += 1
        member.requests += 1
        tell(s, member.meter, 1, 0, 0, 0)
        return 1
    if member.limit >= 0 and queued >= member.limit:
        return -1
    member.requests += 1
    tell(s, member.meter, 0, 1, 0, 0)
    row_at(s, r).left = NOTHING_BEGUN
    line_up(s, member.list + level, r)
    return 0


@njit(cache=True)
def displaces(s, i, level):  # type: ignore[no-untyped-def]
    """Whether the row that has the member's unit makes way for one of a level: as `simpy.Preemptive.displaces`."""
    apart()
    member = member_at(s, i)
    row = row_at(s, member.user)
    if member.busy == 0 or level >= member.level or row.thrown > 0:
        return False
    row.left = row.due - goes_on(s, served_at(s, member.user)) if row.at == SERVED else NOTHING_BEGUN
    row.seq += 1
    row.holding -= 1
    line_up_first(s, member.list + member.level, member.user)
    member.requests += 1
    tell(s, member.meter, 0, 1, 0, 0)
    return True


@inlined
def take_unit(s, r, i, level):  # type: ignore[no-untyped-def]
    """As `claim`, and the row owns what it has at once: as `simpy.Member.take` and `simpy.Preemptive.take`."""
    member = member_at(s, i)
    if row_at(s, r).keeps == i:
        row_at(s, r).keeps = -1
        hold(s, r, i)
        return 1
    taken = 1 if member.preemptive and displaces(s, i, level) else claim(s, r, i, level)
    if taken > 0:
        hold(s, r, i)
        member.user, member.level = r, level
    return taken


@njit(cache=True)
def pass_on(s, r):  # type: ignore[no-untyped-def]
    """As `simpy.EventLoop.pass_on`: the row keeps its event loop no longer."""
    row = row_at(s, r)
    i = row.keeps
    row.keeps = -1
    member = member_at(s, i)
    member.requests -= 1
    following = line_at(s, member.list).first
    if following >= 0:
        step_out(s, following)
        tell(s, member.meter, 0, -1, 0, 0)
        hold(s, following, i)
        wake(s, following, 0)
    else:
        member.busy -= 1
        tell(s, member.meter, -1, 0, 0, 0)


@njit(cache=True)
def take_turn(s, r, i):  # type: ignore[no-untyped-def]
    """As `simpy.EventLoop.turn`; the result is that of `take_unit`."""
    apart()
    row, member = row_at(s, r), member_at(s, i)
    if row.keeps == i and line_at(s, member.list).first >= 0:
        member.requests += 1
        tell(s, member.meter, 0, 1, 0, 0)
        row.left = NOTHING_BEGUN
        line_up(s, member.list, r)
        pass_on(s, r)
        return 0
    return take_unit(s, r, i, 0)


@njit(cache=True)
def give_unit(s, r, at):  # type: ignore[no-untyped-def]
    """The unit at a place of what the row holds goes to the next in line: as `simpy.Member.release`."""
    row, i = row_at(s, r), held_at(s, r * s.most_held + at).value
    member = member_at(s, i)
    row.holding -= 1
    for k in range(at, row.holding):
        held_at(s, r * s.most_held + k).value = held_at(s, r * s.most_held + k + 1).value
    if member.event_loop:
        if row.keeps >= 0:
            pass_on(s, r)
        row.keeps = i
        tell(s, member.meter, 0, 0, 0, 1)
        return
    member.requests -= 1
    for level in range(member.levels):
        following = line_at(s, member.list + level).first
        if following >= 0:
            step_out(s, following)
            tell(s, member.meter, 0, -1, 0, 1)
            hold(s, following, i)
            member.user, member.level = following, level
            left = row_at(s, following).left
            if left == NOTHING_BEGUN:
                wake(s, following, 0)
            else:
                serve(s, following, goes_on(s, served_at(s, following)) + left)
            return
    member.busy -= 1
    tell(s, member.meter, -1, 0, 0, 1)


@njit(cache=True)
def unwind(s, r, held, failed):  # type: ignore[no-untyped-def]
    """As `simpy.Row.unwind`."""
    row = row_at(s, r)
    while row.holding > held:
        i = held_at(s, r * s.most_held + row.holding - 1).value
        give_unit(s, r, row.holding - 1)
        if failed:
            member_failed(s, i)


@njit(cache=True)
def purse(s, r, c):  # type: ignore[no-untyped-def]
    """As `simpy.CreditState.purse`: a member that nobody owns units of."""
    credit = credit_at(s, c)
    if credit.key < 0:
        return credit.first
    return credit.first + number_at(s, beside(s, credit.key, row_at(s, r).message)).value


@njit(cache=True)
def give_token(s, i):  # type: ignore[no-untyped-def]
    """As `simpy.Purse.give`."""
    member = member_at(s, i)
    following = line_at(s, member.list).first
    if following >= 0:
        member.requests -= 1
        step_out(s, following)
        tell(s, member.meter, 0, -1, 0, 1)
        wake(s, following, 0)
    elif member.busy > 0:
        member.requests -= 1
        member.busy -= 1
        tell(s, member.meter, -1, 0, 0, 1)


# --- rows -----------------------------------------------------------------------------------------------------------


@inlined
def draw(s, law, stream, place):  # type: ignore[no-untyped-def]
    """A draw of a law at a place of a stream: as `draws.sample`."""
    its = law_at(s, law)
    if its.family == CONSTANT:
        return its.a
    key = key_at(s, stream).value
    if its.family == QUANTILES:
        x = uniform(key, place) * (its.size - 1)
        i = int(x)
        low = quantile_at(s, its.first + i).value
        return low + (quantile_at(s, its.first + i + 1).value - low) * (x - i)
    return closed_form(its.family, its.a, its.b, its.c, key, place)


@inlined
def cell_of(s, r, t, replica, stream):  # type: ignore[no-untyped-def]
    """The cell of a table that the row's message is about: as `simpy.Verbs.cell`."""
    row, table = row_at(s, r), table_at(s, t)
    if replica == BY_SESSION:
        replica = session_at(s, row.message).value % table.replicas
    elif replica == AT_RANDOM:
        replica = np.int64(uniform(key_at(s, stream).value, row.place) * table.replicas)
    return table.first + replica * table.size + number_at(s, beside(s, table.key, row.message)).value


@inlined
def read_field(s, r, field):  # type: ignore[no-untyped-def]
    """What a field of the row is."""
    row = row_at(s, r)
    message = max(row.message, 0)
    if field == KIND:
        x = np.int64(message_at(s, message).code)
    elif field == SKU:
        x = np.int64(sku_at(s, message).value)
    elif field == SESSION:
        x = np.int64(session_at(s, message).value)
    elif field == QUANTITY:
        x = np.int64(quantity_at(s, message).value)
    elif field == POISON:
        x = np.int64(message_at(s, message).poison)
    elif field == ATTEMPT:
        x = row.attempt
    elif field == DELIVERY_NUMBER:
        x = row.number
    elif field == RESULT:
        x = row.result
    elif field == LEVEL:
        x = row.level
    elif field == VERSION:
        x = row.version
    elif field == BATCH:
        x = row.batch
    elif field == NTH:
        x = row.nth
    elif field == MEMBER_NUMBER:
        x = row.member
    elif field == AWAITED:
        x = row.awaited
    else:
        which = field - CELLS
        cell = cell_at(s, cell_of(s, r, which >> 1, 0, NOWHERE))
        x = cell.version if which & 1 else cell.level
    return x


@njit(cache=True)
def linear(s, r, base, times, field):  # type: ignore[no-untyped-def]
    """As `simpy.Verbs.value`."""
    return base + times * read_field(s, r, field) if field >= 0 else base


@inlined
def duration(s, r, law, stream, field, per):  # type: ignore[no-untyped-def]
    """A draw that must be a time, and more where it grows with a field."""
    row = row_at(s, r)
    value = draw(s, law, stream, row.place)
    if field >= 0:
        value += per * read_field(s, r, field)
    if not 0.0 <= value < math.inf:
        s.error, s.stream, s.of_message, s.drawn = NO_TIME, stream, row.message, value
        return 0.0
    return value


@inlined
def entity(s, row):  # type: ignore[no-untyped-def]
    """As `simpy.Row.entity`."""
    return row.message if row.actor < 0 or row.message >= 0 else s.count + row.actor


@inlined
def sleep_until(s, r, time):  # type: ignore[no-untyped-def]
    """The row goes on at a time."""
    row = row_at(s, r)
    row.at = ASLEEP
    event(s, time, order.COMPLETION, entity(s, row), row.copy, 0, RESUME, r, row.seq)


@inlined
def serve(s, r, due):  # type: ignore[no-untyped-def]
    """The row goes on when its service is done."""
    sleep_until(s, r, due)
    row = row_at(s, r)
    row.at, row.due = SERVED, due


@inlined
def is_down(s, part):  # type: ignore[no-untyped-def]
    """Whether the part's process is dead."""
    return part >= 0 and part_at(s, part).down == 1


@inlined
def refuses(s, part):  # type: ignore[no-untyped-def]
    """As `simpy.Faults.refuses`."""
    return part >= 0 and (part_at(s, part).down == 1 or s.now < part_at(s, part).refuses)


@inlined
def opens(s, part):  # type: ignore[no-untyped-def]
    """As `simpy.Faults.opens`."""
    return part_at(s, part).shut if part >= 0 else -math.inf


@inlined
def serves(s, part):  # type: ignore[no-untyped-def]
    """As `simpy.Faults.serves`."""
    return part_at(s, part).down == 0 and s.now >= part_at(s, part).shut


@inlined
def hands_out(s, queue):  # type: ignore[no-untyped-def]
    """As `simpy.QueueState.hands_out`."""
    return not queue.closed and serves(s, queue.at) and not is_down(s, queue.consumers_at)


@inlined
def paused(s, part):  # type: ignore[no-untyped-def]
    """Until when the part stands still."""
    return part_at(s, part).paused if part >= 0 else -math.inf


@inlined
def goes_on(s, part):  # type: ignore[no-untyped-def]
    """As `simpy.Faults.goes_on`."""
    return max(s.now, paused(s, part))


@inlined
def travel(s, way, place):  # type: ignore[no-untyped-def]
    """How long it takes; -1 where it is lost."""
    w = way_at(s, way)
    if s.now < w.cut:
        return -1.0
    if w.keep < 1.0 and uniform(key_at(s, w.loss).value, place) >= w.keep:
        return -1.0
    return draw(s, w.law, w.stream, place)


@inlined
def next_copy(s, message):  # type: ignore[no-untyped-def]
    """The number of the next row made for a message."""
    m = message_at(s, message)
    m.copies += 1
    return m.copies


@njit(cache=True)
def new_row(s, message, part, place, pc):  # type: ignore[no-untyped-def]
    """A row that holds nothing; the table's last where there is no other."""
    n = s.rows_free
    if n == 0:
        s.error = ROWS_FULL
        return s.rows_size - 1
    s.rows_free = n - 1
    r = free_row_at(s, n - 1).value
    row = row_at(s, r)
    row.pc, row.message, row.part, row.place = pc, message, part, place
    row.copy = row.attempt = row.number = row.result = row.scopes = row.level = row.main = row.alive = 0
    row.at = row.thrown = row.depth = row.holding = 0
    row.version = row.delivery = row.answer_row = row.group = row.consumer = row.join = -1
    row.actor = row.hand = row.cursor = row.membership = row.keeps = -1
    row.batch = row.passes = row.nth = row.member = row.awaited = 0
    return r


@njit(cache=True)
def free_row(s, r):  # type: ignore[no-untyped-def]
    """The row is no more; what was to come comes for nobody."""
    row = row_at(s, r)
    row.seq += 1
    row.at, row.depth = RUNNING, 0
    if row.group >= 0:
        i = group_at(s, row.group).first + row.consumer
        if actor_at(s, i).value == r:
            actor_at(s, i).value = -1
    free_row_at(s, s.rows_free).value = r
    s.rows_free += 1


@njit(cache=True)
def think(s, customer, turn):  # type: ignore[no-untyped-def]
    """A customer's next message comes after thinking."""
    time = s.now + draw(s, s.think_law, s.think_stream, fold(fold(0, customer), turn))
    event(s, time, order.ARRIVAL, customer, 0, 0, CUSTOMER, customer, turn)


@njit(cache=True)
def bucket(time):  # type: ignore[no-untyped-def]
    """Where a time is counted: by its exponent and the first bits of its mantissa."""
    bits = np.float64(time).view(np.int64) >> (52 - MANTISSA)
    return min(max(bits - (LEAST_EXPONENT << MANTISSA), 0), SPREAD - 1)


@njit(cache=True)
def tally(s, message):  # type: ignore[no-untyped-def]
    """A message is over, and counted: as `metrics` counts it in a history."""
    m, kept = message_at(s, message), kept_at(s, beside(s, 0, message))
    kept.counted = 1
    issued = issued_at(s, message).value
    its, settled = tally_at(s, m.kind), max(issued, kept.last_effect)
    if not math.isnan(m.responded):
        settled = max(settled, m.responded)
    if m.alive == 0:
        its.settled_last = max(its.settled_last, settled)
    if m.alive == 0 and s.begins <= settled <= s.last_arrival:
        its.settled += 1
        done = m.applied if m.noted & APPLIED else m.responded if m.noted & ANSWERED else math.nan
        if m.duplicates == 0 and done - issued <= s.timeout:
            its.good += 1
    if m.attempts:
        its.attempted += 1
        its.attempts += m.attempts
    end = end_at(s, (m.kind * len(RESPONSES) + m.response) * 2 * NOTED + 2 * m.noted + (m.alive > 0))
    end.messages += 1
    end.units += quantity_at(s, message).value
    if m.duplicates:
        end.duplicated += 1
    if message < s.cut:
        return
    its.messages += 1
    if not math.isnan(m.responded):
        its.responded += m.responded - issued
        spread_at(s, 2 * m.kind * SPREAD + bucket(m.responded - issued)).count += 1
    if not math.isnan(m.applied):
        its.applied += m.applied - issued
        spread_at(s, (2 * m.kind + 1) * SPREAD + bucket(m.applied - issued)).count += 1


@njit(cache=True)
def ended(s, message):  # type: ignore[no-untyped-def]
    """As `simpy.Engine.ended`."""
    m = message_at(s, message)
    m.alive -= 1
    if m.alive == 0:
        if s.tallies_size:
            tally(s, message)
        s.open -= 1
        if s.population:
            customer = customer_at(s, message)
            if customer.number >= 0:
                think(s, customer.number, customer.turn + 1)
                customer.number = -1
        if s.open == 0 and s.stopped == 0:
            s.stopped = 1
            say(s, STOP, 0)


@njit(cache=True)
def put_down(s, r):  # type: ignore[no-untyped-def]
    """As `simpy.Row.put_down`."""
    row = row_at(s, r)
    e = row.hand
    row.hand, row.batch, row.passes = -1, 0, 0
    while e >= 0:
        entry = entry_at(s, e)
        free_entry_at(s, s.entries_free).value = e
        s.entries_free += 1
        e = entry.next
        ended(s, delivery_at(s, entry.delivery).message)
    if row.membership >= 0:
        i = row.membership
        row.membership = -1
        membership_at(s, i).in_hand -= 1
        rests(s, i)


@njit(cache=True)
def let_go(row, frame):  # type: ignore[no-untyped-def]
    """As `simpy.Row.let_go`."""
    row.message = row.delivery = row.answer_row = -1
    row.copy = row.number = row.nth = 0
    row.place, row.attempt = frame.place, frame.attempt


@njit(cache=True)
def new_turn(s, r):  # type: ignore[no-untyped-def]
    """An actor begins a turn."""
    row = row_at(s, r)
    actor = actor_at(s, group_at(s, row.group).first + row.consumer)
    row.place = fold(fold(0, -1 - row.actor), actor.turn)
    actor.turn += 1


@njit(cache=True)
def finish(s, r):  # type: ignore[no-untyped-def]
    """As `simpy.Engine.finish`: units return, whoever joins the row is told."""
    unwind(s, r, 0, False)
    if row_at(s, r).keeps >= 0:
        pass_on(s, r)
    done(s, r)


@njit(cache=True)
def done(s, r):  # type: ignore[no-untyped-def]
    """As `simpy.Engine.done`."""
    row = row_at(s, r)
    if row.actor >= 0:
        put_down(s, r)
        return
    if row.alive == 0:
        return
    row.alive = 0
    if row.join >= 0:
        join = join_at(s, row.join)
        join.branches -= 1
        join.needed -= 1
        if join.needed == 0 and join.row >= 0:
            wake(s, join.row, 0)
        if join.branches == 0:
            free_join_at(s, s.joins_free).value = row.join
            s.joins_free += 1
    ended(s, row.message)


@njit(cache=True)
def over(s, r):  # type: ignore[no-untyped-def]
    """The steps are done; whether the row goes on: a consumer does, with the event loop that it keeps, and an actor."""
    row = row_at(s, r)
    if row.group >= 0 and row.actor < 0:
        unwind(s, r, 0, False)
        done(s, r)
    else:
        finish(s, r)
    if row.group >= 0:
        row.delivery = row.message = -1
        row.pc = group_at(s, row.group).start
        if row.actor >= 0:
            new_turn(s, r)
        return True
    free_row(s, r)
    return False


@njit(cache=True)
def end_row(s, r):  # type: ignore[no-untyped-def]
    """The row ends here: lost in transit, or with its part."""
    finish(s, r)
    free_row(s, r)


@njit(cache=True)
def forget(s, r):  # type: ignore[no-untyped-def]
    """The row gives up what it waits for."""
    row = row_at(s, r)
    if row.at == ASLEEP or row.at == SERVED:
        row.seq += 1
    elif row.at == QUEUED:
        step_out(s, r)
        i = line_at(s, row.where).member
        if i >= 0:
            member = member_at(s, i)
            member.requests -= 1
            tell(s, member.meter, 0, -1, 0, 0)
    elif row.at == JOINING:
        join_at(s, row.where).row = -1


@njit(cache=True)
def kill(s, r):  # type: ignore[no-untyped-def]
    """The row ends wherever it is."""
    apart()
    forget(s, r)
    row_at(s, r).seq += 1
    end_row(s, r)


@njit(cache=True)
def child(s, r, pc):  # type: ignore[no-untyped-def]
    """As `simpy.Engine.child`."""
    parent = row_at(s, r)
    c = new_row(s, parent.message, parent.part, parent.place, pc)
    row = row_at(s, c)
    row.copy = next_copy(s, parent.message)
    row.level, row.version, row.result, row.attempt = parent.level, parent.version, parent.result, parent.attempt
    row.answer_row, row.answer_call = parent.answer_row, parent.answer_call
    row.delivery, row.number = parent.delivery, parent.number
    message_at(s, parent.message).alive += 1
    row.alive = 1
    wake(s, c, 0)
    return c


@njit(cache=True)
def hedge(s, r, frame, pc):  # type: ignore[no-untyped-def]
    """Two tries of what begins at `pc` with the second's delay. Their places in the table may be used again: the copy tells."""
    row = row_at(s, r)
    row.calls += 1
    for i in range(2):
        c = child(s, r, pc + 1 - i)
        one = row_at(s, c)
        one.place, one.attempt = fold(row.place, i), 2 * max(row.attempt, 1) - 1 + i
        one.answer_row, one.answer_call = r, row.calls
        if i == 0:
            frame.first, frame.copy = c, one.copy
        else:
            frame.second = c


@njit(cache=True)
def give_up(s, r, frame):  # type: ignore[no-untyped-def]
    """As `simpy.Verbs.give_up`."""
    for i in range(2):
        c = frame.second if i else frame.first
        one = row_at(s, c)
        if one.alive and one.message == row_at(s, r).message and one.copy == frame.copy + i:
            kill(s, c)


@njit(cache=True)
def give_answer(s, r, result):  # type: ignore[no-untyped-def]
    """As `simpy.Verbs.give_answer`. A row's place in the table is used again, its count of calls goes on."""
    row = row_at(s, r)
    if row.answer_row < 0:
        return
    caller = row_at(s, row.answer_row)
    if caller.at == CALLING and caller.calls == row.answer_call:
        caller.level, caller.version, caller.result = row.level, row.version, result
        wake(s, row.answer_row, FAILED if result == FAILED else 0)


@njit(cache=True)
def respond(s, message, response):  # type: ignore[no-untyped-def]
    """The first response counts."""
    m = message_at(s, message)
    if math.isnan(m.responded):
        m.responded, m.response = s.now, response


@inlined
def enter(s, r, kind, pc):  # type: ignore[no-untyped-def]
    """The row goes into a scope."""
    row = row_at(s, r)
    frame = frame_at(s, r * s.most_scopes + row.depth)
    row.depth += 1
    frame.pc, frame.kind, frame.place, frame.attempt, frame.part = pc, kind, row.place, row.attempt, row.part
    frame.holding, frame.turn, frame.unheard, frame.ticket = row.holding, 0, 0, 0
    return frame


@inlined
def leave(s, r):  # type: ignore[no-untyped-def]
    """The row goes out of its innermost scope, whose timer is nobody's from now on."""
    row = row_at(s, r)
    row.depth -= 1
    frame = frame_at(s, r * s.most_scopes + row.depth)
    if frame.ticket > 0:
        row.scopes -= 1
        frame.ticket = 0
    if frame.kind == BY_ATTEMPT:
        row.place = frame.place
    elif frame.kind == FOR_EACH:
        let_go(row, frame)
    return frame


@njit(cache=True)
def limit(s, r, frame, time, length):  # type: ignore[no-untyped-def]
    """The scope's time is up after a time, which may be one of the lengths of timers."""
    row = row_at(s, r)
    row.scopes += 1
    row.ticket += 1
    frame.ticket = row.ticket
    key = key_of(s, order.TIMER, entity(s, row), row.copy, row.scopes)
    if length >= 0:
        set_timer(s, length, s.now + time, key, EXPIRE, r, row.ticket)
    else:
        push(s, s.now + time, key, (np.int64(EXPIRE) << 40) | np.int64(r), row.ticket)


@njit(cache=True)
def back_to(s, r, frame):  # type: ignore[no-untyped-def]
    """As `simpy.Row.back_to`; -1 where the row ends."""
    row = row_at(s, r)
    row.place, row.attempt, row.part = frame.place, frame.attempt, frame.part
    unwind(s, r, frame.holding, True)
    if is_down(s, row.part):
        end_row(s, r)
        return -1.0
    return goes_on(s, row.part)


@njit(cache=True)
def affords(s, b):  # type: ignore[no-untyped-def]
    """As `simpy.Verbs.affords`."""
    if b < 0:
        return True
    budget = budget_at(s, b)
    if budget.paid < 1.0:
        return False
    budget.paid -= 1.0
    return True


@njit(cache=True)
def ready(s, r, time):  # type: ignore[no-untyped-def]
    """Whether a row that is back goes on at once; where it does not end, it does at a time."""
    if time > s.now:
        sleep_until(s, r, time)
    return time == s.now


@njit(cache=True)
def fail(s, r, result):  # type: ignore[no-untyped-def]
    """The row's step failed; whether it goes on at once."""
    apart()
    row = row_at(s, r)
    while row.depth > 0:
        frame = frame_at(s, r * s.most_scopes + row.depth - 1)
        if frame.kind == RESCUE:
            row.result = result
            leave(s, r)
            row.pc = op_at(s, frame.pc).a
            return ready(s, r, back_to(s, r, frame))
        if frame.kind == RETRY:
            row.result = result
            if result == TIMED_OUT:
                frame.unheard = 1
            time = back_to(s, r, frame)
            if time < 0.0:
                return False
            pc = frame.pc
            if frame.turn < op_at(s, pc).c and affords(s, op_at(s, op_at(s, pc).e).b):
                wait = wait_at(s, op_at(s, pc).b + frame.turn).value
                if op_at(s, pc).d >= 0:
                    wait *= uniform(key_at(s, op_at(s, pc).d).value, fold(frame.place, frame.turn))
                frame.turn += 1
                row.pc = op_at(s, pc).e
                sleep_until(s, r, time + wait)
                return False
            if frame.unheard:
                row.result = TIMED_OUT
            leave(s, r)
            row.pc = op_at(s, pc).a
            return ready(s, r, time)
        if frame.kind == HEDGE:
            give_up(s, r, frame)
        leave(s, r)
    row.result = result
    if row.main:
        respond(s, row.message, result)
    return over(s, r)


@njit(cache=True)
def expire(s, r, ticket):  # type: ignore[no-untyped-def]
    """The time of one of the row's scopes is up, unless it has left it."""
    apart()
    row = row_at(s, r)
    for i in range(row.depth):
        if frame_at(s, r * s.most_scopes + i).ticket == ticket:
            until = paused(s, frame_at(s, r * s.most_scopes + i).part)
            if s.now < until:
                put_off(s, until, EXPIRE, r, ticket)
                return
            forget(s, r)
            wake(s, r, TIMED_OUT if frame_at(s, r * s.most_scopes + i).kind == CALL else SCOPE + i)
            return


# --- queues ---------------------------------------------------------------------------------------------------------


@inlined
def delivery_place(s, d, number):  # type: ignore[no-untyped-def]
    """As `simpy.Delivery.place`."""
    delivery = delivery_at(s, d)
    place = fold(fold(0, delivery.message), number - 1)
    return fold(place, delivery.copy) if delivery.copy else place


@inlined
def take_delivery(s, r, d, number):  # type: ignore[no-untyped-def]
    """As `simpy.QueueState.take`."""
    row, delivery = row_at(s, r), delivery_at(s, d)
    row.message, row.delivery = delivery.message, d
    row.place = delivery_place(s, d, number)
    row.copy = next_copy(s, delivery.message)
    row.level, row.version, row.result = delivery.level, delivery.version, delivery.result
    row.answer_row, row.answer_call = delivery.answer_row, delivery.answer_call
    row.attempt = row.number = number
    row.alive = 1


@inlined
def reach(s, d, number, i):  # type: ignore[no-untyped-def]
    """A delivery reaches the consumers of a slot."""
    delivery_at(s, d)
    slot = slot_at(s, i)
    r = line_at(s, slot.idle).first
    if r >= 0:
        step_out(s, r)
        take_delivery(s, r, d, number)
        row_at(s, r).awaited = 1
        wake(s, r, 0)
        return
    n = s.entries_free
    if n == 0:
        s.error = ENTRIES_FULL
        return
    s.entries_free = n - 1
    e = free_entry_at(s, n - 1).value
    entry = entry_at(s, e)
    entry.delivery, entry.number, entry.next = d, number, -1
    if slot.last >= 0:
        entry_at(s, slot.last).next = e
    else:
        slot.first = e
    slot.last = e


@inlined
def arrive(s, d, more, key):  # type: ignore[no-untyped-def]
    """A delivery, its number and slot in `more`, comes to the consumers' part."""
    delivery = delivery_at(s, d)
    at = queue_at(s, delivery.queue).consumers_at
    if is_down(s, at):
        ended(s, delivery.message)
    elif s.now < opens(s, at):
        push(s, opens(s, at), key, (np.int64(DELIVER) << 40) | np.int64(d), more)
    else:
        reach(s, d, more >> 32, more & 0xFFFFFFFF)


@njit(cache=True)
def first_entry(s, slot):  # type: ignore[no-untyped-def]
    """The first of a buffer, which leaves it."""
    e = slot.first
    slot.first = entry_at(s, e).next
    if slot.first < 0:
        slot.last = -1
    free_entry_at(s, s.entries_free).value = e
    s.entries_free += 1
    return entry_at(s, e)


@njit(cache=True)
def drop_buffers(s, queue):  # type: ignore[no-untyped-def]
    """As `simpy.QueueState.part_crashed`."""
    for i in range(queue.first, queue.first + queue.slots):
        while slot_at(s, i).first >= 0:
            ended(s, delivery_at(s, first_entry(s, slot_at(s, i)).delivery).message)


@njit(cache=True)
def returned(s, d):  # type: ignore[no-untyped-def]
    """As `simpy.QueueState._returned`."""
    delivery = delivery_at(s, d)
    delivery.ticket += 1
    if delivery.out:
        delivery.out = 0
        slot_at(s, delivery.slot).out -= 1
        tell(s, queue_at(s, delivery.queue).meter, 0, 0, -1, 0)


@njit(cache=True)
def close(s, d):  # type: ignore[no-untyped-def]
    """As `simpy.QueueState._close`."""
    returned(s, d)
    delivery_at(s, d).settled = 1
    delivery_at(s, d).changed = -math.inf
    ended(s, delivery_at(s, d).message)


@inlined
def write_due(queue, now):  # type: ignore[no-untyped-def]
    """As `simpy.QueueState._write`."""
    if now >= queue.due:
        queue.written, queue.due = queue.due, math.inf


@njit(cache=True)
def note(s, d):  # type: ignore[no-untyped-def]
    """As `simpy.QueueState.note`."""
    queue = queue_at(s, delivery_at(s, d).queue)
    if math.isnan(queue.state_every):
        return
    write_due(queue, s.now)
    delivery_at(s, d).changed = s.now
    if queue.due == math.inf:
        if s.now - queue.written >= queue.state_every:
            queue.written = s.now
        else:
            queue.due = queue.written + queue.state_every


@njit(cache=True)
def lend(s, d, i):  # type: ignore[no-untyped-def]
    """As `simpy.QueueState._lend`."""
    delivery = delivery_at(s, d)
    queue, message = queue_at(s, delivery.queue), delivery.message
    delivery.number += 1
    delivery.slot, delivery.out = i, 1
    message_at(s, message).deliveries += 1
    message_at(s, message).alive += 1
    copy = next_copy(s, message)
    tell(s, queue.meter, 0, -1, 1, 0)
    slot_at(s, i).out += 1
    if queue.automatic_ack:
        close(s, d)
        tell(s, queue.meter, 0, 0, 0, 1)
    elif not math.isnan(queue.ack_wait):
        delivery.ticket += 1
        key = key_of(s, order.TIMER, message, copy, 1)
        set_timer(s, queue.wait_length, s.now + queue.ack_wait, key, UNACKED, d, delivery.ticket)
    note(s, d)
    return copy


@njit(cache=True)
def available(s, q):  # type: ignore[no-untyped-def]
    """As `simpy.QueueState.available`."""
    queue = queue_at(s, q)
    if not hands_out(s, queue):
        return 0
    if queue.prefetch < 0:
        return queue.waiting
    return min(queue.waiting, queue.prefetch - slot_at(s, queue.first).out)


@njit(cache=True)
def available_to(s, row, q):  # type: ignore[no-untyped-def]
    """As `simpy.QueueState.available_to`."""
    queue = queue_at(s, q)
    return available(s, q) if queue.coordinator < 0 or row.part == queue.consumers_at else 0


@njit(cache=True)
def see(s, q):  # type: ignore[no-untyped-def]
    """As `simpy.Watchers.see`: what a row waits for stands in its operation, which it does again."""
    level, queue = available(s, q), queue_at(s, q)
    r = line_at(s, queue.watchers).first
    while r >= 0:
        row = row_at(s, r)
        following = row.next
        if level >= op_at(s, row.pc).b and (queue.coordinator < 0 or row.part == queue.consumers_at):
            step_out(s, r)
            wake(s, r, 0)
        r = following


@njit(cache=True)
def fetch(s, r, q, at_most):  # type: ignore[no-untyped-def]
    """As `simpy.QueueState.fetch`."""
    row, queue = row_at(s, r), queue_at(s, q)
    count = available_to(s, row, q)
    if 0 <= at_most < count:
        count = at_most
    if count and queue.coordinator >= 0:
        row.membership = membership(s, queue.coordinator, row.part)
        membership_at(s, row.membership).in_hand += 1
    last = -1
    for _ in range(count):
        n = s.entries_free
        if n == 0:
            s.error = ENTRIES_FULL
            return
        s.entries_free = n - 1
        d = queue.ready
        take_out(s, q, d)
        lend(s, d, queue.first)
        e = free_entry_at(s, n - 1).value
        entry = entry_at(s, e)
        entry.delivery, entry.number, entry.next = d, delivery_at(s, d).number, -1
        if last >= 0:
            entry_at(s, last).next = e
        else:
            row.hand = e
        row.batch += 1
        last = e


@njit(cache=True)
def take_up(s, r):  # type: ignore[no-untyped-def]
    """As `simpy.Row.take_up`, the next of the batch."""
    row = row_at(s, r)
    entry = entry_at(s, row.cursor)
    row.cursor = entry.next
    delivery = delivery_at(s, entry.delivery)
    row.message, row.delivery, row.copy = delivery.message, entry.delivery, next_copy(s, delivery.message)
    row.place = delivery_place(s, entry.delivery, entry.number)
    if row.passes > 1:
        row.place = fold(row.place, row.passes - 1)
    row.level, row.version, row.result = delivery.level, delivery.version, delivery.result
    row.answer_row, row.answer_call = delivery.answer_row, delivery.answer_call
    row.attempt = row.number = entry.number
    row.nth += 1


@njit(cache=True)
def hand_out(s, d, i):  # type: ignore[no-untyped-def]
    """As `simpy.QueueState._hand_out`."""
    delivery = delivery_at(s, d)
    queue, message = queue_at(s, delivery.queue), delivery.message
    copy, number = lend(s, d, i), delivery.number
    more = (np.int64(number) << 32) | np.int64(i)
    if queue.there < 0 and queue.dispatch < 0:
        arrive(s, d, more, key_of(s, order.COMPLETION, message, copy, 0))
        return
    place = delivery_place(s, d, number)
    time = travel(s, queue.there, place) if queue.there >= 0 else 0.0
    if time < 0.0:
        ended(s, message)
        return
    if queue.dispatch >= 0:
        time += draw(s, queue.dispatch, queue.dispatch_stream, place)
    due = s.now + time
    if queue.keeps:
        due = slot_at(s, i).latest = max(due, np.nextafter(slot_at(s, i).latest, np.inf))
    event(s, due, order.COMPLETION, message, copy, 0, DELIVER, d, more)


@njit(cache=True)
def dispatch(s, q):  # type: ignore[no-untyped-def]
    """As `simpy.QueueState.dispatch`."""
    deal(s, q, 1)


@njit(cache=True)
def subscribe(s, q):  # type: ignore[no-untyped-def]
    """As `simpy.QueueState.subscribe`."""
    queue_at(s, q).turn = 0
    deal(s, q, 0)


@njit(cache=True)
def deal(s, q, step):  # type: ignore[no-untyped-def]
    """Hand out what is ready while there is credit, the next by so many `step`s from the one before."""
    queue = queue_at(s, q)
    if queue.watchers >= 0:
        see(s, q)
        return
    if not hands_out(s, queue):
        return
    n = queue.slots
    while queue.ready >= 0 and n > 0:
        found = -1
        for i in range(n):
            turn = (queue.turn + i) % n
            if queue.prefetch < 0 or slot_at(s, queue.first + turn).out < queue.prefetch:
                found = turn
                break
        if found < 0:
            return
        queue.turn = (found + step) % n
        d = queue.ready
        take_out(s, q, d)
        hand_out(s, d, queue.first + found)


@njit(cache=True)
def take_out(s, q, d):  # type: ignore[no-untyped-def]
    """The delivery is no longer among the ready; `urgent` is the last of the urgent ones."""
    queue, delivery = queue_at(s, q), delivery_at(s, d)
    queue.waiting -= 1
    if queue.urgent == d:
        queue.urgent = delivery.last
    if delivery.last >= 0:
        delivery_at(s, delivery.last).next = delivery.next
    else:
        queue.ready = delivery.next
    if delivery.next >= 0:
        delivery_at(s, delivery.next).last = delivery.last
    else:
        queue.end = delivery.last


@njit(cache=True)
def put_in(s, q, d, at_head):  # type: ignore[no-untyped-def]
    """As `simpy.QueueState._join`."""
    queue, delivery = queue_at(s, q), delivery_at(s, d)
    queue.waiting += 1
    if delivery.urgent:
        before = -1 if at_head else queue.urgent
        if before == queue.urgent:
            queue.urgent = d
    else:
        before = queue.urgent if at_head else queue.end
    delivery.last = before
    if before >= 0:
        delivery.next, delivery_at(s, before).next = delivery_at(s, before).next, d
    else:
        delivery.next, queue.ready = queue.ready, d
    if delivery.next >= 0:
        delivery_at(s, delivery.next).last = d
    else:
        queue.end = d
    tell(s, queue.meter, 0, 1, 0, 0)
    overtake(s, q, d)
    if 0 <= queue.length < queue.waiting and not queue.refuses:
        drop_ready(s, q, queue.ready, 0)


@njit(cache=True)
def drop_ready(s, q, d, note):  # type: ignore[no-untyped-def]
    """As `simpy.QueueState._drop`."""
    queue = queue_at(s, q)
    take_out(s, q, d)
    tell(s, queue.meter, 0, -1, 0, 0)
    message_at(s, delivery_at(s, d).message).noted |= DEAD_LETTERED if queue.dead_letter else note
    close(s, d)


@njit(cache=True)
def overtake(s, q, d):  # type: ignore[no-untyped-def]
    """As `simpy.QueueState.overtake`: deliveries are numbered as they were published."""
    queue = queue_at(s, q)
    if not queue.coalesce:
        return
    sku, other = sku_at(s, delivery_at(s, d).message).value, queue.ready
    while other >= 0:
        if other != d and sku_at(s, delivery_at(s, other).message).value == sku:
            older = min(other, d)
            take_out(s, q, older)
            tell(s, queue.meter, 0, -1, 0, 0)
            message_at(s, delivery_at(s, older).message).noted |= SUPERSEDED
            close(s, older)
            return
        other = delivery_at(s, other).next


@inlined
def is_over(s, message):  # type: ignore[no-untyped-def]
    """Whether nothing of a message is alive, so that nothing will refer to its deliveries."""
    return message < s.drawn_ahead - s.messages_size or message_at(s, message).alive == 0


@inlined
def oldest(s):  # type: ignore[no-untyped-def]
    """The oldest delivery that there still is."""
    return max(0, s.delivered - s.deliveries_size)


@njit(cache=True)
def publish(s, r, q, urgent):  # type: ignore[no-untyped-def]
    """As `simpy.QueueState.publish`; whether the queue took it."""
    row, queue, now = row_at(s, r), queue_at(s, q), s.now
    message, known = row.message, not math.isnan(queue.deduplicate)
    if known and now - seen_at(s, beside(s, q, message)).value <= queue.deduplicate:
        return True
    if 0 <= queue.length <= queue.waiting and queue.refuses:
        return False
    if known:
        seen_at(s, beside(s, q, message)).value = now
    copy = published_at(s, beside(s, q, message)).value
    published_at(s, beside(s, q, message)).value = copy + 1
    d = s.delivered
    if d >= s.deliveries_size and not (s.deliveries_window >= 0 and is_over(s, delivery_at(s, d).message)):
        s.error = DELIVERIES_FULL
        return True
    s.delivered = d + 1
    delivery = delivery_at(s, d)
    delivery.id, delivery.queue, delivery.message, delivery.copy = d, q, message, copy
    delivery.number = delivery.slot = delivery.out = delivery.settled = 0
    delivery.level, delivery.version, delivery.result = row.level, row.version, row.result
    delivery.answer_row, delivery.answer_call = row.answer_row, row.answer_call
    delivery.ticket += 1
    delivery.published, delivery.urgent, delivery.changed = now, urgent, -math.inf
    if not math.isnan(queue.ttl):
        event(s, now + queue.ttl, order.TIMER, message, next_copy(s, message), 1, TOO_OLD, d, 0)
    message_at(s, message).alive += 1
    put_in(s, q, d, False)
    dispatch(s, q)
    return True


@njit(cache=True)
def revive(s, message):  # type: ignore[no-untyped-def]
    """One more of a message is alive, which may have been over."""
    m = message_at(s, message)
    if m.alive == 0:
        s.open += 1
    m.alive += 1


@njit(cache=True)
def seek(s, q):  # type: ignore[no-untyped-def]
    """As `simpy.QueueState.seek`: what was lost with the power is gone for good."""
    queue = queue_at(s, q)
    drop_buffers(s, queue)
    for d in range(oldest(s), s.delivered):
        delivery = delivery_at(s, d)
        if delivery.queue != q or delivery.settled == LOST:
            continue
        if delivery.settled:
            delivery.settled = 0
            revive(s, delivery.message)
        elif delivery.out:
            returned(s, d)
        else:
            take_out(s, q, d)
            tell(s, queue.meter, 0, -1, 0, 0)
        put_in(s, q, d, False)
    dispatch(s, q)


@njit(cache=True)
def settle(s, d, number):  # type: ignore[no-untyped-def]
    """As `simpy.QueueState.settle`."""
    delivery = delivery_at(s, d)
    if delivery.settled:
        return
    q = delivery.queue
    if (not delivery.out or delivery.number != number) and not math.isnan(queue_at(s, q).detected_after):
        return
    if not delivery.out:
        take_out(s, q, d)
        tell(s, queue_at(s, q).meter, 0, -1, 0, 0)
    close(s, d)
    delivery_at(s, d).changed = s.now
    note(s, d)
    tell(s, queue_at(s, q).meter, 0, 0, 0, 1)
    dispatch(s, q)


@njit(cache=True)
def is_last(queue, number):  # type: ignore[no-untyped-def]
    """As `simpy.QueueState.last`."""
    return queue.max_deliveries >= 0 and number >= queue.max_deliveries


@njit(cache=True)
def put_back(s, d):  # type: ignore[no-untyped-def]
    """As `simpy.QueueState._put_back`."""
    delivery = delivery_at(s, d)
    q = delivery.queue
    if is_last(queue_at(s, q), delivery.number):
        if queue_at(s, q).dead_letter:
            message_at(s, delivery.message).noted |= DEAD_LETTERED
        close(s, d)
    else:
        returned(s, d)
        come_again(s, d)


@njit(cache=True)
def come_again(s, d):  # type: ignore[no-untyped-def]
    """The delivery is ready again, where it is not too old by now."""
    delivery = delivery_at(s, d)
    q = delivery.queue
    put_in(s, q, d, queue_at(s, q).requeue_back == 0)
    if not delivery.settled and s.now >= delivery.published + queue_at(s, q).ttl:
        drop_ready(s, q, d, EXPIRED)


@njit(cache=True)
def forget_unwritten(s, q):  # type: ignore[no-untyped-def]
    """As `simpy.QueueState.forget_unwritten`."""
    queue = queue_at(s, q)
    if math.isnan(queue.state_every):
        return
    write_due(queue, s.now)
    first = oldest(s)
    for i in range(first, s.delivered):
        d = i if queue.requeue_back else s.delivered - 1 - i + first
        delivery = delivery_at(s, d)
        if delivery.queue != q:
            continue
        unwritten = delivery.changed > queue.written
        delivery.changed = -math.inf
        if unwritten and delivery.settled:
            delivery.settled = 0
            revive(s, delivery.message)
            come_again(s, d)
        elif unwritten and delivery.out:
            returned(s, d)
            come_again(s, d)
    queue.written, queue.due = -math.inf, math.inf


@njit(cache=True)
def disconnect(s, q):  # type: ignore[no-untyped-def]
    """As `simpy.QueueState.disconnect`."""
    queue_at(s, q).closed = 1
    put_all_back(s, q)


@njit(cache=True)
def put_all_back(s, q):  # type: ignore[no-untyped-def]
    """As `simpy.QueueState._put_all_back`: deliveries are numbered as they were published."""
    first = oldest(s)
    for i in range(first, s.delivered):
        d = i if queue_at(s, q).requeue_back else s.delivered - 1 - i + first
        if delivery_at(s, d).queue == q and delivery_at(s, d).out:
            put_back(s, d)


@njit(cache=True)
def forget_uncommitted(s, q):  # type: ignore[no-untyped-def]
    """As `simpy.QueueState.forget_uncommitted`."""
    queue = queue_at(s, q)
    if math.isnan(queue.commit_every):
        return
    committed = max(math.floor(s.now / queue.commit_every) * queue.commit_every, queue.given)
    for d in range(oldest(s), s.delivered):
        delivery = delivery_at(s, d)
        if delivery.queue == q and delivery.settled == 1 and delivery.changed > committed:
            delivery.settled, delivery.out = 0, 1
            revive(s, delivery.message)
            slot_at(s, delivery.slot).out += 1
            tell(s, queue.meter, 0, 0, 1, 0)


@njit(cache=True)
def lose_sight(s, q, restart):  # type: ignore[no-untyped-def]
    """As `simpy.Faults._lose_sight`."""
    forget_uncommitted(s, q)
    after = queue_at(s, q).detected_after
    if after < restart:
        event(s, s.now + after, order.FAULT, s.struck, 2 + q, 0, NOTICE, q, 0)


@njit(cache=True)
def power_lost(s, q):  # type: ignore[no-untyped-def]
    """As `simpy.QueueState.power_lost`."""
    queue = queue_at(s, q)
    if math.isnan(queue.flush_every):
        return
    flushed = math.floor(s.now / queue.flush_every) * queue.flush_every
    for d in range(oldest(s), s.delivered):
        delivery = delivery_at(s, d)
        if delivery.queue == q and delivery.published > flushed:
            if not delivery.settled:
                if not delivery.out:
                    take_out(s, q, d)
                    tell(s, queue.meter, 0, -1, 0, 0)
                if not math.isnan(queue.deduplicate):
                    seen_at(s, beside(s, q, delivery.message)).value = -math.inf
                close(s, d)
            delivery.settled = LOST


@njit(cache=True)
def hand_back(s, d, number):  # type: ignore[no-untyped-def]
    """As `simpy.QueueState.hand_back`."""
    delivery = delivery_at(s, d)
    if delivery.settled or not delivery.out or delivery.number != number:
        return
    if queue_at(s, delivery.queue).keeps:
        drop_buffers(s, queue_at(s, delivery.queue))
        put_all_back(s, delivery.queue)
    else:
        put_back(s, d)
    dispatch(s, delivery.queue)


@njit(cache=True)
def overdue(s, d):  # type: ignore[no-untyped-def]
    """As `simpy.QueueState.overdue`."""
    queue = queue_at(s, delivery_at(s, d).queue)
    if queue.coordinator < 0:
        hand_back(s, d, delivery_at(s, d).number)
    else:
        throw_out(s, membership(s, queue.coordinator, queue.consumers_at))


@njit(cache=True)
def refuse(s, d, number, delay):  # type: ignore[no-untyped-def]
    """A refusal reaches the broker."""
    delivery = delivery_at(s, d)
    if delay == 0.0 or is_last(queue_at(s, delivery.queue), number):
        hand_back(s, d, number)
    elif delivery.out and delivery.number == number:
        delivery.ticket += 1
        copy = next_copy(s, delivery.message)
        event(s, s.now + delay, order.TIMER, delivery.message, copy, 1, UNACKED, d, delivery.ticket)


@njit(cache=True)
def settle_batch(s, r, pc, kind):  # type: ignore[no-untyped-def]
    """As `simpy.Verbs.settle_over`, of a whole batch."""
    apart()
    row = row_at(s, r)
    entries = np.empty(row.batch, np.int64)
    e = row.hand
    for i in range(row.batch):
        entries[i] = e
        e = entry_at(s, e).next
    count, backwards = row.batch, False
    if kind == NACKED and count:
        backwards = queue_at(s, delivery_at(s, entry_at(s, row.hand).delivery).queue).requeue_back == 0
    for i in range(count):
        entry = entry_at(s, entries[count - 1 - i if backwards else i])
        if kind == ACKED:
            settle(s, entry.delivery, entry.number)
        else:
            refuse(s, entry.delivery, entry.number, op_at(s, pc).real)


@njit(cache=True)
def settle_over(s, r, pc, kind):  # type: ignore[no-untyped-def]
    """As `simpy.Verbs.settle_over`."""
    row = row_at(s, r)
    if row.actor >= 0 and row.delivery < 0:
        settle_batch(s, r, pc, kind)
        return
    d, number = row.delivery, row.number
    if d < 0 or delivery_at(s, d).settled:
        return
    queue = queue_at(s, delivery_at(s, d).queue)
    if queue.there < 0:
        if kind == ACKED:
            settle(s, d, number)
        else:
            refuse(s, d, number, op_at(s, pc).real)
        return
    time = travel(s, queue.back_one if row.part == queue.one else queue.back_other, row.place)
    if time >= 0.0:
        copy = next_copy(s, row.message)
        more = (np.int64(number) << 32) | np.int64(pc)
        event(s, s.now + time, order.COMPLETION, row.message, copy, 0, kind, d, more)


# --- coordinators ---------------------------------------------------------------------------------------------------


@njit(cache=True)
def membership(s, c, part):  # type: ignore[no-untyped-def]
    """The membership of a part in a coordinator's group; -1 where it is no member."""
    coordinator = coordinator_at(s, c)
    for i in range(coordinator.first, coordinator.first + coordinator.members):
        if membership_at(s, i).part == part:
            return i
    return -1


@njit(cache=True)
def group_of(s, i):  # type: ignore[no-untyped-def]
    """The coordinator whose membership it is."""
    c = 0
    while i >= coordinator_at(s, c).first + coordinator_at(s, c).members:
        c += 1
    return c


@njit(cache=True)
def group_event(s, time, c, what, slot, kind, of, more):  # type: ignore[no-untyped-def]
    """A timed event of a group, under the key that `simpy.CoordinatorState.key` gives it."""
    event(s, time, order.FAULT, s.struck, 2 + s.queues_size + what * s.coordinators_size + c, slot, kind, of, more)


@njit(cache=True)
def died(s, i):  # type: ignore[no-untyped-def]
    """As `simpy.CoordinatorState.died`."""
    gives_up(s, i)
    member = membership_at(s, i)
    if member.known:
        member.known = 0
        member.unnoticed += 1
        notice(s, i)


@njit(cache=True)
def notice(s, i):  # type: ignore[no-untyped-def]
    """As `simpy.CoordinatorState.notice`."""
    c = group_of(s, i)
    coordinator = coordinator_at(s, c)
    due = s.now + coordinator.session_timeout
    group_event(s, due, c, 0, i - coordinator.first, SESSION_OVER, i, coordinator.session)


@njit(cache=True)
def session_over(s, i, session):  # type: ignore[no-untyped-def]
    """The session of a dead member is over."""
    c = group_of(s, i)
    if coordinator_at(s, c).session == session and not is_down(s, coordinator_at(s, c).at):
        membership_at(s, i).unnoticed -= 1
        put_back_of(s, c, membership_at(s, i).part)
        rebalance(s, c)


@njit(cache=True)
def stands_still(s, i):  # type: ignore[no-untyped-def]
    """As `simpy.CoordinatorState.stands_still`."""
    c = group_of(s, i)
    coordinator, member = coordinator_at(s, c), membership_at(s, i)
    member.patience = s.now + coordinator.session_timeout
    group_event(s, member.patience, c, 1, i - coordinator.first, SILENT, i, 0)


@njit(cache=True)
def silent(s, i):  # type: ignore[no-untyped-def]
    """The time for which a member may stand still is over."""
    member = membership_at(s, i)
    if member.patience == s.now < goes_on(s, member.part) and not is_down(s, coordinator_at(s, group_of(s, i)).at):
        throw_out(s, i)


@njit(cache=True)
def throw_out(s, i):  # type: ignore[no-untyped-def]
    """As `simpy.CoordinatorState.throw_out`."""
    member = membership_at(s, i)
    if not member.known:
        return
    gives_up(s, i)
    member.known = 0
    put_back_of(s, group_of(s, i), member.part)
    rebalance(s, group_of(s, i))


@njit(cache=True)
def gives_up(s, i):  # type: ignore[no-untyped-def]
    """As `simpy.CoordinatorState.gives_up`."""
    c, member = group_of(s, i), membership_at(s, i)
    for q in range(s.queues_size):
        queue = queue_at(s, q)
        if queue.coordinator == c and queue.consumers_at == member.part and not (queue.closed and member.joined):
            forget_uncommitted(s, q)
            queue.closed = 1


@njit(cache=True)
def put_back_of(s, c, part):  # type: ignore[no-untyped-def]
    """As `simpy.CoordinatorState.put_back`."""
    for q in range(s.queues_size):
        queue = queue_at(s, q)
        if queue.coordinator == c and queue.consumers_at == part and queue.closed:
            put_all_back(s, q)


@njit(cache=True)
def rests(s, i):  # type: ignore[no-untyped-def]
    """As `simpy.CoordinatorState.rests`."""
    member, c = membership_at(s, i), group_of(s, i)
    if not at_rest(s, member):
        return
    if not member.known:
        member.known = 1
        rebalance(s, c)
    elif coordinator_at(s, c).rebalancing:
        member.joined = 1
        share_out_later(s, c)


@njit(cache=True)
def at_rest(s, member):  # type: ignore[no-untyped-def]
    """As `simpy.CoordinatorState.at_rest`."""
    return not is_down(s, member.part) and goes_on(s, member.part) == s.now and member.in_hand == 0


@njit(cache=True)
def rests_at(s, c, part):  # type: ignore[no-untyped-def]
    """What goes on at a part, where that is a member, rests."""
    i = membership(s, c, part)
    if i >= 0:
        rests(s, i)


@njit(cache=True)
def rebalance(s, c):  # type: ignore[no-untyped-def]
    """As `simpy.CoordinatorState.rebalance`."""
    coordinator = coordinator_at(s, c)
    coordinator.generation += 1
    coordinator.rebalancing, coordinator.sharing = 1, 0
    if not coordinator.cooperative:
        for q in range(s.queues_size):
            if queue_at(s, q).coordinator == c:
                queue_at(s, q).closed = 1
    for i in range(coordinator.first, coordinator.first + coordinator.members):
        member = membership_at(s, i)
        member.joined = 1 if member.known and at_rest(s, member) else 0
    share_out_later(s, c)


@njit(cache=True)
def share_out_later(s, c):  # type: ignore[no-untyped-def]
    """As `simpy.CoordinatorState.share_out_later`."""
    coordinator, known = coordinator_at(s, c), 0
    if coordinator.sharing or not coordinator.rebalancing or is_down(s, coordinator.at):
        return
    for i in range(coordinator.first, coordinator.first + coordinator.members):
        member = membership_at(s, i)
        if member.joined != member.known or member.unnoticed:
            return
        known += member.known
    if known:
        coordinator.sharing = 1
        time = s.now + draw(s, coordinator.law, coordinator.stream, fold(0, coordinator.generation))
        group_event(s, time, c, 2, 0, SHARE_OUT, c, coordinator.generation)


@njit(cache=True)
def share_out(s, c):  # type: ignore[no-untyped-def]
    """As `simpy.CoordinatorState.share_out`."""
    coordinator = coordinator_at(s, c)
    coordinator.rebalancing = coordinator.sharing = 0
    if coordinator.cooperative:
        share_out_where_needed(s, c)
        return
    first, last = coordinator.first, coordinator.first + coordinator.members
    i = first - 1
    for q in range(s.queues_size):
        if queue_at(s, q).coordinator == c:
            i += 1
            while i == last or not membership_at(s, i).joined:
                i = first if i == last else i + 1
            if is_free(s, q):
                give(s, q, i)


@njit(cache=True)
def share_out_where_needed(s, c):  # type: ignore[no-untyped-def]
    """The same, by the cooperative protocol."""
    coordinator = coordinator_at(s, c)
    for i in range(coordinator.first, coordinator.first + coordinator.members):
        membership_at(s, i).load = 0
    for q in range(s.queues_size):
        queue = queue_at(s, q)
        if queue.coordinator == c and not queue.closed:
            membership_at(s, membership(s, c, queue.consumers_at)).load += 1
    for q in range(s.queues_size):
        queue = queue_at(s, q)
        if queue.coordinator == c and queue.closed and is_free(s, q):
            i = fewest(s, c)
            membership_at(s, i).load += 1
            give(s, q, i)
    moved = False
    while True:
        most, least = membership_at(s, fullest(s, c)), membership_at(s, fewest(s, c))
        if most.load - least.load <= 1:
            break
        q = s.queues_size - 1
        while queue_at(s, q).coordinator != c or queue_at(s, q).closed or queue_at(s, q).consumers_at != most.part:
            q -= 1
        queue_at(s, q).closed = 1
        most.load -= 1
        least.load += 1
        moved = True
    if moved:
        rebalance(s, c)


@njit(cache=True)
def fewest(s, c):  # type: ignore[no-untyped-def]
    """The first of those that joined who reads the fewest partitions."""
    coordinator, found = coordinator_at(s, c), -1
    for i in range(coordinator.first, coordinator.first + coordinator.members):
        if membership_at(s, i).joined and (found < 0 or membership_at(s, i).load < membership_at(s, found).load):
            found = i
    return found


@njit(cache=True)
def fullest(s, c):  # type: ignore[no-untyped-def]
    """The first of those that joined who reads the most partitions."""
    coordinator, found = coordinator_at(s, c), -1
    for i in range(coordinator.first, coordinator.first + coordinator.members):
        if membership_at(s, i).joined and (found < 0 or membership_at(s, i).load > membership_at(s, found).load):
            found = i
    return found


@njit(cache=True)
def is_free(s, q):  # type: ignore[no-untyped-def]
    """Whether no dead member may have something of the queue in hand that is not noticed yet."""
    queue = queue_at(s, q)
    return membership_at(s, membership(s, queue.coordinator, queue.consumers_at)).unnoticed == 0


@njit(cache=True)
def give(s, q, i):  # type: ignore[no-untyped-def]
    """As `simpy.CoordinatorState.give`."""
    put_all_back(s, q)
    queue = queue_at(s, q)
    queue.consumers_at, queue.given = membership_at(s, i).part, s.now
    queue.closed = 0 if membership_at(s, i).known else 1
    dispatch(s, q)


@njit(cache=True)
def coordinator_lost(s, c):  # type: ignore[no-untyped-def]
    """As `simpy.CoordinatorState.lost`."""
    coordinator_at(s, c).generation += 1
    coordinator_at(s, c).sharing = 0


@njit(cache=True)
def coordinator_back(s, c):  # type: ignore[no-untyped-def]
    """As `simpy.CoordinatorState.back`."""
    coordinator = coordinator_at(s, c)
    coordinator.session += 1
    for i in range(coordinator.first, coordinator.first + coordinator.members):
        if membership_at(s, i).unnoticed:
            membership_at(s, i).unnoticed = 1
            notice(s, i)
    share_out_later(s, c)


# --- faults ---------------------------------------------------------------------------------------------------------


@njit(cache=True)
def fall(s, r):  # type: ignore[no-untyped-def]
    """As `simpy.Engine.crash`."""
    row, first = row_at(s, r), r * s.most_scopes
    i = row.depth - 1
    while i >= 0 and (frame_at(s, first + i).kind != CHECKPOINT or frame_at(s, first + i).part != row.part):
        i -= 1
    if i < 0:
        kill(s, r)
        return
    forget(s, r)
    row.seq += 1
    row.thrown = 0
    while row.depth > i + 1:
        leave(s, r)
    frame = frame_at(s, first + i)
    frame.turn += 1
    row.place, row.attempt = fold(frame.place, frame.turn), frame.attempt
    row.level, row.version, row.result = frame.level, frame.version, frame.result
    row.pc = frame.pc + 1
    unwind(s, r, frame.holding, False)
    if row.keeps >= 0:
        pass_on(s, r)
    line_up(s, part_at(s, row.part).resting, r)


@njit(cache=True)
def clear(s, t):  # type: ignore[no-untyped-def]
    """As `simpy.TableState.clear`."""
    table = table_at(s, t)
    for i in range(table.first, table.first + table.size * table.replicas):
        cell_at(s, i).level, cell_at(s, i).version = stock_at(s, i).value, 0
    if table.memory >= 0:
        for i in range(s.messages_size):
            memory_at(s, table.memory * s.messages_size + i).known = 0


@njit(cache=True)
def crash_actors(s, part, restart, running):  # type: ignore[no-untyped-def]
    """What a crash does to the actors at the part, and to the queues that they received from."""
    for q in range(s.queues_size):
        queue = queue_at(s, q)
        if queue.watchers >= 0 and queue.coordinator < 0 and queue.consumers_at == part:
            lose_sight(s, q, restart)
    for i in range(s.memberships_size):
        if membership_at(s, i).part == part:
            died(s, i)
    for g in range(s.groups_size):
        group = group_at(s, g)
        if group.number >= 0:
            for i in range(group.count):
                r = actor_at(s, group.first + i).value
                if r >= 0 and r != running and row_at(s, r).part == part:
                    kill(s, r)


@njit(cache=True)
def crash(s, part, restart, running, power):  # type: ignore[no-untyped-def]
    """As `simpy.Faults.crash`."""
    apart()
    part_at(s, part).down = 1
    for g in range(s.groups_size):
        group = group_at(s, g)
        if group.part == part and group.queue >= 0:
            for i in range(group.count):
                r = actor_at(s, group.first + i).value
                if r >= 0 and row_at(s, r).message < 0:
                    kill(s, r)
            drop_buffers(s, queue_at(s, group.queue))
            lose_sight(s, group.queue, restart)
    crash_actors(s, part, restart, running)
    count = 0
    for r in range(s.rows_size):
        if row_at(s, r).alive and row_at(s, r).part == part and r != running:
            count += 1
    places = np.empty(count, np.int64)
    found = np.empty(count, np.int64)
    count = 0
    for r in range(s.rows_size):
        row = row_at(s, r)
        if row.alive and row.part == part and r != running:
            places[count] = (np.int64(row.message) << 20) | np.int64(row.copy)
            found[count] = r
            count += 1
    for i in np.argsort(places):
        fall(s, found[i])
    for t in range(s.tables_size):
        if table_at(s, t).at == part and not table_at(s, t).durable:
            clear(s, t)
    for q in range(s.queues_size):
        if queue_at(s, q).at == part:
            forget_unwritten(s, q)
            if power:
                power_lost(s, q)
    for c in range(s.coordinators_size):
        if coordinator_at(s, c).at == part:
            coordinator_lost(s, c)


@njit(cache=True)
def begin(s, g, i):  # type: ignore[no-untyped-def]
    """A consumer's loop begins."""
    group = group_at(s, g)
    r = new_row(s, -1, group.part, 0, group.start)
    row_at(s, r).group, row_at(s, r).consumer = g, i
    actor_at(s, group.first + i).value = r
    if group.number >= 0:
        row_at(s, r).actor = group.number + i
        new_turn(s, r)
    wake(s, r, 0)


@njit(cache=True)
def connects(queue, part):  # type: ignore[no-untyped-def]
    """Whether the part is an end of the connection between a queue and its consumers, whose closing the broker notices."""
    if queue.coordinator >= 0:
        return False
    return not math.isnan(queue.detected_after) and (queue.at == part or queue.consumers_at == part)


@njit(cache=True)
def up(s, part):  # type: ignore[no-untyped-def]
    """As `simpy.Faults.up`."""
    part_at(s, part).down = 0
    for q in range(s.queues_size):
        queue = queue_at(s, q)
        if connects(queue, part):
            if not queue.closed:
                disconnect(s, q)
            queue.closed = 1 if is_down(s, queue.consumers_at) else 0
    for g in range(s.groups_size):
        if group_at(s, g).part == part:
            for i in range(group_at(s, g).count):
                begin(s, g, i)
    resting = line_at(s, part_at(s, part).resting)
    while resting.first >= 0:
        r = resting.first
        step_out(s, r)
        wake(s, r, 0)
    for q in range(s.queues_size):
        if queue_at(s, q).at == part or queue_at(s, q).consumers_at == part:
            subscribe(s, q)
    for c in range(s.coordinators_size):
        if coordinator_at(s, c).at == part:
            coordinator_back(s, c)
        rests_at(s, c, part)


@njit(cache=True)
def set_speed(s, part):  # type: ignore[no-untyped-def]
    """As `simpy.Faults.set_speed`."""
    factor = 1.0
    for i in range(s.strikes_size):
        fault = strike_at(s, i)
        if fault.kind == SLOWDOWN and fault.where == part and s.now < fault.until:
            factor *= fault.factor
    part_at(s, part).slow = factor


@inlined
def served_at(s, r):  # type: ignore[no-untyped-def]
    """The part that a service of the row goes by, which is the operation before the one to come."""
    at = op_at(s, row_at(s, r).pc - 1).c
    return row_at(s, r).part if at == NOWHERE else at


@njit(cache=True)
def stand_still(s, part, until):  # type: ignore[no-untyped-def]
    """As `simpy.Faults.stand_still`."""
    its = part_at(s, part)
    more = until - max(s.now, its.paused)
    if its.paused <= s.now:
        for i in range(s.memberships_size):
            if membership_at(s, i).part == part:
                stands_still(s, i)
    its.shut, its.paused = max(its.shut, until), max(its.paused, until)
    if more <= 0.0:
        return
    for r in range(s.rows_size):
        if row_at(s, r).at == SERVED and served_at(s, r) == part:
            row_at(s, r).seq += 1
            serve(s, r, row_at(s, r).due + more)


@njit(cache=True)
def strike(s, i, lasts, message, running):  # type: ignore[no-untyped-def]
    """As `simpy.Faults.strike`."""
    apart()
    fault, until = strike_at(s, i), s.now + lasts
    kind, where = fault.kind, fault.where
    death = kind == CRASH or kind == POWER_LOSS
    if (lasts == 0.0 and not death) or (death and is_down(s, where)):
        return
    n = s.struck
    if n >= s.faults_size:
        s.error = FAULTS_FULL
        return
    s.struck = n + 1
    noted = fault_at(s, n)
    noted.kind, noted.where, noted.start, noted.end, noted.message = kind, where, s.now, until, message
    fault.until = max(fault.until, until)
    if kind == PARTITION:
        for w in range(s.ways_size):
            way = way_at(s, w)
            if way.link == where and (fault.direction == NOWHERE or way.end == fault.direction):
                way.cut = max(way.cut, until)
        return
    part = part_at(s, where)
    if death:
        crash(s, where, lasts, running, kind == POWER_LOSS)
    elif kind == SLOWDOWN:
        set_speed(s, where)
    elif kind == OUTAGE:
        part.shut = max(part.shut, until)
        if fault.refuses:
            part.refuses = max(part.refuses, until)
    else:
        stand_still(s, where, until)
    event(s, until, order.FAULT, s.struck, 1, 0, PASSED, i, 0)


@njit(cache=True)
def passed(s, i):  # type: ignore[no-untyped-def]
    """As `simpy.Faults.passed`."""
    fault = strike_at(s, i)
    if fault.kind == SLOWDOWN:
        set_speed(s, fault.where)
    elif fault.kind == CRASH or fault.kind == POWER_LOSS:
        up(s, fault.where)
    else:
        for q in range(s.queues_size):
            if queue_at(s, q).at == fault.where:
                dispatch(s, q)
        for c in range(s.coordinators_size):
            rests_at(s, c, fault.where)


@njit(cache=True)
def plan(s, i, nth, over):  # type: ignore[no-untyped-def]
    """Strike the nth time, where there is one; the last one is `over` then."""
    fault = strike_at(s, i)
    if fault.every >= 0:
        time = over + draw(s, fault.every, fault.gap_stream, fold(0, nth))
    elif nth < fault.times:
        time = time_at(s, fault.first + nth).value
    else:
        return
    event(s, time, order.FAULT, i, 0, 0, STRIKE, i, nth)


# --- the operations -------------------------------------------------------------------------------------------------


@inlined
def holds(s, r, pc):  # type: ignore[no-untyped-def]
    """Whether the condition of a TEST holds for a row."""
    op = op_at(s, pc)
    comparison, value = op.b, linear(s, r, op.real, op.e, op.d)
    x = read_field(s, r, op.a)
    if comparison == EQUAL:
        return x == value
    if comparison == DIFFERENT:
        return x != value
    if comparison == LESS:
        return x < value
    if comparison == AT_MOST:
        return x <= value
    if comparison == MORE:
        return x > value
    return x >= value


@njit(cache=True)
def note_effect(s, r, pc):  # type: ignore[no-untyped-def]
    """An effect of the row's message: as `records.Records.effect`."""
    row, now = row_at(s, r), s.now
    m, which, sign = message_at(s, row.message), op_at(s, pc).a, op_at(s, pc).b
    n = s.effected
    if n >= s.effects_size:
        s.error = EFFECTS_FULL
        return
    s.effected = 0 if s.tallies_size else n + 1
    effect = effect_at(s, n)
    effect.message, effect.effect, effect.version, effect.time = row.message, which, row.version, now
    effect.change, effect.delivery = sign * quantity_at(s, row.message).value, row.number if row.number else row.attempt
    if sign:
        m.version = row.version
    row.result = OK
    if not op_at(s, pc).c:
        return
    if s.tallies_size:
        kept_at(s, beside(s, 0, row.message)).last_effect = now
    bit = np.int64(1) << which
    m.effects += 1
    if m.done & bit:
        m.duplicates += 1
    m.done |= bit
    m.noted |= APPLIED
    if math.isnan(m.applied):
        m.applied = now


@njit(cache=True)
def change(s, t, i, level, version):  # type: ignore[no-untyped-def]
    """As `simpy.Cell.change`: what those who wait for cell `i` of table `t` need stands in `due`."""
    cell, table = cell_at(s, i), table_at(s, t)
    cell.level, cell.version = level, version
    if table.watchers < 0:
        return
    r = line_at(s, table.watchers + i - table.first).first
    while r >= 0:
        row = row_at(s, r)
        following = row.next
        if version >= row.due:
            step_out(s, r)
            wake(s, r, 0)
        r = following


@merged
def go(s, r):  # type: ignore[no-untyped-def]
    """Take a row from operation to operation until it waits or ends: each branch is one operation."""
    row = row_at(s, r)
    thrown, row.thrown = row.thrown, 0
    if thrown >= SCOPE:
        while row.depth > thrown - SCOPE:
            frame = leave(s, r)
            if frame.kind == HEDGE:
                give_up(s, r, frame)
        row.pc = op_at(s, frame.pc).a
        if not ready(s, r, back_to(s, r, frame)):
            return
    elif thrown > 0 and not fail(s, r, thrown):
        return
    while s.error == 0:
        pc = row.pc
        row.pc = pc + 1
        op = op_at(s, pc)
        operation, a = op.operation, op.a

        # time and pools
        if operation == SEIZE:
            i = pick(s, r, a, key_at(s, op.c).value)
            taken = take_unit(s, r, i, op.b) if i >= 0 else -1
            if taken >= 0 and not member_at(s, i).event_loop:
                row.awaited = taken == 0
            if taken == 0 or (taken < 0 and not fail(s, r, FAILED)):
                return
            op = op_at(s, row.pc)
            if taken < 0 or op.operation != DELAY:
                continue
            operation, a = DELAY, op.a
            row.pc += 1
        if operation == DELAY:
            time = duration(s, r, a, op.b, op.d, op.real)
            if op.c == UNWATCHED:
                sleep_until(s, r, s.now + time)
                return
            at = served_at(s, r)
            if at >= 0:
                time *= part_at(s, at).slow
            serve(s, r, goes_on(s, at) + time)
            return
        elif operation == EVERY:
            turn = math.floor(s.now / op.real) + 1
            while turn * op.real <= s.now:
                turn += 1
            sleep_until(s, r, turn * op.real)
            return
        elif operation == RELEASE:
            i = row.holding - 1
            while member_at(s, held_at(s, r * s.most_held + i).value).pool != a:
                i -= 1
            member_at(s, held_at(s, r * s.most_held + i).value).failures = 0
            give_unit(s, r, i)
        elif operation == TURN:
            taken = take_turn(s, r, pool_at(s, a).first)
            if taken == 0 or (taken < 0 and not fail(s, r, FAILED)):
                return
        elif operation == TAKE_TOKEN:
            if claim(s, r, purse(s, r, a), 0) == 0:
                return
        elif operation == GIVE_TOKEN:
            give_token(s, purse(s, r, a))
        elif operation == SEND:
            start = row.part
            time = travel(s, a if start == op.c else op.b, row.place)
            if time < 0.0:
                end_row(s, r)
                return
            row.part, row.where = -1, start
            sleep_until(s, r, s.now + time)
            return
        elif operation == ARRIVE:
            row.part = op.d if row.where == op.c else op.c
            if refuses(s, row.part):
                give_answer(s, r, FAILED)
                end_row(s, r)
                return
            if s.now < opens(s, row.part):
                row.pc = pc
                sleep_until(s, r, opens(s, row.part))
                return

        # control
        elif operation == JUMP:
            row.pc = a
        elif operation == TEST:
            if not holds(s, r, pc):
                row.pc = op.c
        elif operation == DRAW:
            if not uniform(key_at(s, a).value, row.place) < op.real:
                row.pc = op.b
        elif operation == END:
            if not over(s, r):
                return
        elif operation == RECEIVE:
            slot = slot_at(s, queue_at(s, a).first + (0 if queue_at(s, a).shared else row.consumer))
            if slot.first < 0:
                line_up(s, slot.idle, r)
                return
            entry = first_entry(s, slot)
            take_delivery(s, r, entry.delivery, entry.number)
            row.awaited = 0
        elif operation == BY_SKU:
            row.pc = branch_at(s, a + sku_at(s, row.message).value % op.b).value
        elif operation == CHOOSE:
            rest, stage = uniform(key_at(s, op.c).value, row.place), -1
            for i in range(a, a + op.b):
                if rest < choice_at(s, i).probability:
                    stage = choice_at(s, i).stage
                    break
                rest -= choice_at(s, i).probability
            while row.depth > 0:
                leave(s, r)
            if stage >= 0:
                row.place = fold(row.place, 0)
                row.pc = stage
            elif not over(s, r):
                return
        elif operation == REPEAT:
            enter(s, r, REPEAT, pc)
            row.place = fold(row.place, 0)
        elif operation == AGAIN:
            frame = frame_at(s, r * s.most_scopes + row.depth - 1)
            if uniform(key_at(s, a).value, row.place) >= op.real:
                leave(s, r)
                row.place = frame.place
            else:
                frame.turn += 1
                row.place = fold(frame.place, frame.turn)
                row.pc = op.b
        elif operation == FAIL:
            if not fail(s, r, a):
                return
        elif operation == RESCUE:
            enter(s, r, RESCUE, pc)
        elif operation == RESCUED or operation == IN_TIME:
            leave(s, r)
            row.pc = a
        elif operation == RETRY:
            enter(s, r, RETRY, pc)
        elif operation == NEXT_TRY:
            frame = frame_at(s, r * s.most_scopes + row.depth - 1)
            row.place, row.attempt = fold(frame.place, frame.turn), frame.turn + 1
            if op.c:
                row.attempt += (max(frame.attempt, 1) - 1) * (op_at(s, a).c + 1)
            if op.b >= 0 and frame.turn == 0:
                budget = budget_at(s, op.b)
                budget.paid = min(budget.paid + budget.share, budget.reserve)
            if row.main:
                message_at(s, row.message).attempts += 1
        elif operation == RETRIED:
            frame = leave(s, r)
            row.place, row.attempt = frame.place, frame.attempt
            row.pc = a
        elif operation == TIMEOUT:
            frame = enter(s, r, TIMEOUT, pc)
            limit(s, r, frame, duration(s, r, op.b, op.c, NOWHERE, 0.0), op.d)
        elif operation == BY_ATTEMPT:
            enter(s, r, BY_ATTEMPT, pc)
            row.place = fold(fold(0, row.message), max(row.attempt, 1) - 1)
        elif operation == CHECKPOINT:
            frame = enter(s, r, CHECKPOINT, pc)
            frame.level, frame.version, frame.result = row.level, row.version, row.result
        elif operation == BY_ATTEMPT_END or operation == CALLED or operation == CHECKED:
            leave(s, r)

        # together
        elif operation == FORK:
            n, needed = s.joins_free, op.c
            if n == 0:
                s.error = JOINS_FULL
                return
            j = free_join_at(s, n - 1).value
            join = join_at(s, j)
            join.row, join.needed, join.branches = r, needed, op.b
            if join.branches:
                s.joins_free = n - 1
            for i in range(a, a + op.b):
                row_at(s, child(s, r, branch_at(s, i).value)).join = j
            if needed:
                row.at, row.where = JOINING, j
                return
        elif operation == SPAWN:
            child(s, r, a)
        elif operation == CALL:
            row.calls += 1
            server = row_at(s, child(s, r, a))
            server.answer_row, server.answer_call = r, row.calls
            frame = enter(s, r, CALL, pc)
            if op.b >= 0:
                limit(s, r, frame, op.real, op.b)
            row.at = CALLING
            return
        elif operation == HEDGE:
            hedge(s, r, enter(s, r, HEDGE, pc), a)
            row.at = CALLING
            return
        elif operation == HEDGED:
            give_up(s, r, leave(s, r))
            if row.result == TIMED_OUT and not fail(s, r, TIMED_OUT):
                return
        elif operation == REPLY:
            give_answer(s, r, row.result if a < 0 else a)

        # messages
        elif operation == PUBLISH:
            if not publish(s, r, a + sku_at(s, row.message).value % op.c, op.b) and not fail(s, r, FAILED):
                return
        elif operation == ACK:
            settle_over(s, r, pc, ACKED)
        elif operation == NACK:
            settle_over(s, r, pc, NACKED)
        elif operation == UNTIL:
            if available_to(s, row, a) < op.b:
                row.pc = pc
                line_up(s, queue_at(s, a).watchers, r)
                return
        elif operation == APPEND:
            i = cell_of(s, r, a, 0, NOWHERE)
            if op.c and row.version != cell_at(s, i).version:
                row.pc = op.d
            else:
                row.level = cell_at(s, i).level + op.b * quantity_at(s, row.message).value
                row.version = cell_at(s, i).version + 1
                change(s, a, i, row.level, row.version)
        elif operation == SEEK:
            seek(s, a)
        elif operation == FETCH:
            put_down(s, r)
            fetch(s, r, a, op.b)
        elif operation == FOR_EACH:
            enter(s, r, FOR_EACH, pc)
            row.passes += 1
            row.cursor = row.hand
        elif operation == MEMBER:
            if row.cursor < 0:
                leave(s, r)
                row.pc = a
            else:
                take_up(s, r)

        # state
        elif operation == READ:
            cell = cell_at(s, cell_of(s, r, a, op.c, op.d))
            row.level, row.version, row.result = cell.level, cell.version, OK
        elif operation == UNTIL_CELL:
            i, least = cell_of(s, r, a, op.c, op.d), linear(s, r, op.real, op.e, op.b)
            if cell_at(s, i).version < least:
                row.pc, row.due = pc, least
                line_up(s, table_at(s, a).watchers + i - table_at(s, a).first, r)
                return
        elif operation == WRITE:
            change(s, a, cell_of(s, r, a, op.c, op.d), row.level, row.version)
            row.result = OK
        elif operation == WRITE_IF_NEWER:
            i = cell_of(s, r, a, op.c, op.d)
            row.result = OK
            if row.version > cell_at(s, i).version:
                change(s, a, i, row.level, row.version)
            else:
                row.pc = op.b
        elif operation == ADD:
            i = cell_of(s, r, a, 0, NOWHERE)
            row.level = cell_at(s, i).level + quantity_at(s, row.message).value
            row.version = cell_at(s, i).version + 1
            change(s, a, i, row.level, row.version)
        elif operation == TAKE:
            i, quantity = cell_of(s, r, a, 0, NOWHERE), quantity_at(s, row.message).value
            if cell_at(s, i).level < quantity:
                row.pc = op.b
            else:
                change(s, a, i, cell_at(s, i).level - quantity, cell_at(s, i).version + op.c)
                if op.c:
                    row.level, row.version = cell_at(s, i).level, cell_at(s, i).version
                row.result = OK
        elif operation == ONCE:
            memory = memory_at(s, beside(s, a, row.message))
            if memory.known:
                row.result, row.level, row.version = memory.result, memory.level, memory.version
                row.pc = op.b
        elif operation == KEEP:
            memory = memory_at(s, beside(s, a, row.message))
            memory.known, memory.result, memory.level, memory.version = 1, row.result, row.level, row.version

        # record
        elif operation == RESPOND:
            m = message_at(s, row.message)
            result = row.result if a < 0 else a
            if op.b >= 0 and result == OK and math.isnan(m.responded):
                m.answer, m.version, m.read_from = row.level, row.version, op.b + 1
                m.noted |= ANSWERED
            respond(s, row.message, result)
        elif operation == APPLY:
            note_effect(s, r, pc)
        elif operation == REJECT:
            message_at(s, row.message).noted |= REJECTED
            row.result = REFUSED
        elif operation == SUPERSEDE:
            message_at(s, row.message).noted |= SUPERSEDED
            row.result = OK
        elif operation == MARK:
            mark = mark_at(s, beside(s, a, row.message))
            if math.isnan(mark.value):
                mark.value = s.now
        elif operation == POINT:
            for i in range(point_at(s, a).first, point_at(s, a).first + point_at(s, a).count):
                n = struck_here_at(s, i).value
                fault = strike_at(s, n)
                if uniform(key_at(s, fault.chance).value, row.place) < fault.probability:
                    strike(s, n, draw(s, fault.lasts, fault.stream, row.place), row.message, r)
                    if (fault.kind == CRASH or fault.kind == POWER_LOSS) and row.part == fault.where:
                        fall(s, r)
                        return
            if s.now < paused(s, row.part):
                sleep_until(s, r, paused(s, row.part))
                return


@inlined
def resume(s, r):  # type: ignore[no-untyped-def]
    """As `simpy.Row.resume`; the row that goes on, -1 for none."""
    row = row_at(s, r)
    row.seq += 1
    if entity(s, row) >= 0 and s.now < paused(s, row.part):
        sleep_until(s, r, paused(s, row.part))
        return -1
    row.at = RUNNING
    return r


@inlined
def issue(s, message):  # type: ignore[no-untyped-def]
    """A message begins; the row that goes on, -1 for none."""
    m = message_at(s, message)
    part = source_at(s, m.kind).part
    if refuses(s, part):
        m.alive += 1
        respond(s, message, FAILED)
        ended(s, message)
        return -1
    if s.now < opens(s, part):
        event(s, opens(s, part), order.ARRIVAL, message, 1, 0, ISSUE, message, 0)
        return -1
    r = new_row(s, message, part, fold(0, message), source_at(s, m.kind).start)
    row_at(s, r).main = row_at(s, r).alive = 1
    m.alive += 1
    return r


@merged
def happen(s, kind, of, more):  # type: ignore[no-untyped-def]
    """A timed event; the row that goes on, -1 for none."""
    r = -1
    if kind == RESUME:
        if row_at(s, of).seq == more:
            r = resume(s, of)
    elif kind == EXPIRE:
        expire(s, of, more)
    elif kind == DELIVER:
        arrive(s, of, more, s.key)
    elif kind == TOO_OLD and delivery_at(s, of).id == of:
        delivery = delivery_at(s, of)
        until = paused(s, queue_at(s, delivery.queue).at)
        if s.now < until:
            put_off(s, until, kind, of, more)
        elif not delivery.settled and not delivery.out:
            drop_ready(s, delivery.queue, of, EXPIRED)
    elif kind == UNACKED:
        if delivery_at(s, of).ticket == more:
            until = paused(s, queue_at(s, delivery_at(s, of).queue).at)
            if s.now < until:
                put_off(s, until, kind, of, more)
            else:
                overdue(s, of)
    elif (kind == ACKED or kind == NACKED) and delivery_at(s, of).id == of:
        at = queue_at(s, delivery_at(s, of).queue).at
        if is_down(s, at):
            return r
        if s.now < opens(s, at):
            put_off(s, opens(s, at), kind, of, more)
        elif kind == ACKED:
            settle(s, of, more >> 32)
        else:
            refuse(s, of, more >> 32, op_at(s, more & 0xFFFFFFFF).real)
    elif kind == ISSUE:
        r = issue(s, of)
    elif kind == CUSTOMER:
        message = s.issues
        if message < s.count:
            s.issues = message + 1
            customer = customer_at(s, message)
            customer.number, customer.turn = of, more
            issued_at(s, message).value = s.now
            r = issue(s, message)
    elif kind == GIVE_UP:
        if s.stopped == 0:
            s.stopped = 1
            say(s, STOP, 0)
    elif kind == STRIKE:
        lasts = draw(s, strike_at(s, of).lasts, strike_at(s, of).stream, fold(0, more))
        over = s.now + lasts
        strike(s, of, lasts, -1, -1)
        plan(s, of, more + 1, over)
    elif kind == PASSED:
        passed(s, of)
    elif kind == NOTICE:
        disconnect(s, of)
    elif kind == SESSION_OVER:
        session_over(s, of, more)
    elif kind == SILENT:
        silent(s, of)
    elif kind == SHARE_OUT:
        if coordinator_at(s, of).generation == more:
            share_out(s, of)
    return r


@inlined
def arrival_is_next(s):  # type: ignore[no-untyped-def]
    """Whether the message that follows comes before any other event."""
    time, top = issued_at(s, s.following).value, event_at(s, 0)
    return s.heaped == 0 or sooner(time, key_of(s, order.ARRIVAL, s.following, 0, 0), top.time, top.key)


@inlined
def arrival(s):  # type: ignore[no-untyped-def]
    """The message that follows begins; the row that goes on, -1 for none."""
    message = s.following
    if message == s.cut > 0:
        s.begins = issued_at(s, message).value
    s.now, s.following = issued_at(s, message).value, message + 1
    if message + 1 == s.count and s.horizon < math.inf:
        event(s, s.now + s.horizon, order.OBSERVER, 0, 0, 0, GIVE_UP, 0, 0)
    return issue(s, message)


@njit(cache=True, nogil=True)
def expect(s, first, end):  # type: ignore[no-untyped-def]
    """The records of messages that are to come, from the first on, are as if nothing had been there before them."""
    apart()
    queues, memories, marks = s.queues_size, s.memories_size // s.messages_size, s.marks_size // s.messages_size
    for message in range(first, end):
        m, kind = message_at(s, message), kind_at(s, message).value
        m.version = m.answer = -1
        m.alive = m.copies = m.effects = m.duplicates = m.attempts = m.deliveries = m.done = 0
        m.responded = m.applied = math.nan
        m.response = m.noted = m.read_from = m.poison = 0
        m.kind, m.code = kind, source_at(s, kind).code
        for i in range(s.poisons_size):
            poison = poison_at(s, i)
            if poison.kind == kind and uniform(poison.key, fold(0, message)) < poison.probability:
                m.poison = 1
        for q in range(queues):
            published_at(s, beside(s, q, message)).value = 0
            seen_at(s, beside(s, q, message)).value = -math.inf
        for i in range(memories):
            memory_at(s, beside(s, i, message)).known = 0
        for i in range(marks):
            mark_at(s, beside(s, i, message)).value = math.nan
        if s.tallies_size:
            kept = kept_at(s, beside(s, 0, message))
            kept.counted, kept.last_effect = 0, -math.inf


@njit(cache=True)
def start(s):  # type: ignore[no-untyped-def]
    """What happens before the first message. Of what is free the first is taken first; the last of each table takes what does
    not fit."""
    apart()
    expect(s, 0, s.drawn_ahead)
    for i in range(s.cells_size):
        cell_at(s, i).level = stock_at(s, i).value
    row_at(s, s.rows_size - 1).keeps = -1
    s.rows_free, s.joins_free = s.free_rows_size - 1, s.free_joins_size - 1
    s.entries_free, s.timers_free = s.free_entries_size - 1, s.free_timers_size - 1
    for i in range(s.rows_free):
        free_row_at(s, i).value = s.rows_free - 1 - i
    for i in range(s.joins_free):
        free_join_at(s, i).value = s.joins_free - 1 - i
    for i in range(s.entries_free):
        free_entry_at(s, i).value = s.entries_free - 1 - i
    for i in range(s.timers_free):
        free_timer_at(s, i).value = s.timers_free - 1 - i
    for g in range(s.groups_size):
        for i in range(group_at(s, g).count):
            begin(s, g, i)
    for i in range(s.strikes_size):
        plan(s, i, 0, 0.0)
    if s.population:
        s.following = s.count
        for customer in range(s.population):
            think(s, customer, 0)


@njit(cache=True, nogil=True)
def count_rest(s):  # type: ignore[no-untyped-def]
    """What is not over at the end is counted, too."""
    for message in range(max(0, s.drawn_ahead - s.messages_size), s.drawn_ahead):
        if not kept_at(s, beside(s, 0, message)).counted:
            tally(s, message)


@njit(cache=True)
def stop(s):  # type: ignore[no-untyped-def]
    """The run is over: the areas are added up to now, in all bins that began before it."""
    for i in range(s.meters_size):
        advance(s, i)
        write_bin(s, i)
        s.bins_begun = meter_at(s, i).bins
        while s.bins_begun > 0 and (s.bins_begun - 1) * meter_at(s, i).width >= s.now:
            s.bins_begun -= 1
    return False


@njit(cache=True, nogil=True)
def run(s, events):  # type: ignore[no-untyped-def]
    """Go on for so many events, until every message is settled, to the horizon, or until nothing more can happen; whether
    there is more to come."""
    if not s.begun:
        s.begun = 1
        start(s)
    for _ in range(events):
        if s.error:
            return False
        if s.turns > 0:
            turn = turn_at(s, s.first)
            s.first = s.first + 1 if s.first + 1 < s.agenda_size else 0
            s.turns -= 1
            if turn.row == STOP:
                return stop(s)
            r = resume(s, turn.row) if row_at(s, turn.row).seq == turn.seq else -1
        else:
            if s.happens:
                drop(s)
            if s.following == s.drawn_ahead < s.count:
                return True
            if s.following < s.count and arrival_is_next(s):
                r = arrival(s)
            elif s.heaped == 0:
                s.now = max(s.now, s.latest)
                return stop(s)
            else:
                top = event_at(s, 0)
                s.now, s.key, s.happens = top.time, top.key, 1
                what, more = top.what, top.more
                if what >> 48:
                    next_timer(s, (what >> 48) - 1)
                r = happen(s, (what >> 40) & 0xFF, what & 0xFFFFFFFFFF, more)
        if r >= 0:
            go(s, r)
            if row_at(s, r).keeps >= 0:
                pass_on(s, r)
    return True


# --- what a run leaves ----------------------------------------------------------------------------------------------


@njit(cache=True)
def part_columns(  # type: ignore[no-untyped-def]
    s, capacities, lengths, ends, capacity, start, end, busy, waiting, unacknowledged, waiting_max, completed
):
    """The meters as columns of a history, a row each meter and bin, their capacities given; and where the words in the first
    columns end, which have these lengths, `ends` of shape (columns, rows + 1)."""
    bins = s.bins_begun
    ends[:, 0] = 0
    for i in range(s.meters_size):
        width = meter_at(s, i).width
        for k in range(bins):
            row, its = bins * i + k, bin_at(s, 4 * BINS * i + k)
            for column in range(ends.shape[0]):
                ends[column, row + 1] = ends[column, row] + lengths[column, i]
            capacity[row], start[row], end[row] = capacities[i], k * width, min((k + 1) * width, s.now)
            busy[row], waiting[row], unacknowledged[row] = its.busy, its.waiting, its.unacknowledged
            waiting_max[row], completed[row] = its.most, its.completed


@njit(cache=True)
def by_appearance(codes):  # type: ignore[no-untyped-def]
    """Number codes anew, in place, in the order in which they first occur; what they were, in that order."""
    numbers, found, count = np.full(128, -1, np.int8), np.empty(128, np.int64), 0
    for i in range(codes.size):
        code = codes[i]
        if numbers[code] < 0:
            numbers[code], found[count] = count, code
            count += 1
        codes[i] = numbers[code]
    return found[:count]


@njit(cache=True)
def effect_columns(s, names, message, effect, store, sku, version, change, time, delivery):  # type: ignore[no-untyped-def]
    """The effects as columns of a history; by the numbers that `names`, shape (2, effects), gives those of effect and of store.
    Those that occur, in the order of their codes, and the greatest number of a delivery."""
    most = 0
    for i in range(s.effected):
        its = effect_at(s, i)
        message[i], sku[i], version[i], change[i] = its.message, sku_at(s, its.message).value, its.version, its.change
        effect[i], store[i] = names[0, its.effect], names[1, its.effect]
        time[i], delivery[i] = its.time, its.delivery
        most = max(most, its.delivery)
    return by_appearance(effect), by_appearance(store), most


@njit(cache=True)
def message_columns(  # type: ignore[no-untyped-def]
    s, outcomes, message, version, answer, responded, applied, response, outcome, read_from, attempts, deliveries, effects,
    duplicates,
):  # fmt: skip
    """The messages as columns of a history; `outcomes` is `records.OUTCOME`. The stores that queries were answered from, in the
    order of their codes, and the greatest number that was counted of a message."""
    most = 0
    for i in range(s.count):
        m = message_at(s, i)
        message[i], version[i], answer[i] = i, m.version, m.answer
        responded[i], applied[i] = m.responded, m.applied
        response[i], outcome[i], read_from[i] = m.response, outcomes[m.response, m.noted, int(m.alive > 0)], m.read_from
        attempts[i], deliveries[i], effects[i], duplicates[i] = m.attempts, m.deliveries, m.effects, m.duplicates
        most = max(most, m.attempts, m.deliveries, m.effects)
    return by_appearance(read_from), most
