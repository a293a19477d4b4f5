"""What the mechanisms of event sourcing are worth on PostgreSQL and the library: switched off, something is repeated, read, held
up or doubled; switched on, nothing is."""

from __future__ import annotations

import threading

import numpy as np
import psycopg
import pytest
from psycopg import sql

from simlib.distributions import Constant
from simlib.domain import COPY, STOCK
from simlib.scenario import Crash, Goods, Poison, Trace

pytestmark = [pytest.mark.live, pytest.mark.xdist_group("live")]
ES = "event_sourcing"
ONE, TWO, MANY = Goods(skus=1), Goods(skus=2, zipf=0.0), Goods(skus=100_000, zipf=0.0)
BACKLOG = {"only": "stock_update", "handler_work": Constant(0.02)}
"""Updates that the shop needs longer for than accounting, so that it has always some before it."""
UNGUARDED = {"write_if_newer": False}


@pytest.fixture
def burst(workload, tmp_path):
    """Updates that all come at once."""

    def make(messages, **properties):
        times = tmp_path / "times.txt"
        np.savetxt(times, np.full(messages, 0.2))
        return workload(1.0, only="stock_update", arrivals=Trace(file=times), **properties)

    return make


def columns(history):
    return history.messages.to_pandas()


def appends(history):
    """A row each try of an append to a stream."""
    return history.attempts.to_pandas().query("block == 'accounting.change'")


def versions(history, store):
    """The versions of each SKU in the order in which a store got them."""
    effects = history.effects.to_pandas().query("store == @store", local_dict={"store": store})
    return {sku: mine["version"].tolist() for sku, mine in effects.groupby("sku")}


def connected(ready, program="accounting"):
    """A connection to a program's database."""
    return psycopg.connect(ready.databases[program], autocommit=True)


def agree(ready):
    """Whether the shop's goods are what accounting's streams end with."""
    shown = "SELECT sku, version, level FROM goods WHERE version > 0 ORDER BY sku"
    made = """SELECT DISTINCT ON (originator_id) (said->>'sku')::int, originator_version::int, (said->>'level')::int
              FROM (SELECT *, convert_from(state, 'UTF8')::json AS said FROM accounting_events) AS e
              WHERE originator_version > 0 ORDER BY originator_id, originator_version DESC"""
    with connected(ready, "shop") as shop, connected(ready) as accounting:
        return sorted(shop.execute(shown).fetchall()) == sorted(accounting.execute(made).fetchall())


@pytest.mark.parametrize("concurrency", ["optimistic", "lock"])
def test_appends_to_one_stream_conflict_and_are_tried_again_unless_the_stream_is_locked(run, burst, concurrency):
    history = run(ES, burst(40, goods=TWO), 40, concurrency=concurrency, conflict_retries=30)
    tries, messages = appends(history), columns(history)
    assert set(messages["response"]) == {"ok"}
    assert (tries["result"] == "ok").sum() == 40
    assert bool((tries["result"] == "IntegrityError").sum() > 5) is (concurrency == "optimistic")
    assert messages["attempts"].sum() == len(tries)
    assert versions(history, STOCK) == versions(history, COPY)
    assert messages["duplicates"].sum() == 0


def test_appends_that_conflict_fail_unless_they_are_tried_again(run, burst):
    history = run(ES, burst(40, goods=ONE), 40, conflict_retries=0)
    messages = columns(history)
    failed = messages["response"] == "failed"
    assert failed.sum() > 5
    assert set(messages.loc[failed, "outcome"]) == {"failed"}, "nothing was appended"
    assert set(messages.loc[~failed, "outcome"]) == {"applied"}
    assert versions(history, STOCK)[0] == list(range(1, (~failed).sum() + 1))


def test_appends_to_different_streams_conflict_with_nobody(run, burst):
    assert set(appends(run(ES, burst(40, goods=MANY), 40))["result"]) == {"ok"}


@pytest.mark.parametrize("every", [0, 10])
def test_streams_are_read_from_their_first_event_unless_there_are_snapshots(bench, workload, every):
    """The server counts what it reads of the streams; what it has not said yet it says when its connections end."""
    read = "SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = 'accounting_events_pkey'"
    changes = 120
    with bench(ES, snapshot_every=every, concurrency="lock") as ready, connected(ready) as connection:
        name = sql.Identifier(connection.info.dbname)
        connection.execute(sql.SQL("ALTER DATABASE {} SET enable_seqscan = off").format(name))
        program = ready.services["accounting"].program
        program.stop()
        (before,) = connection.execute(read).fetchone()
        program.start()
        history = ready.run(workload(40.0, only="stock_update", goods=ONE), 1, changes)
        program.stop()
        (after,) = connection.execute(read).fetchone()
        snapshots = connection.execute("SELECT originator_version FROM accounting_snapshots ORDER BY 1").fetchall()
        program.start()
    assert set(columns(history)["response"]) == {"ok"}
    assert [version for (version,) in snapshots] == (list(range(10, changes + 1, 10)) if every else [])
    assert (after - before > changes * changes / 3) is not bool(every), after - before


def test_appends_wait_in_line_for_the_table_so_that_who_reads_by_position_misses_none(bench, burst):
    """A reader that keeps the position of the last event would miss one that is committed after a later position."""
    locks = """SELECT count(*) FILTER (WHERE granted), count(*) FILTER (WHERE NOT granted) FROM pg_locks
               WHERE relation = 'accounting_events'::regclass AND mode = 'ExclusiveLock' AND locktype = 'relation'"""
    seen, over = [], threading.Event()

    def look():
        with connected(ready) as connection:
            while not over.wait(0.001):
                seen.append(connection.execute(locks).fetchone())

    with bench(ES) as ready:
        looking = threading.Thread(target=look)
        looking.start()
        history = ready.run(burst(200, goods=MANY), 1, 200)
        over.set()
        looking.join()
        assert agree(ready)
    granted, waiting = np.array(seen).T
    assert granted.max() == 1 and waiting.max() > 0, "events of different streams, none of which conflicts"
    assert set(columns(history)["outcome"]) == {"applied"}
    assert set(columns(history)["deliveries"]) == {1}


@pytest.mark.parametrize("part", ["shop", "accounting"])
def test_a_subscription_goes_on_at_its_position_whoever_dies(bench, workload, part):
    """Position and copy are written in one transaction: what is read again was not written, and nothing is missed."""
    crash = Crash(part=part, at=(0.8,), restart=0.1)
    with bench(ES, **UNGUARDED) as ready:
        history = ready.run(workload(80.0, goods=MANY, faults=(crash,), **BACKLOG), 1, 100)
        assert agree(ready)
    messages = columns(history)
    assert history.meta["quiet"] and history.check().ok
    assert history.faults.to_pylist()[0]["part"] == part
    assert versions(history, COPY) == versions(history, STOCK)
    assert messages["duplicates"].sum() == 0
    told = messages["response"] == "ok"
    assert set(messages.loc[told, "outcome"]) == {"applied"}
    assert bool(told.all()) is (part == "shop"), (
        "accounting's callers notice that it died, nobody else that the shop did"
    )


def test_a_subscription_hands_out_the_events_of_a_stream_in_their_order_whatever_fails(run, workload):
    flaky = workload(80.0, only="stock_update", handler_failure=0.3, goods=Goods(skus=5))
    history = run(ES, flaky, 100, event_backoff=0.005, event_retries=20, **UNGUARDED)
    assert set(columns(history)["outcome"]) == {"applied"}
    assert columns(history)["deliveries"].max() == 1
    for versions_written in versions(history, COPY).values():
        assert versions_written == list(range(1, len(versions_written) + 1))


@pytest.mark.parametrize("aside", [True, False])
def test_poison_is_set_aside_after_its_tries_or_holds_up_the_events_behind_it(run, workload, aside):
    poison = workload(50.0, only="stock_update", faults=(Poison(probability=0.1),), goods=MANY, horizon=1.0)
    history = run(ES, poison, 60, event_retries=2, event_backoff=0.005, set_aside=aside)
    messages, handled = columns(history), history.attempts.to_pandas().query("block == 'shop.handle'")
    first = handled.loc[handled["result"] != "ok", "message"].min()
    if aside:
        parked = messages["outcome"] == "dead_lettered"
        assert 1 < parked.sum() < 20
        assert set(messages.loc[~parked, "outcome"]) == {"applied"}
        assert set(handled[handled["message"].isin(messages[parked]["message"])].groupby("message").size()) == {3}
    else:
        assert not history.meta["quiet"]
        assert messages.loc[first, "outcome"] == "in_flight"
        near = 5  # updates may be appended in another order than they were issued in
        assert set(messages.loc[messages["message"] < first - near, "outcome"]) <= {"applied"}
        assert set(messages.loc[messages["message"] > first + near, "outcome"]) == {"in_flight"}


@pytest.mark.parametrize("newer", [True, False])
def test_rebuilds_lose_nothing_of_what_comes_meanwhile_and_write_old_levels_again_unless_the_copy_refuses_them(
    bench, workload, newer
):
    with bench(ES, rebuild_every=2.0, write_if_newer=newer) as ready:
        history = ready.run(workload(50.0, goods=Goods(skus=20)), 1, 150)
        assert agree(ready) or not newer, "the next rebuild may be under way"
    messages, counts = columns(history), history.check().counts
    changes = messages[messages["kind"] != "stock_query"]
    assert history.meta["quiet"] and history.check().ok
    assert set(changes["response"]) == {"ok"} and set(changes["outcome"]) == {"applied"}
    assert (changes["deliveries"] > 1).sum() > 20, "read again"
    assert counts["lost"] == counts["half_done"] == 0
    for anomaly in ("duplicated", "reordered"):
        assert counts[anomaly] == 0 if newer else counts[anomaly] > 5


@pytest.mark.parametrize("idempotency", [False, True])
def test_orders_that_are_sent_again_are_taken_twice_unless_they_carry_a_key(run, workload, idempotency):
    impatient = {"timeout": 0.03, "retries": 1, "backoff": 0.01, "idempotency": idempotency}
    messages = columns(run(ES, workload(6.0, only="order", handler_work=Constant(0.05)), 12, **impatient))
    assert set(messages["response"]) == {"timed_out"}
    assert (messages["outcome"] == "applied").sum() > 5, "the caller does not know, but the event was appended"
    assert bool((messages["duplicates"] > 0).any()) is not idempotency
