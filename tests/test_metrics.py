"""Each metric of a few messages is the number that a person counts; tables and the overload rule keep their word."""

import math
import time

import numpy as np
import pyarrow.compute as pc
import pytest

from simlib.domain import (
    ANNOUNCED,
    CONFIRMED,
    COPIED,
    ISSUED,
    ORDER,
    PAID,
    SHIPPED,
    STOCK_QUERY,
    STOCK_UPDATE,
    TAKEN,
    undone,
)
from simlib.engines import ENGINES, simulate
from simlib.errors import BadInput
from simlib.flow import Exponential, Flow, ack, apply, for_each, publish, receive, wait_until
from simlib.history import History, to_table
from simlib.metrics import REGISTRY, measure, metric_of, overloaded, table, unit_of, warmup

OK = {"response": "ok", "outcome": "applied"}
PROMISED = (
    *(f"{time}_{s}" for time in ("response_time", "delivery_time") for s in ("mean", "p50", "p95", "p99")),
    *("responded_fraction", "delivered_fraction", "throughput", "goodput", "utilisation.POOL", "backlog_max"),
    *("drain_time", "lost", "duplicated", "reordered", "stale", "failed", "dead_lettered", "retry_amplification"),
    *("compensated", "half_finished", "miscounted"),
    *("oversold_units", "undersold_units", "stale_read_fraction", "read_your_writes_violations"),
    *(f"age_of_information_{s}" for s in ("mean", "p95", "max")),
)


def test_the_registry_holds_every_promised_metric_with_unit_and_formula():
    assert sorted(REGISTRY) == sorted(PROMISED)
    assert all(metric.unit and len(metric.formula) > 15 for metric in REGISTRY.values())


def test_response_times_count_who_gave_up_and_say_who_was_never_answered(make_history):
    history = make_history(
        [
            {"kind": ORDER, "issued": 0.0, "responded": 0.2, "response": "ok"},
            {"kind": ORDER, "issued": 1.0, "responded": 1.4, "response": "ok"},
            {"kind": ORDER, "issued": 2.0, "responded": 3.0, "response": "timed_out"},
            {"kind": ORDER, "issued": 3.0},
            {"kind": STOCK_QUERY, "issued": 4.0, "responded": 4.1, "response": "ok", "outcome": "answered"},
        ]
    )
    found = measure(history)
    assert found["response_time_mean.order"] == pytest.approx((0.2 + 0.4 + 1.0) / 3)
    assert found["response_time_p50.order"] == pytest.approx(0.4)
    assert found["responded_fraction.order"] == 0.75
    assert found["response_time_mean.stock_query"] == pytest.approx(0.1)
    assert found["response_time_mean"] == pytest.approx((0.1 + 0.2 + 0.4 + 1.0) / 4)
    assert found["response_time_p50"] == pytest.approx(0.3)
    assert found["response_time_p95"] == pytest.approx(0.4 + 0.85 * 0.6)  # 0.95 × 3 steps between four values
    assert found["responded_fraction"] == 0.8
    assert math.isnan(found["response_time_p99.stock_update"])
    assert math.isnan(found["responded_fraction.stock_update"])


def test_processes_are_whole_half_finished_or_undone(make_history):
    """Five orders of a process: whole; paid for and not shipped; undone, twice; and refused at the first step."""
    whole = [(0, TAKEN, 0.1), (0, PAID, 0.2), (0, SHIPPED, 0.3), (0, CONFIRMED, 0.4)]
    half = [(1, TAKEN, 1.1), (1, PAID, 1.2)]
    undoing = [(i, effect, i + 0.1) for i in (2, 3) for effect in (TAKEN, undone(TAKEN))]
    told = {"responded": 4.5, "response": "refused"}
    orders = [{**OK}, {**OK}, {**told, "outcome": "compensated"}, {**told, "outcome": "compensated"}]
    messages = [{"kind": ORDER, "issued": float(i), **how} for i, how in enumerate([*orders, {"outcome": "rejected"}])]
    found = measure(make_history(messages, [*whole, *half, *undoing], process="fulfilment", timeout=1.0))
    assert (found["half_finished"], found["compensated"]) == (1.0, 2.0)
    assert found["goodput"] == pytest.approx(1 / 4.0)  # until the last arrival
    simple = measure(make_history(messages[:2], [*whole, *half]))
    assert (simple["half_finished"], simple["compensated"]) == (0.0, 0.0)


def test_delivery_is_the_copy_of_an_update_and_the_stock_of_an_order_and_nothing_of_a_query(make_history):
    history = make_history(
        [
            {"kind": STOCK_UPDATE, "issued": 0.0, **OK},
            {"kind": ORDER, "issued": 1.0, **OK},
            {"kind": STOCK_UPDATE, "issued": 2.0, "response": "ok", "outcome": "superseded"},
            {"kind": STOCK_QUERY, "issued": 3.0, "response": "ok", "outcome": "answered"},
        ],
        [(0, ISSUED, 0.1), (0, COPIED, 0.5), (1, TAKEN, 1.2), (1, ANNOUNCED, 1.9), (2, ISSUED, 2.1)],
    )
    found = measure(history)
    assert found["delivery_time_mean.stock_update"] == pytest.approx(0.5)
    assert found["delivery_time_mean.order"] == pytest.approx(0.2)
    assert found["delivery_time_mean"] == pytest.approx(0.35)
    assert found["delivered_fraction.stock_update"] == 0.5
    assert found["delivered_fraction"] == pytest.approx(2 / 3)
    assert "delivery_time_mean.stock_query" not in found


def test_throughput_counts_what_settled_between_the_warm_up_and_the_last_arrival(make_history):
    history = make_history(
        [
            {"kind": STOCK_UPDATE, "issued": 1.0, "responded": 1.5, **OK},  # settled at its effect: 1.8
            {"kind": STOCK_UPDATE, "issued": 2.0, "responded": 2.5, "response": "ok", "outcome": "superseded"},
            {"kind": STOCK_UPDATE, "issued": 4.0, "responded": 4.1, **OK},  # after the last arrival
            {"kind": STOCK_UPDATE, "issued": 5.0, "responded": 5.5, "response": "ok", "outcome": "in_flight"},
            {"kind": STOCK_UPDATE, "issued": 10.0, "responded": 10.2, "response": "ok", "outcome": "lost"},
        ],
        [(0, COPIED, 1.8), (2, COPIED, 10.5)],
    )
    assert measure(history)["throughput"] == pytest.approx(2 / 10)
    assert measure(history, cut=1)["throughput"] == pytest.approx(1 / 8)  # 2.5 alone lies in 2 … 10


def test_goodput_leaves_out_what_is_late_doubled_refused_or_unanswered(make_history):
    messages = [
        {"kind": STOCK_UPDATE, "issued": 0.0, "responded": 0.2, **OK},
        {"kind": STOCK_UPDATE, "issued": 1.0, "responded": 1.2, **OK},  # late: 1.5 s
        {"kind": ORDER, "issued": 2.0, "responded": 2.4, **OK},  # twice
        {"kind": ORDER, "issued": 3.0, "responded": 3.2, "response": "refused", "outcome": "rejected"},
        {"kind": STOCK_QUERY, "issued": 4.0, "responded": 4.4, "response": "ok", "outcome": "answered"},
        {"kind": STOCK_QUERY, "issued": 5.0, "responded": 6.0, "response": "timed_out"},
        {"kind": STOCK_QUERY, "issued": 10.0, "responded": 10.1, "response": "ok", "outcome": "answered"},
    ]
    effects = [(0, COPIED, 0.5), (2, TAKEN, 2.3), (1, COPIED, 2.5), (2, TAKEN, 2.6)]
    patient, impatient = make_history(messages, effects), make_history(messages, effects, timeout=1.0)
    assert measure(impatient)["throughput"] == pytest.approx(6 / 10)
    assert measure(impatient)["goodput"] == pytest.approx(2 / 10)
    assert measure(patient)["goodput"] == pytest.approx(3 / 10)


def test_utilisation_is_busy_time_from_the_warm_up_to_the_last_arrival(make_history):
    history = make_history(
        [{"kind": "job", "issued": at} for at in (0.0, 5.0, 10.0)],
        pools=[("cpu", 2, 0, 5, 4.0), ("cpu", 2, 5, 10, 8.0), ("cpu", 2, 10, 15, 0.0), ("disk", 1, 0, 5, 1.0)],
    )
    assert measure(history)["utilisation.cpu"] == pytest.approx((0.4 + 0.8) / 2)
    assert measure(history)["utilisation.disk"] == pytest.approx(0.2)
    assert measure(history, cut=1)["utilisation.cpu"] == pytest.approx(0.8)
    assert math.isnan(measure(history, cut=1)["utilisation.disk"])


def test_backlog_and_drain_follow_messages_until_their_last_effect(make_history):
    messages = [{"kind": STOCK_UPDATE, "issued": at, "responded": at + 0.1, **OK} for at in (0.0, 1.0, 2.0, 3.0)]
    effects = [(0, COPIED, 3.0), (1, COPIED, 3.5), (3, COPIED, 4.0), (2, COPIED, 5.0)]
    found = measure(make_history(messages, effects))
    assert found["backlog_max"] == 3  # 0, 1, 2 at time 2; 0 is gone when 3 comes
    assert found["drain_time"] == pytest.approx(5.0 - 3.0)
    messages[3]["outcome"] = "in_flight"
    found = measure(make_history(messages, effects))
    assert found["backlog_max"] == 3
    assert math.isnan(found["drain_time"])


def test_anomalies_count_messages_and_attempts_those_attempted(make_history):
    messages = [
        {"kind": STOCK_UPDATE, "issued": 0.0, "version": 1, "response": "ok", "outcome": "lost", "attempts": 1},
        {"kind": STOCK_UPDATE, "issued": 1.0, "version": 2, **OK, "attempts": 2},
        {"kind": STOCK_UPDATE, "issued": 2.5, "version": 3, "outcome": "dead_lettered", "attempts": 5},
        {"kind": STOCK_UPDATE, "issued": 3.0, "version": 4, **OK, "attempts": 1},
        {"kind": STOCK_UPDATE, "issued": 4.0, "version": 5, **OK, "attempts": 1},
        {"kind": STOCK_QUERY, "issued": 6.0, "responded": 6.1, "version": 4, "response": "ok", "attempts": 0},
        {
            "kind": STOCK_QUERY,
            "issued": 7.0,
            "responded": 7.1,
            "response": "failed",
            "outcome": "failed",
            "attempts": 0,
        },
        {"kind": ORDER, "issued": 8.0, "responded": 9.0, "response": "timed_out", "outcome": "failed", "attempts": 0},
        {"kind": ORDER, "issued": 9.0, "responded": 9.1, "response": "refused", "outcome": "rejected", "attempts": 0},
    ]
    effects = [
        *((0, ISSUED, 0.0, 1), (1, ISSUED, 1.0, 2), (1, COPIED, 2.0, 2), (1, COPIED, 2.2, 2), (1, COPIED, 2.3, 2)),
        *((2, ISSUED, 2.5, 3), (3, ISSUED, 3.0, 4), (4, ISSUED, 4.0, 5), (4, COPIED, 4.9, 5), (3, COPIED, 5.0, 4)),
    ]
    found = measure(make_history(messages, effects))
    assert found["lost"] == 1
    assert found["duplicated"] == 1  # one message, though its effect came thrice
    assert found["failed"] == 2, "told so, or given up; not refused"
    assert found["dead_lettered"] == 1
    assert found["reordered"] == 1
    assert found["stale"] == 1
    assert found["retry_amplification"] == pytest.approx((1 + 2 + 5 + 1 + 1) / 5)


def _sales():
    refused = {"response": "refused", "outcome": "rejected"}
    messages = [
        {"kind": ORDER, "issued": 0.0, "responded": 0.2, **OK},
        {"kind": ORDER, "issued": 1.0, "responded": 1.1, "response": "ok", "outcome": "rejected"},  # oversold: 1
        {"kind": ORDER, "issued": 2.0, "responded": 2.1, "response": "ok", "outcome": "rejected", "quantity": 3},  # 3
        {"kind": ORDER, "issued": 3.0, "responded": 3.1, **refused},  # rightly: none left
        {"kind": STOCK_UPDATE, "issued": 4.0, "quantity": 2, **OK},
        {"kind": ORDER, "issued": 4.5, "responded": 4.6, **refused},  # undersold: 1, for two are left
        {"kind": ORDER, "issued": 5.0, "responded": 5.1, "quantity": 3, **refused},  # rightly: two are too few
        {"kind": ORDER, "issued": 5.5, "responded": 5.6, "sku": 1, "quantity": 5, **refused},  # undersold: 5 of 5
        {"kind": ORDER, "issued": 6.0, "responded": 8.0, **refused},  # rightly: the last went meanwhile
        {"kind": ORDER, "issued": 6.5, "responded": 7.1, "quantity": 2, **OK},
    ]
    effects = [(0, TAKEN, 0.5, 1, -1), (4, ISSUED, 4.0, 2, 2), (4, COPIED, 4.4, 2), (9, TAKEN, 7.0, 3, -2)]
    return messages, effects


def test_oversold_is_promised_and_rejected_undersold_is_refused_though_accounting_had_it(make_history):
    found = measure(make_history(*_sales(), stock={"units": 5, "sale": 1}))
    assert found["oversold_units"] == 1 + 3
    assert found["undersold_units"] == 1 + 5


def test_without_the_initial_stock_nobody_can_say_what_was_undersold(make_history):
    found = measure(make_history(*_sales()))
    assert found["oversold_units"] == 4
    assert math.isnan(found["undersold_units"])


def _reads():
    def query(session, issued, responded, version, sku=0):
        times = {"issued": issued, "responded": responded, "response": "ok", "outcome": "answered"}
        return {"kind": STOCK_QUERY, "session": session, "sku": sku, "version": version, **times}

    def order(session, issued, responded, version, sku=0):
        return {**query(session, issued, responded, version, sku), "kind": ORDER, "outcome": "applied"}

    messages = [
        {"kind": STOCK_UPDATE, "issued": 1.0, "version": 1, "response": "ok", "outcome": "superseded"},
        query(7, 2.0, 2.5, 0),  # stale; out of date since 1.0: age 1.5
        order(7, 2.6, 2.8, 2),
        query(7, 2.9, 3.2, 1),  # not stale, for 2 is made at 3.0, but does not show the own order; age 0.2
        query(8, 3.5, 3.6, 1),  # stale, and a stranger's order; age 0.6
        query(7, 4.0, 4.1, 2),  # fresh
        {"kind": STOCK_QUERY, "session": 7, "issued": 4.2, "responded": 5.2, "response": "timed_out"},  # no read
        query(7, 4.5, 4.6, 0, sku=1),  # fresh
        order(7, 4.7, 4.8, 1, sku=1),
        query(7, 4.9, 5.0, 1),  # stale, but the last order is of another SKU; age 2.0
        order(9, 5.1, 5.6, 3),
        query(9, 5.3, 5.35, 2),  # fresh, and the order is not answered yet
    ]
    effects = [(0, ISSUED, 1.0, 1), (2, TAKEN, 3.0, 2), (10, TAKEN, 5.4, 3), (8, TAKEN, 5.5, 1)]
    return messages, effects


def test_reads_are_stale_by_what_was_made_before_them_and_aged_by_what_replaced_them(make_history):
    found = measure(make_history(*_reads()))
    assert found["stale"] == 3
    assert found["stale_read_fraction"] == pytest.approx(3 / 7)
    assert found["age_of_information_mean"] == pytest.approx((1.5 + 0.2 + 0.6 + 2.0) / 7)
    assert found["age_of_information_max"] == pytest.approx(2.0)
    assert found["age_of_information_p95"] == pytest.approx(1.5 + 0.7 * 0.5)  # 0.95 × 6 steps between seven values


def test_read_your_writes_asks_for_the_customers_own_last_order_once_it_is_answered(make_history):
    assert measure(make_history(*_reads()))["read_your_writes_violations"] == 1


def test_a_cut_leaves_counts_alone_and_drops_early_times(make_history):
    history = make_history(*_reads())
    whole, cut = measure(history), measure(history, cut=3)
    assert cut["stale"] == whole["stale"]
    assert cut["read_your_writes_violations"] == whole["read_your_writes_violations"]
    assert cut["stale_read_fraction"] == whole["stale_read_fraction"]
    assert cut["age_of_information_mean"] == pytest.approx((0.2 + 0.6 + 2.0) / 6)
    assert cut["response_time_mean.order"] == pytest.approx((0.1 + 0.5) / 2)
    assert cut["delivery_time_mean.order"] == pytest.approx((0.8 + 0.3) / 2)
    assert math.isnan(cut["delivered_fraction.stock_update"])  # the only one is cut


def test_numbers_of_nothing_are_nan_and_counts_of_nothing_are_zero(make_history):
    found = measure(make_history([]))
    assert math.isnan(found["response_time_mean"])
    assert math.isnan(found["throughput"])
    assert math.isnan(found["backlog_max"])
    assert found["lost"] == 0


def test_other_workloads_have_the_kinds_that_they_have(make_history):
    found = measure(make_history([{"kind": "job", "issued": 0.0, "responded": 2.0, **OK}], [(0, "done", 3.0)]))
    assert found["response_time_mean.job"] == 2.0
    assert found["delivery_time_mean.job"] == 3.0
    assert "response_time_mean.order" not in found


def queue(load: float, n: int, seed: int, **meta: object) -> History:
    """An M/M/1 queue with a mean service time of 1 s, by Lindley's recursion."""
    rng = np.random.default_rng(seed)
    arrived, work = np.cumsum(rng.exponential(1 / load, n)), rng.exponential(1.0, n)
    before = np.cumsum(work) - work
    left = before + work + np.maximum.accumulate(arrived - before)
    columns = {
        **{name: np.full(n, -1) for name in ("session", "version", "answer")},
        **{name: np.zeros(n, int) for name in ("sku", "quantity", "deliveries", "duplicates")},
        **{name: np.ones(n, int) for name in ("attempts", "effects")},
        **{"message": np.arange(n), "issued": arrived, "responded": left, "applied": left},
        **{"kind": ["job"] * n, "read_from": [""] * n, "response": ["ok"] * n, "outcome": ["applied"] * n},
    }
    order = np.argsort(left, kind="stable")
    effects = {
        **{"message": order, "effect": ["done"] * n, "store": [""] * n, "time": left[order]},
        **{name: np.zeros(n, int) for name in ("sku", "change", "delivery")},
        "version": np.full(n, -1),
    }
    bins = {name: [] for name in ("start", "end", "capacity", "busy", "waiting", "unacknowledged")}
    parts = {**bins, **{name: [] for name in ("name", "kind", "waiting_max", "completed")}}
    faults = {name: [] for name in ("fault", "part", "start", "end", "message")}
    attempts = {name: [] for name in ("message", "block", "attempt", "start", "end", "result")}
    tables = {"messages": columns, "effects": effects, "parts": parts, "faults": faults, "attempts": attempts}
    return History(**{name: to_table(name, rows) for name, rows in tables.items()}, meta=meta)


def test_a_table_has_a_row_each_metric_with_its_interval_and_unit():
    history = queue(0.5, 20_000, seed=1, stationary=True)
    rows = table(history).set_index("name")
    values = measure(history, warmup(history))
    assert list(rows.index) == list(values)
    assert list(rows.columns) == ["value", "low", "high", "unit"]
    for name, row in rows.iterrows():
        assert row.value == pytest.approx(values[name], nan_ok=True)
        assert row.unit == unit_of(name)
        assert not row.low > row.value > row.high
    assert rows.low["response_time_mean"] < 2.0 < rows.high["response_time_mean"]  # 1 / (1 − 0.5)
    assert rows.low["response_time_p95.job"] < -2 * math.log(0.05) < rows.high["response_time_p95.job"]
    assert rows.low["throughput"] < 0.5 < rows.high["throughput"]
    assert math.isnan(rows.low["lost"])  # a count of one run is a fact


def test_a_terminating_run_is_one_observation_and_has_no_interval():
    history = queue(0.5, 20_000, seed=1, stationary=False)
    assert warmup(history) == 0
    rows = table(history)
    assert rows.low.isna().all()
    assert rows.value.notna().any()


def test_the_times_of_an_overloaded_point_are_withheld_and_its_throughput_is_not():
    rows = table(queue(1.3, 5_000, seed=1, stationary=True)).set_index("name")
    assert math.isnan(rows.value["response_time_mean"])
    assert math.isnan(rows.value["delivery_time_p99.job"])
    assert rows.value["throughput"] == pytest.approx(1.0, rel=0.05)
    assert rows.value["backlog_max"] > 1000
    assert rows.value["responded_fraction"] == 1.0


def test_backlog_that_grows_at_the_end_is_overload_and_backlog_that_wavers_is_not():
    assert sum(overloaded(queue(1.1, 10_000, seed)) for seed in range(40)) >= 38
    assert sum(overloaded(queue(0.8, 10_000, seed)) for seed in range(40)) == 0
    assert sum(overloaded(queue(0.9, 10_000, seed)) for seed in range(40)) <= 2


def test_a_point_at_its_capacity_is_overloaded_before_its_backlog_shows_it():
    history = queue(0.5, 1_000, seed=3)
    assert not overloaded(history)
    assert not overloaded(history, capacity=0.6)
    assert overloaded(history, capacity=0.5)


def test_a_pool_that_is_busy_all_the_time_is_overload(make_history):
    messages = [{"kind": "job", "issued": at} for at in (0.0, 5.0, 10.0)]
    assert overloaded(make_history(messages, pools=[("cpu", 2, 0, 5, 9.4), ("cpu", 2, 5, 10, 9.7)]))
    assert not overloaded(make_history(messages, pools=[("cpu", 2, 0, 5, 9.4), ("cpu", 2, 5, 10, 9.4)]))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_lock_that_is_held_all_the_time_is_no_overload(engine):
    flow = Flow("held")
    lock, desk = flow.pool("lock", lock=True), flow.part("desk")
    jobs = desk.queue("jobs")
    flow.source("job", interarrival=Exponential(mean=1.0), steps=[publish(jobs)])
    turn = [lock.seize(), wait_until(jobs), receive(jobs, 1), lock.release(), for_each([apply("done")]), ack()]
    flow.actor("clerk", desk, turn)
    history = simulate(flow, messages=500, seed=1, engine=engine)
    held = history.parts.filter(pc.equal(history.parts["name"], "lock"))
    assert set(held["kind"].to_pylist()) == {"lock"} and held["busy"].to_numpy().sum() > 400
    assert not overloaded(history)
    assert not table(history)["name"].str.startswith("utilisation.lock").any()


def test_a_start_from_a_backlog_is_cut_as_warm_up():
    history = queue(0.5, 5_000, seed=2, stationary=True)
    late = np.where(np.arange(5_000) < 300, 100.0, 0.0)
    column = history.messages.schema.get_field_index("responded")
    responded = history.messages["responded"].to_numpy() + late
    messages = history.messages.set_column(column, "responded", [responded])
    assert 295 <= warmup(History(messages, history.effects, history.parts, history.faults, history.attempts)) <= 320


def test_full_names_know_their_metric_and_wrong_ones_are_refused_with_a_hint():
    assert metric_of("response_time_p95.order") is REGISTRY["response_time_p95"]
    assert unit_of("utilisation.shop.cpu") == "1"
    for wrong in ("respons_time_p95", "lost.order", "utilisation"):
        with pytest.raises(BadInput, match="unknown metric"):
            unit_of(wrong)
    with pytest.raises(BadInput, match="did you mean 'goodput'"):
        unit_of("godput")


def test_a_saved_history_measures_the_same(make_history, tmp_path):
    history = make_history(*_reads(), stock={"units": 5, "sale": 1})
    history.save(tmp_path)
    assert measure(History.load(tmp_path)) == pytest.approx(measure(history), nan_ok=True)


def test_measuring_twenty_thousand_messages_is_quick():
    history = queue(0.5, 20_000, seed=1)

    def elapsed() -> float:
        start = time.perf_counter()
        measure(history)
        return time.perf_counter() - start

    assert min(elapsed() for _ in range(5)) < 0.15
