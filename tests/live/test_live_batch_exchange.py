"""What files are worth, live: read again as a whole, applied once, and set aside where nobody can read them."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager

import psycopg
import pytest
from lxml import etree

from simlib.architectures.batch_exchange.file import SCHEMA, Unreadable, opened, written
from simlib.distributions import Constant
from simlib.errors import RunFailed
from simlib.scenario import Crash, Goods, Poison

pytestmark = [pytest.mark.live, pytest.mark.xdist_group("live")]
MANY = Goods(skus=1000, zipf=0.0)
SHORT = {"interval": 0.3, "retry_after": 0.05, "max_deliveries": 3}


def columns(history):
    assert history.meta["quiet"] and history.check().ok, str(history.check())
    return history.messages.to_pandas()


def rows(ready, side, statement):
    with psycopg.connect(ready.databases[side]) as connection:
        return connection.execute(statement).fetchall()


@contextmanager
def killed_over_a_file(ready, side):
    """While the block lasts, a side is killed once, when it has written a few records of a file."""

    def strike():
        with psycopg.connect(ready.databases[side], autocommit=True) as connection:
            while connection.execute(begun).fetchone()[0] < 3:
                time.sleep(0.005)
        ready.services[side].program.kill()
        ready.services[side].program.start()

    begun = f"SELECT count(*) FROM effects WHERE message >= {ready.numbered}"
    striking = threading.Thread(target=strike)
    striking.start()
    yield
    striking.join()


@pytest.mark.parametrize("idempotent", [False, True])
def test_a_file_whose_reader_dies_over_it_is_read_again_and_doubled_unless_the_receiver_is_idempotent(
    bench, workload, idempotent
):
    """Each record is a transaction, so that some are written when the side dies."""
    slow = workload(60.0, only="order", goods=MANY, handler_work=Constant(0.02))
    with bench("batch_exchange", transaction="record", idempotent_receiver=idempotent, **SHORT) as ready:
        with killed_over_a_file(ready, "accounting"):
            messages = columns(ready.run(slow, 1, 40))
    assert set(messages["outcome"]) == {"applied"}
    assert (messages["duplicates"].sum() > 0) is not idempotent


@pytest.mark.parametrize(("transaction", "park"), [("file", True), ("record", True), ("record", False)])
def test_a_record_that_fails_fails_its_file_unless_each_is_a_transaction(bench, workload, transaction, park):
    poison = workload(60.0, only="stock_update", goods=MANY, faults=(Poison(probability=0.05),))
    with bench("batch_exchange", transaction=transaction, park=park, coalesce=False, **SHORT) as ready:
        messages = columns(ready.run(poison, 1, 80))
        bad = int((~messages["outcome"].isin(["applied", "superseded"])).sum())
        if not park:
            assert 1 < bad < 12 and (messages["outcome"] == "lost").sum() == bad
            return
        assert set(messages["outcome"]) <= {"applied", "superseded", "dead_lettered"}
        assert len(rows(ready, "shop", "SELECT * FROM parked")) == bad
        aside = list((ready.folder / "accounting.files" / "aside").iterdir())
    if transaction == "record":
        assert 1 < bad < 12 and not aside
        assert set(messages.loc[messages["outcome"] == "dead_lettered", "deliveries"]) == {4}, "made once, read thrice"
    else:
        assert bad > 20 and aside, "what stood in a file with one of them"


def test_exchange_of_changes_keeps_what_the_shop_is_down_for_and_sets_aside_what_is_no_file(bench, workload):
    busy = workload(80.0, only="stock_update", goods=Goods(skus=20))
    with bench("batch_exchange", **SHORT) as ready:
        folder = ready.folder / "accounting.files"
        (folder / "1-0.xml").write_text("<exchange from='accounting'><offer sku='none'/></exchange>")
        history = ready.run(busy.model_copy(update={"faults": (Crash(part="shop", at=(0.7,), restart=0.5),)}), 1, 120)
        outcomes = columns(history)["outcome"]
        assert set(outcomes) == {"applied", "superseded"} and set(columns(history)["response"]) == {"ok"}
        assert (outcomes == "superseded").sum() > 20, "of the changes of a SKU only the last goes into a file"
        assert [file.name for file in (folder / "aside").iterdir()] == ["1-3.xml"]
        for file in (folder / "read").iterdir():
            SCHEMA.assertValid(etree.parse(file))
        goods = "SELECT sku, level, version FROM goods ORDER BY sku"
        assert rows(ready, "shop", goods) == rows(ready, "accounting", goods)
        assert not list(folder.glob("*.*"))


def test_a_run_does_not_wait_for_what_is_about_to_be_superseded(bench, workload):
    """Nor is that lost, where it is not superseded in the end: it goes into a later file."""
    with bench("batch_exchange", **SHORT) as ready:
        passed = []

        def hold():
            with psycopg.connect(ready.databases["accounting"]) as connection:
                while not (held := connection.execute("SELECT sku FROM registered LIMIT 1 FOR UPDATE").fetchone()):
                    connection.rollback()
                    time.sleep(0.005)
                time.sleep(4 * SHORT["interval"])
                passed.append(rows(ready, "accounting", f"SELECT count(*) FROM registered WHERE sku != {held[0]}"))

        holding = threading.Thread(target=hold)
        holding.start()
        outcomes = columns(ready.run(workload(60.0, only="stock_update", goods=MANY), 1, 30))["outcome"]
        holding.join()
    assert passed == [[(0,)]] and set(outcomes) <= {"applied", "superseded"}


def test_a_run_of_the_exchange_that_fails_fails_the_live_run_at_once_and_says_why(bench, workload):
    long = workload(20.0, only="stock_query")
    with bench("batch_exchange", **SHORT) as ready:
        started = time.monotonic()
        with psycopg.connect(ready.databases["shop"]) as connection:
            connection.execute("DROP TABLE registered")
        with pytest.raises(
            RunFailed, match=r'^the shop service must run .* ended with status 1: .*"registered" does not exist'
        ):
            ready.run(long, 1, 600)
        assert time.monotonic() - started < 10, "of thirty seconds"


def test_with_a_backlog_all_that_is_superseded_or_taken_is_complete(bench, workload):
    """Orders that a file holds supersede many at once, while updates and a run are at the same."""
    few = workload(1000.0, goods=Goods(skus=20, units=1_000_000), handler_work=Constant(0.0001))
    with bench("batch_exchange", interval=0.02) as ready:
        throughput, _ = ready.saturation(few, 1, 1500, window=256)
        superseded = rows(ready, "accounting", "SELECT count(*) FROM effects WHERE effect = 'superseded'")[0][0]
    assert throughput > 10 and superseded > 50


@pytest.mark.parametrize(("exchange", "mended"), [("full", True), ("delta", False)])
def test_exchange_of_all_there_is_mends_what_was_never_told(bench, workload, exchange, mended):
    few = workload(60.0, only="stock_update", goods=Goods(skus=50), horizon=5.0)
    with bench("batch_exchange", exchange=exchange, **SHORT) as ready:

        def forget():
            time.sleep(0.3)
            with psycopg.connect(ready.databases["accounting"]) as connection:
                connection.execute("UPDATE goods SET level = level + 1000, version = version + 1 WHERE sku = 49")

        forgetting = threading.Thread(target=forget)
        forgetting.start()
        messages = columns(ready.run(few, 1, 60))
        forgetting.join()
        (level,) = rows(ready, "shop", "SELECT level FROM goods WHERE sku = 49")[0]
    assert set(messages["outcome"]) <= {"applied", "superseded"}
    assert (level >= 1000) is mended


def test_a_file_holds_what_was_registered_and_no_other_file_is_read():
    handling = {"handling": {"work": [0.001, 0.002], "fails": [False, True]}}
    offer = (5, "copied", 3, 9, 2, -1, None, handling, None)
    pay = {**handling, "refused": [False, True], "unheard": [True, False], "undoing": handling["handling"]}
    order = (6, "taken", 4, None, None, 2, 1, handling | {"announcing": handling["handling"]}, {"pay": pay})
    records, unchanged = opened(written("accounting", [offer, order], [(7, 8, 0)]))
    assert (records[0].level, records[0].change, records[0].handling.fails) == (9, -1, [False, True])
    assert (records[1].quantity, records[1].announcing.work) == (2, [0.001, 0.002])
    assert records[1].steps["pay"].model_dump() == pay
    assert unchanged == [(7, 8, 0)]
    for content in (b"", b"<exchange", b"<exchange from='accounting'/>", b"<orders/>"):
        with pytest.raises(Unreadable):
            opened(content)
