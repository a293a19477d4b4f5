"""The ledger's arrays say what a plain loop over the rows says."""

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simlib.domain import ISSUED, ORDER, STOCK_QUERY, STOCK_UPDATE, TAKEN
from simlib.ledger import Ledger

SKUS, SESSIONS, MOMENTS = 3, 2, 12
UNITS = {"units": 4, "sale": 2}
steps = st.lists(
    st.tuples(
        st.sampled_from([STOCK_UPDATE, ORDER, STOCK_QUERY]),
        st.integers(0, SKUS - 1),
        st.integers(0, SESSIONS - 1),
        st.integers(0, 2),  # how long until the response
        st.integers(0, 2),  # how long until the effect
        st.integers(-2, 3),  # change; for a query the version seen
        st.sampled_from(["ok", "ok", "refused", "timed_out"]),
    ),
    max_size=MOMENTS,
)


def _written(make_history, drawn):
    """A history of whole-number times, ties included, whose versions count up by SKU in order of time."""
    messages, changes = [], []
    for i, (kind, sku, session, response, effect, change, told) in enumerate(drawn):
        seen = max(change, 0) if kind == STOCK_QUERY and told == "ok" else -1
        times = {"issued": i // 2, "responded": i // 2 + response}
        messages.append({"kind": kind, "sku": sku, "session": session, "version": seen, "response": told, **times})
        if kind != STOCK_QUERY:
            changes.append((i // 2 + effect, i, sku, change))
    count, effects = [0] * SKUS, []
    for time, i, sku, change in sorted(changes):
        count[sku] += 1
        messages[i]["version"] = count[sku]
        name = ISSUED if messages[i]["kind"] == STOCK_UPDATE else TAKEN
        effects.append((i, name, float(time), count[sku], change))
    return messages, effects, Ledger(make_history(messages, effects, stock=UNITS))


@pytest.fixture(scope="module")
def everywhere():
    """Every SKU at every moment."""
    sku, time = np.meshgrid(np.arange(SKUS), np.arange(-1, MOMENTS))
    return sku.ravel(), time.ravel().astype(float)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(steps)
def test_versions_and_units_at_any_moment_are_those_of_a_replay(make_history, everywhere, drawn):
    messages, effects, ledger = _written(make_history, drawn)
    own = [
        (messages[i]["sku"], time, version, change, row) for row, (i, _, time, version, change) in enumerate(effects)
    ]
    skus, times = everywhere
    start = [UNITS["sale"] if sku == 0 else UNITS["units"] for sku in range(SKUS)]

    newest = [
        max((v for s, t, v, *_ in own if s == sku and t < time), default=0)
        for sku, time in zip(*everywhere, strict=True)
    ]
    assert ledger.stock.newest(skus, times).tolist() == newest
    versions = np.maximum(times, 0).astype(int)
    made = [next((row for s, _, v, _, row in own if (s, v) == key), -1) for key in zip(skus, versions, strict=True)]
    assert ledger.stock.maker(skus, versions).tolist() == made
    outdated = [
        min((t for s, t, v, *_ in own if s == sku and v > version), default=math.inf)
        for sku, version in zip(skus, versions, strict=True)
    ]
    assert ledger.stock.outdated(skus, versions).tolist() == outdated
    least = []
    for sku, time in zip(*everywhere, strict=True):
        levels = [start[sku] + sum(c for s, t, _, c, _ in own if s == sku and t < time)]
        for s, t, _, change, _ in own:
            if s == sku and time <= t <= time + 2:
                levels.append(levels[-1] + change)
        least.append(min(levels))
    assert ledger.stock.least(skus, times, times + 2).tolist() == least


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(steps)
def test_own_writes_unseen_are_those_of_a_walk_through_the_messages(make_history, drawn):
    messages, _, ledger = _written(make_history, drawn)
    last, unseen = {}, []
    for message in messages:
        if message["kind"] == ORDER:
            last[message["session"]] = message
        elif message["kind"] == STOCK_QUERY and message["version"] >= 0:
            own = last.get(message["session"])
            answered = own and own["response"] == "ok" and own["responded"] <= message["issued"]
            unseen.append(bool(answered and own["sku"] == message["sku"] and message["version"] < own["version"]))
    assert ledger.own_write_unseen.tolist() == unseen
