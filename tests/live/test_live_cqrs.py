"""What CQRS costs its readers, live, and what each remedy is worth: own orders that are not seen, and are; a read model that lags,
goes back in time, catches up after a crash, and answers while accounting is away."""

from __future__ import annotations

import psycopg
import pytest

from simlib.brokers import nats as nats_part
from simlib.distributions import Constant
from simlib.scenario import Crash, Goods, Mix
from tests.conftest import require_part

pytestmark = [pytest.mark.live, pytest.mark.xdist_group("live")]
CURIOUS = {
    "customers": 3, "goods": Goods(skus=20), "mix": Mix(stock_update=0.2, order=0.3, stock_query=0.5), "asks_for_own_order": 1.0,
}  # fmt: skip
"""Few customers of few goods, who look at what they have just ordered."""
LAGGING = {"replicas": 3, "replication": 0.5}
ONE, MANY = Goods(skus=1), Goods(skus=100_000, zipf=0.0)


def columns(history):
    return history.messages.to_pandas()


def counts(history):
    verdict = history.check()
    assert verdict.ok, str(verdict)
    return verdict.counts


def replicas(ready):
    """The rows that each replica of the read model ends with, and those of accounting's own goods."""
    with (
        psycopg.connect(ready.databases["shop"]) as shop,
        psycopg.connect(ready.databases["accounting"]) as accounting,
    ):
        tables = ["goods", *(f"replica_{k}" for k in range(1, ready.parameters["replicas"]))]
        rows = "SELECT sku, level, version FROM {} ORDER BY sku"
        made = accounting.execute(rows.format("goods")).fetchall()
        return [shop.execute(rows.format(table)).fetchall() for table in tables], made


@pytest.mark.parametrize(
    ("remedy", "unseen"),
    [({}, True), ({"read_your_writes": "token", "patience": 5.0}, False), ({"read_your_writes": "sticky"}, False)],
    ids=["none", "token", "sticky"],
)
def test_customers_miss_their_own_orders_unless_they_wait_for_a_version_or_stick_to_a_replica(
    bench, workload, remedy, unseen
):
    with bench("cqrs", **LAGGING, **remedy) as ready:
        history = ready.run(workload(40.0, **CURIOUS), 1, 150)
        shown, made = replicas(ready)
    found = counts(history)
    assert set(columns(history)["response"]) == {"ok"} and history.meta["quiet"]
    assert found["unseen_write"] > 3 if unseen else found["unseen_write"] == 0
    assert found["stale"] > 3, "others' orders are as unseen as before"
    assert shown == [made] * 3, "in the end all replicas are as accounting is"


def test_queries_that_stray_from_their_replica_miss_what_was_ordered(run, workload):
    astray = run("cqrs", workload(40.0, **CURIOUS), 150, read_your_writes="sticky", affinity=0.0, **LAGGING)
    assert counts(astray)["unseen_write"] > 3


def test_queries_that_wait_for_a_version_are_answered_with_what_there_is_when_their_patience_is_over(run, workload):
    hasty = run("cqrs", workload(40.0, **CURIOUS), 150, read_your_writes="token", patience=0.01, **LAGGING)
    assert set(columns(hasty)["response"]) == {"ok"}
    assert counts(hasty)["unseen_write"] > 3


@pytest.mark.parametrize("newer", [True, False])
def test_events_that_come_again_take_the_read_model_back_unless_it_knows_versions(bench, workload, newer):
    flaky = workload(60.0, only="stock_update", goods=ONE, handler_failure=0.2)
    with bench("cqrs", write_if_newer=newer, max_deliveries=20) as ready:
        found = counts(ready.run(flaky, 1, 100))
        shown, made = replicas(ready)
    assert found["reordered"] == 0 if newer else found["reordered"] > 5
    assert shown == [made] * 2 or not newer


@pytest.mark.parametrize("manual", [False, True])
def test_a_killed_projection_catches_up_from_what_it_has_not_acknowledged(run, workload, manual):
    """It dies with a backlog in hand."""
    crash = Crash(part="shop", at=(0.8,), restart=0.1)
    struck = workload(80.0, only="stock_update", handler_work=Constant(0.02), goods=MANY, faults=(crash,))
    history = run("cqrs", struck, 100, manual_ack=manual, ack_wait=1.0)
    found = counts(history)
    assert history.meta["quiet"] and history.faults.to_pylist()[0]["part"] == "shop"
    assert set(columns(history)["response"]) == {"ok"}, "commands do not notice it"
    assert (found["lost"] > 0, found["half_done"] > 0) == (not manual, not manual)
    assert found["duplicated"] == 0, "the receiver knows what it wrote"


def test_queries_are_answered_while_accounting_is_down_and_commands_are_not(run, workload):
    crash = Crash(part="accounting", at=(0.5,), restart=1.0)
    messages = columns(run("cqrs", workload(60.0, faults=(crash,)), 120))
    told = messages.groupby("kind", observed=True)["response"].agg(set)
    assert told["stock_query"] == {"ok"}
    assert told["stock_update"] > {"ok"}


@pytest.mark.parametrize("retries", [0, 20])
def test_while_the_broker_is_killed_updates_are_indeterminate_unless_they_are_published_again(bench, workload, retries):
    require_part(nats_part.found() is not None, f"no NATS: {nats_part.INSTALL}")
    struck = workload(40.0, goods=MANY, faults=(Crash(part="broker", at=(0.8,), restart=0.5),))
    with bench("cqrs", own_broker=True, confirm_timeout=0.2, confirm_retries=retries, ack_wait=1.0) as ready:
        history = ready.run(struck, 1, 120)
        shown, made = replicas(ready)
    messages, found = columns(history), counts(history)
    updates = messages[messages["kind"] == "stock_update"]
    assert history.meta["quiet"] and history.faults.to_pylist()[0]["part"] == "broker"
    assert set(messages.query("kind != 'stock_update'")["response"]) == {"ok"}, "orders and queries do not need it"
    assert bool((updates["response"] == "timed_out").sum() > 2) is (retries == 0)
    assert found["lost"] == found["duplicated"] == 0
    assert retries == 0 or (found["half_done"] == 0 and shown == [made] * 2)
