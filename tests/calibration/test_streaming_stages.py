"""The times of Kafka's twin come from its stamps and processor times by the arithmetic that the module states."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from simlib.architectures import get
from simlib.architectures.parameters import times
from simlib.calibration.stages import streaming
from simlib.domain import STOCK_QUERY, STOCK_UPDATE

PUBLISH, CONSUME, CLOCK = 80e-6, 120e-6, 0.006
BROKER, BROKERS_CLOCK = 900e-6, 0.03
APPEND, FLUSH, FETCH, POSITION = 300e-6, 900e-6, 250e-6, 400e-6
LINGER, PER_RECORD, UPLINK = 0.001, 0.00001, streaming.UPLINK
SYSTEM = {"http_server": 170e-6, "database_client": 90e-6}
MESSAGES, WALL, HANDLING = 40, 8.0, 0.002


def run(commits: int = MESSAGES) -> SimpleNamespace:
    """A run of updates, each on an idle system, with these times; so many of them were followed by a commit."""
    rows = []
    issued = np.arange(MESSAGES) * 0.1
    for message, begun in enumerate(issued):
        written = begun + PUBLISH + UPLINK + LINGER + APPEND + PER_RECORD + FLUSH
        handed = written + FETCH
        handled = handed + CONSUME
        rows += [
            (message, "accounting.publish", begun, written + UPLINK + PUBLISH),
            (message, "shop.delivery", handed, handled + HANDLING),
            (message, "shop.handle", handled, handled + HANDLING),
        ]
        if message < commits:
            rows.append((message, "shop.commit", handled + HANDLING, handled + HANDLING + CONSUME + POSITION))
    stamps = pd.DataFrame(rows, columns=["message", "block", "start", "end"]).assign(attempt=1)
    side = SYSTEM["http_server"] + SYSTEM["database_client"]
    cpu = {
        "accounting": CLOCK * WALL + 2 * MESSAGES * (side + PUBLISH),
        "kafka": BROKERS_CLOCK * WALL + MESSAGES * BROKER,
        "shop": CLOCK * WALL + MESSAGES * (2 * SYSTEM["database_client"] + HANDLING + CONSUME) + commits * CONSUME,
    }
    return SimpleNamespace(
        attempts=pa.Table.from_pandas(stamps),
        messages=pa.table({"issued": issued}),
        meta={"cpu_seconds": cpu, "wall": WALL, "parameters": {"linger": LINGER, "per_record": PER_RECORD}},
    )


def test_each_time_comes_back_from_the_stamps_that_it_makes():
    cpu = {"accounting": CLOCK * 30.0, "kafka": BROKERS_CLOCK * 30.0}
    resting = SimpleNamespace(meta={"cpu_seconds": cpu, "wall": 30.0})
    found = streaming.estimates({STOCK_UPDATE: run(), STOCK_QUERY: resting}, {STOCK_UPDATE: run(MESSAGES // 2)}, SYSTEM)
    assert set(found) == times(get("streaming").parameters) - times(get("rest").parameters)
    means = {name: float(np.mean(estimate.of)) for name, estimate in found.items()}
    assert means == pytest.approx(
        {
            "publish_client": PUBLISH,
            "consume_client": CONSUME,
            "broker_work": BROKER,
            "commit_position": POSITION,
            "write_batch": POSITION - 2 * UPLINK,
            "flush": FLUSH + APPEND - (POSITION - 2 * UPLINK),
            "fetch": FETCH,
            "uplink": UPLINK,
            "replicate": 0.0,
        }
    )
    assert {name for name, estimate in found.items() if not estimate.measured} == {"uplink", "replicate"}


def test_a_broker_that_runs_elsewhere_takes_none_of_this_machines_cores():
    elsewhere = [SimpleNamespace(meta={"cpu_seconds": {"shop": 1.0}, "wall": WALL}) for _ in range(2)]
    work = streaming.broker_work(dict(zip((STOCK_UPDATE, STOCK_QUERY), elsewhere, strict=True)))
    assert work.of == 0.0 and not work.measured
