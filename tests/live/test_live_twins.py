"""Both twins, as they are, on a small load: nothing is lost or doubled, and both write the same rows."""

from __future__ import annotations

import psycopg
import pytest

from simlib.domain import OUTCOMES, RESPONSES
from simlib.engines.live import SIDES

pytestmark = [pytest.mark.live, pytest.mark.xdist_group("live")]
MESSAGES = 200


@pytest.fixture(scope="module")
def performed():
    """Histories by architecture, and the rows that each left in its databases; filled by the first test."""
    return {}


@pytest.mark.parametrize("name", ["rest", "message_queue"])
def test_every_message_has_one_outcome_and_none_is_lost_or_doubled(name, bench, workload, performed):
    with bench(name) as ready:
        history = ready.run(workload(50.0), 1, MESSAGES)
        rows = {}
        for side in SIDES:
            with psycopg.connect(ready.databases[side]) as connection:
                count = "SELECT " + ", ".join(f"(SELECT count(*) FROM {table})" for table in ("effects", "received"))
                rows[side] = connection.execute(count).fetchone()
    performed[name] = history, rows
    messages = history.messages.to_pandas()
    assert messages["message"].tolist() == list(range(MESSAGES))
    assert set(messages["outcome"]) <= {"applied", "answered", "superseded"} <= set(OUTCOMES)
    assert set(messages["response"]) == {"ok"} <= set(RESPONSES)
    assert messages["duplicates"].sum() == 0
    assert (messages["responded"] > messages["issued"]).all()
    assert history.meta["quiet"]


def test_both_twins_write_the_same_number_of_rows_for_the_same_messages(performed):
    if len(performed) < 2:
        pytest.skip("the runs that this compares did not happen")
    assert performed["rest"][1] == performed["message_queue"][1]


@pytest.mark.parametrize("name", ["rest", "message_queue"])
def test_versions_of_a_sku_count_from_one_in_the_order_of_time(name, performed):
    if name not in performed:
        pytest.skip("the run that this looks at did not happen")
    effects = performed[name][0].effects.to_pandas()
    stock = effects[effects["store"] == "stock"]
    for _, changes in stock.groupby("sku"):
        assert changes["version"].tolist() == list(range(1, len(changes) + 1))
        assert changes["time"].is_monotonic_increasing


def test_a_run_says_on_what_machine_it_was_made_and_what_took_its_cpu(performed):
    if "message_queue" not in performed:
        pytest.skip("the run that this looks at did not happen")
    meta = performed["message_queue"][0].meta
    assert {"cpu", "cores", "python", "system"} <= set(meta["machine"])
    assert meta["server_versions"].keys() == {"postgres", "nats"}
    assert all(meta["cpu_seconds"][name] > 0 for name in ("accounting", "shop", "driver"))
    assert 0 <= meta["send_lag_p50"] <= meta["send_lag_p99"]
    assert meta["foreign_cpu"] >= 0 and meta["steal"] >= 0


def test_times_of_the_stages_lie_within_the_message(performed):
    if "rest" not in performed:
        pytest.skip("the run that this looks at did not happen")
    history = performed["rest"][0]
    attempts = history.attempts.to_pandas()
    assert {"driver", "request", "accounting.change", "accounting.call", "shop.handle", "shop.write"} <= set(
        attempts["block"]
    )
    first = attempts.groupby("message")["start"].min()
    assert (first >= history.messages.to_pandas()["issued"]).all()
    assert (attempts["end"] >= attempts["start"]).all()
