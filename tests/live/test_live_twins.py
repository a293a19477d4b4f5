"""The twins as they are, on a small load: nothing is lost or doubled, and all write the same rows."""

from __future__ import annotations

import psycopg
import pytest

from simlib.domain import STOCK_QUERY
from simlib.engines.live import SIDES

pytestmark = [pytest.mark.live, pytest.mark.xdist_group("live")]
MESSAGES = 200


@pytest.fixture(scope="module")
def performed(standing, rows_of):
    """The history of a run on each twin; the rows that it left in the databases go into `rows_of`."""
    from simlib.scenario import load_scenario

    history = standing.run(load_scenario("steady").with_rate(60.0), 1, MESSAGES)
    rows = []
    for side in SIDES:
        with psycopg.connect(standing.databases[side]) as connection:
            for table in ("effects", "received"):
                rows += connection.execute(f"SELECT '{side}.{table}', count(*) FROM {table}").fetchall()
    rows_of[standing.twin.__name__, standing.parameters.get("broker")] = dict(rows)
    return history


@pytest.fixture(scope="module")
def rows_of():
    """Rows by twin and table."""
    return {}


def test_every_message_has_one_outcome_and_none_is_lost_or_doubled(performed):
    messages = performed.messages.to_pandas()
    assert messages["message"].tolist() == list(range(MESSAGES))
    assert set(messages["outcome"]) <= {"applied", "answered", "superseded"}
    assert set(messages["response"]) == {"ok"}
    assert messages["duplicates"].sum() == 0
    assert (messages["responded"] > messages["issued"]).all()
    assert performed.meta["quiet"]


def test_queries_show_a_version_that_was_there(performed):
    queries = performed.messages.to_pandas().query("kind == @STOCK_QUERY", local_dict={"STOCK_QUERY": STOCK_QUERY})
    newest = performed.effects.to_pandas().groupby("sku")["version"].max()
    assert (queries["version"] >= 0).all()
    assert (queries["version"] <= queries["sku"].map(newest).fillna(0)).all()
    assert queries["read_from"].nunique() == 1


def test_versions_of_a_sku_count_from_one_in_the_order_of_time(performed):
    effects = performed.effects.to_pandas().query("store == 'stock'")
    assert effects["version"].max() > 3
    for _, changes in effects.groupby("sku"):
        assert changes["version"].tolist() == list(range(1, len(changes) + 1))
        assert changes["time"].is_monotonic_increasing


def test_stages_lie_within_their_message(performed):
    attempts = performed.attempts.to_pandas()
    assert {"driver", "request", "accounting.change", "shop.handle", "shop.write"} <= set(attempts["block"])
    taken_along = attempts["block"].str.endswith(".export")  # by a run that had begun before it was issued
    first = attempts[~taken_along].groupby("message")["start"].min()
    assert (first >= performed.messages.to_pandas()["issued"]).all()
    assert (attempts["end"] >= attempts["start"]).all()


def test_a_run_says_on_what_machine_it_was_made_and_what_took_its_cpu(performed):
    meta = performed.meta
    assert {"cpu", "cores", "python", "system"} <= set(meta["machine"])
    assert "postgres" in meta["server_versions"]
    assert all(meta["cpu_seconds"][name] > 0 for name in ("accounting", "shop", "driver"))
    assert 0 <= meta["send_lag_p50"] <= meta["send_lag_p99"]
    assert meta["foreign_cpu"] >= 0 and meta["steal"] >= 0


def test_orders_beyond_the_stock_are_never_taken(standing, workload):
    scarce = workload(60.0, only="order")
    scarce = scarce.model_copy(update={"goods": scarce.goods.model_copy(update={"skus": 1, "units": 20})})
    messages = standing.run(scarce, 1, 40).messages.to_pandas()
    assert (messages["outcome"] == "applied").sum() == 20
    assert (messages["outcome"] == "rejected").sum() == 20
    assert set(messages.loc[messages["outcome"] == "applied", "response"]) == {"ok"}


def test_saturation_is_a_rate_with_its_cpu(standing, workload):
    throughput, usage = standing.saturation(workload(100.0), 1, 150, window=16)
    assert 10 < throughput < 5000
    assert usage["cpu_seconds"]["shop"] > 0


def test_all_twins_write_the_same_number_of_rows_for_the_same_messages(rows_of):
    if len(rows_of) < 2:
        pytest.skip("the runs that this compares did not happen")
    first, *others = rows_of.values()
    for rows in others:
        kept = {table: count for table, count in rows.items() if count}  # who reads a log keeps a position, no receipts
        assert {"accounting.effects", "shop.effects"} <= set(kept)
        assert kept == {table: first[table] for table in kept}
