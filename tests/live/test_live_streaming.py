"""What the mechanisms of the streaming twin are worth on Kafka: without one something is lost, doubled or done for ever."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections import Counter

import psycopg
import pytest
from confluent_kafka import Consumer, TopicPartition

from simlib.brokers.kafka import address
from simlib.distributions import Constant
from simlib.scenario import Crash, Poison

pytestmark = [pytest.mark.live, pytest.mark.xdist_group("live")]
UNGUARDED = {"idempotent_receiver": False, "write_if_newer": False}
"""What arrives is written, whatever was written before."""


def columns(history):
    return history.messages.to_pandas()


def published(ready, server, topic):
    """The records of a run's topic: when each was made (ms of the epoch), and its body."""
    name = f"{json.loads((ready.folder / 'shop.json').read_text())['prefix']}_{topic}"
    consumer = Consumer({"bootstrap.servers": address(server.url), "group.id": "reader", "enable.auto.commit": False})
    parts = [TopicPartition(name, i, 0) for i in range(ready.parameters["partitions"])]
    missing = sum(consumer.get_watermark_offsets(part, 5.0)[1] for part in parts)
    consumer.assign(parts)
    records = []
    while len(records) < missing:
        records += consumer.consume(missing - len(records), 5.0)
    consumer.close()
    return [(record.timestamp()[1], json.loads(record.value())) for record in records]


@pytest.mark.parametrize(
    ("guarantee", "lost", "doubled"),
    [("at_most_once", True, False), ("at_least_once", False, True), ("exactly_once", False, False)],
)
def test_positions_committed_before_lose_those_after_double_and_those_with_the_effects_do_neither(
    run, workload, guarantee, lost, doubled
):
    """The shop is killed with a backlog of records in hand; each is written again where it is read again."""
    struck = workload(
        80.0, only="stock_update", handler_work=Constant(0.02), faults=(Crash(part="shop", at=(0.8,), restart=0.1),)
    )
    history = run("streaming", struck, 100, guarantee=guarantee, **UNGUARDED)
    messages, verdict = columns(history), history.check()
    assert history.meta["quiet"] and verdict.ok, str(verdict)
    assert bool((messages["outcome"] == "lost").any()) is lost
    assert bool((messages["duplicates"] > 0).any()) is doubled
    assert history.faults.to_pylist()[0]["part"] == "shop"


def test_positions_committed_by_the_clock_double_what_was_done_since_the_last(run, workload):
    """The shop, which has nothing in hand for most of the time, is killed after what it would commit in a minute."""
    struck = workload(40.0, only="stock_update", faults=(Crash(part="shop", at=(1.5,), restart=0.1),))
    doubled = {}
    for interval in (0.0, 0.1, 60.0):
        history = run("streaming", struck, 100, auto_commit_interval=interval, **UNGUARDED)
        assert history.check().ok and history.check().counts["lost"] == 0
        doubled[interval] = history.check().counts["duplicated"]
    assert doubled[0.0] <= 2 and doubled[0.1] <= 15 and doubled[60.0] > 30


def test_a_group_goes_on_where_it_was_and_an_idempotent_receiver_knows_what_it_reads_again(bench, workload):
    with bench("streaming", own_broker=True) as ready:
        crashes = tuple(Crash(part=part, at=(at,), restart=0.1) for part, at in (("shop", 0.5), ("broker", 2.5)))
        history = ready.run(workload(30.0, handler_work=Constant(0.01), faults=crashes), 1, 240)
        messages, verdict = columns(history), history.check().as_dict()
        assert history.check().ok and history.meta["quiet"]
        assert verdict["lost"] == verdict["duplicated"] == 0
        assert {"ok"} < set(messages["response"]), "who called the shop while it was down knows that it failed"
        assert [fault["part"] for fault in history.faults.to_pylist()] == ["shop", "broker"]
        quiet = ready.run(workload(40.0), 2, 40)
        assert set(columns(quiet)["outcome"]) <= {"applied", "answered", "superseded"}


def test_the_order_of_each_sku_in_the_log_is_kept_whatever_fails(bench, workload, kafka):
    """The order of records, not of versions: two changes may be published in the other order than they were committed."""
    flaky = workload(100.0, only="stock_update", handler_failure=0.3)
    flaky = flaky.model_copy(update={"goods": flaky.goods.model_copy(update={"skus": 5})})
    with bench("streaming", handler_backoff=0.005, session_timeout=10.0, **UNGUARDED) as ready:
        history = ready.run(flaky, 1, 100)
        first = ready.numbered - 100
        records = [update for _, update in published(ready, kafka, "updates") if update["message"] >= first]
    effects = history.effects.to_pandas().query("store == 'copy'")
    assert set(columns(history)["outcome"]) == {"applied"}
    for sku, writes in effects.groupby("sku"):
        in_the_log = [update["message"] - first for update in records if update["sku"] == sku]
        assert writes["message"].tolist() == in_the_log


def test_poison_is_set_aside_after_the_last_try_and_the_records_behind_it_come(run, workload):
    poison = workload(50.0, only="stock_update", faults=(Poison(probability=0.2),))
    messages = columns(run("streaming", poison, 60, handler_retries=2, handler_backoff=0.005))
    assert 3 < (messages["outcome"] == "dead_lettered").sum() < 30
    assert set(messages["outcome"]) <= {"applied", "superseded", "dead_lettered"}


def paused(ready, broker, scenario, messages, seconds, over):
    """The history of a run during which the broker's process stands still for so long, and again until it is `over`, asked with
    a connection to accounting's database; and how often it did. The client looks for what is too old once a second."""

    def pause():
        begun = f"SELECT count(*) FROM effects WHERE message >= {ready.numbered + 10}"
        with psycopg.connect(ready.databases["accounting"], autocommit=True) as connection:
            while connection.execute(begun).fetchone()[0] == 0:
                time.sleep(0.02)
            while not over(connection, len(pauses)):
                os.kill(broker, signal.SIGSTOP)
                time.sleep(seconds)
                os.kill(broker, signal.SIGCONT)
                pauses.append(seconds)
                time.sleep(0.5)

    pauses = []
    pausing = threading.Thread(target=pause)
    pausing.start()
    history = ready.run(scenario, 1, messages)
    pausing.join()
    return history, len(pauses)


def test_records_that_are_sent_again_are_there_twice_unless_the_producer_is_idempotent(bench, workload, kafka):
    """The broker pauses until a record is there twice, and as often where the producer numbers its records."""
    hasty = {"confirm_timeout": 0.15, "confirm_retries": 30, "retry_backoff": 0.02, "session_timeout": 10.0}
    orders = workload(20.0, only="order")

    def doubled(idempotent, over):
        with bench("streaming", idempotent_producer=idempotent, **hasty, **UNGUARDED) as ready:
            history, pauses = paused(ready, kafka.pid, orders, 120, 1.3, over)
        messages = columns(history)
        assert set(messages["outcome"]) <= {"applied", "rejected"}
        return (messages["duplicates"] > 0).sum(), pauses

    def seen(connection, pauses):
        twice = "SELECT message FROM effects GROUP BY message HAVING count(*) > 1"
        return pauses == 4 or connection.execute(twice).fetchone()

    times, needed = doubled(False, seen)
    assert times > 0
    assert doubled(True, lambda _, pauses: pauses == needed) == (0, needed)


def test_a_publication_without_a_confirm_is_indeterminate(bench, workload, kafka):
    once = {"confirm_timeout": 0.2, "confirm_retries": 0, "idempotent_producer": False, "session_timeout": 5.0}
    with bench("streaming", **once) as ready:
        updates = workload(40.0, only="stock_update")
        messages = columns(paused(ready, kafka.pid, updates, 80, 2.5, lambda _, pauses: pauses == 1)[0])
    unheard = messages[messages["response"] == "timed_out"]
    assert len(unheard) > 5
    assert (unheard["outcome"] == "applied").sum() > 0, "some were in the log all the same"


@pytest.mark.parametrize("strategy", ["roundrobin", "cooperative-sticky"])
def test_a_process_that_is_killed_alone_leaves_its_partitions_to_the_other_and_nothing_is_lost(run, workload, strategy):
    """The shop's second process is dead for six seconds. Two of the four partitions, those that it read, stand still until that is
    noticed; then all are written to, before it is back."""
    killed = workload(100.0, only="stock_update", faults=(Crash(part="shop.2", at=(1.0,), restart=6.0),))
    killed = killed.model_copy(update={"goods": killed.goods.model_copy(update={"skus": 1000, "zipf": 0.0})})
    apart = {"members": 2, "processes": 2, "session_timeout": 2.0, "partition_assignment_strategy": strategy}
    history = run("streaming", killed, 900, **apart)
    verdict = history.check()
    assert history.meta["quiet"] and verdict.ok, str(verdict)
    assert (verdict.counts["lost"], verdict.counts["duplicated"]) == (0, 0)
    [fault] = history.faults.to_pylist()
    copied = history.effects.to_pandas().query("effect == 'copied'")

    def written(begin, end):
        return set(copied[copied["time"].between(fault["start"] + begin, fault["start"] + end)]["sku"] % 4)

    assert len(written(0.05, 1.2)) == 2
    assert written(4.0, fault["end"] - fault["start"]) == {0, 1, 2, 3}
    assert set(columns(history)["outcome"]) <= {"applied", "superseded"}


def test_polls_that_last_longer_than_the_group_waits_are_done_again_and_shorter_ones_are_not(run, workload):
    """All that comes is there at once, and keeps both members in the one event loop busy for longer than three seconds: the client
    looks at the time of the last poll once a second."""
    slow = workload(400.0, only="stock_update", handler_work=Constant(0.09), horizon=12.0)
    impatient, patient = (
        columns(run("streaming", slow, 40, session_timeout=1.5, max_poll_interval=poll)) for poll in (1.5, 60.0)
    )
    assert impatient["deliveries"].max() > 1
    assert patient["deliveries"].max() == 1


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_windows_publish_counts_again_where_their_program_is_killed_unless_they_are_committed_with_its_position(
    bench, workload, kafka, guarantee
):
    """Its state dies with it, and what it had counted since its last commit, when it warmed up, is counted again: right, from the
    changelog and the position that belongs to it; but with at least once the counts of before were published too."""
    killed = workload(60.0, only="order", faults=(Crash(part="windows", at=(1.0,), restart=0.1),))
    with bench("streaming", window=5.0, commit_interval=8.0, session_timeout=2.0, guarantee=guarantee) as ready:
        history = ready.run(killed, 1, 200)
        records = published(ready, kafka, "orders")
        first = ready.numbered - 200
    assert history.meta["quiet"] and [fault["part"] for fault in history.faults.to_pylist()] == ["windows"]
    assert history.check().ok and (history.check().counts["miscounted"] > 10) == (guarantee == "at_least_once")
    opened = {order["message"] - first: made // 5000 for made, order in records}
    orders = Counter((order["sku"], made // 5000) for made, order in records)
    counts = history.effects.to_pandas().query("effect == 'counted'")
    assert set(counts["message"]) == set(range(200))
    last = counts.groupby(["sku", counts["message"].map(opened)])["version"].last()
    assert last.to_dict() == {window: orders[window] for window in last.index}


def test_a_run_that_was_not_over_leaves_no_positions_to_the_next_whose_log_is_new(bench, workload):
    unfinished = workload(80.0, only="stock_update", handler_work=Constant(0.05), horizon=0.2)
    with bench("streaming", guarantee="exactly_once", session_timeout=5.0) as ready:
        assert not ready.run(unfinished, 1, 40).meta["quiet"]
        history = ready.run(workload(40.0, only="stock_update"), 2, 20)
    assert history.meta["quiet"] and set(columns(history)["outcome"]) <= {"applied", "superseded"}
