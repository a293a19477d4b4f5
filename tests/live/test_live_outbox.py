"""What an outbox is for, live: a side that dies between its commit and its publication has told what it changed all the same."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import contextmanager

import psycopg
import pytest

from simlib.brokers import nats as nats_part
from simlib.scenario import Goods
from tests.conftest import require_part

pytestmark = [pytest.mark.live, pytest.mark.xdist_group("live")]
RELAYS = ["polling", "log_tailing"]
MANY = Goods(skus=100_000, zipf=0.0)
"""So many that no update comes after another one of the same."""
UNGUARDED = {"deduplication": 0, "write_if_newer": False}


@contextmanager
def meanwhile(ready, strike):
    """What is done in the block, while `strike` begins when accounting has made some changes."""

    def begin():
        with psycopg.connect(ready.databases["accounting"], autocommit=True) as connection:
            while connection.execute(begun).fetchone()[0] == 0:
                time.sleep(0.02)
        strike()

    begun = f"SELECT count(*) FROM effects WHERE message >= {ready.numbered + 20}"
    striking = threading.Thread(target=begin)
    striking.start()
    yield
    striking.join()


@pytest.mark.parametrize("publisher", [*RELAYS, "dual_write"])
def test_outbox_keeps_what_a_dual_write_loses_where_a_side_dies_between_its_commit_and_its_publication(
    bench, workload, publisher
):
    """The broker is down while accounting goes on, and dies with what it has not published."""
    require_part(nats_part.found() is not None, f"no NATS: {nats_part.INSTALL}")

    def strike():
        broker, accounting = ready.servers["nats"].program, ready.services["accounting"].program
        broker.kill()
        time.sleep(0.4)
        accounting.kill()
        broker.start()
        accounting.start()

    with bench("outbox", own_broker=True, publisher=publisher) as ready:
        with meanwhile(ready, strike):
            history = ready.run(workload(60.0, only="stock_update", goods=MANY), 1, 240)
    assert history.meta["quiet"] and history.check().ok
    messages = history.messages.to_pandas()
    told = messages["outcome"] == "applied"
    changed = messages["version"] >= 0
    assert changed.sum() > 60 and messages["duplicates"].sum() == 0
    if publisher == "dual_write":
        assert (changed & ~told).sum() > 10, "changes that the shop never hears of"
        assert (messages["response"] == "timed_out").sum() > 10, "callers whose side waited for a confirm when it died"
    else:
        assert (changed & ~told).sum() == 0
        assert (messages["response"] == "timed_out").sum() < 3, "callers do not notice that the broker is down"


@pytest.mark.parametrize("publisher", RELAYS)
@pytest.mark.parametrize("idempotent", [False, True])
def test_relay_that_dies_before_it_marks_publishes_again_what_an_idempotent_receiver_drops(
    bench, workload, nats, publisher, idempotent
):
    """The broker pauses, so that the relay dies over a publication whose confirm has not come."""

    def strike():
        os.kill(nats.pid, signal.SIGSTOP)
        time.sleep(0.4)
        ready.services["accounting"].program.kill()
        os.kill(nats.pid, signal.SIGCONT)
        ready.services["accounting"].program.start()

    relay = {"publisher": publisher, "idempotent_receiver": idempotent, **UNGUARDED}
    with bench("outbox", **relay) as ready:
        with meanwhile(ready, strike):
            history = ready.run(workload(60.0, only="stock_update", goods=MANY), 1, 100)
    messages = history.messages.to_pandas()
    assert history.meta["quiet"] and history.check().ok
    assert (messages["deliveries"] > 2).sum() > 0, "the relay's, the shop's, and again"
    assert ((messages["duplicates"] > 0).sum() > 0) is not idempotent


def test_relay_that_tails_the_log_leaves_no_rows_and_no_slot(bench, workload, postgres):
    with bench("outbox", publisher="log_tailing") as ready:
        history = ready.run(workload(60.0), 1, 60)
        assert set(history.messages.to_pandas()["outcome"]) <= {"applied", "superseded", "answered"}
        for database in ready.databases.values():
            with psycopg.connect(database) as connection:
                assert connection.execute("SELECT count(*) FROM outbox").fetchone() == (0,)
    with psycopg.connect(postgres.url) as connection:
        assert connection.execute("SELECT count(*) FROM pg_replication_slots").fetchone() == (0,)
