"""What the tests share: real parts that may be absent on a user's machine, and histories written by hand."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from simlib.domain import ANNOUNCED, COPIED, COPY, ISSUED, STOCK, TAKEN
from simlib.history import SCHEMAS, History, to_table


def require_part(found: bool, reason: str) -> None:
    """Skip where a real part is absent on a user's machine; fail where SIMLIB_REQUIRE_PARTS asks for it."""
    if not found:
        if os.environ.get("SIMLIB_REQUIRE_PARTS"):
            pytest.fail(reason)
        pytest.skip(reason)


HistoryMaker = Callable[..., History]
"""What the fixture `make_history` gives."""
_STORES = {ISSUED: STOCK, TAKEN: STOCK, COPIED: COPY, ANNOUNCED: COPY}


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
        own = [effect for effect in happened if effect[0] == row["message"] and effect[1] != ISSUED]
        row.setdefault("applied", min((effect[6] for effect in own), default=math.nan))
        row.setdefault("effects", len(own))
        row.setdefault("duplicates", len(own) - len({effect[:3] for effect in own}))
    bins = [
        (name, "pool", capacity, start, end, busy, 0.0, 0.0, 0, 0)
        for name, capacity, start, end, busy in pools
    ]
    return History(
        messages=to_table(
            "messages", {name: [row[name] for row in rows] for name in SCHEMAS["messages"].names}
        ),
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
