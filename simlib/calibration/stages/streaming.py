"""The times of streaming's own, from its runs on one node of Kafka.

A publication lasts as long as its batch lingers, travels, is appended and flushed, and is confirmed. The commit of a position is
an append of the same broker, there and back, which is not flushed: so the two tell the append from the flush.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from simlib.calibration.stages import (
    SHORTEST,
    WAIT,
    Estimate,
    Estimates,
    Runs,
    busy_cpu,
    end,
    length,
    start,
    times,
    walks,
)
from simlib.domain import STOCK_QUERY, STOCK_UPDATE
from simlib.history import History

UPLINK = 50e-6
"""Way between a client and a broker on one machine, s: its stamps cannot tell it from the broker's work."""
_CPU = "processor time of runs with bursts, by the utilisation law, less that of a side that has nothing to do"
_BROKER = "processor time of runs one by one, each update a batch, less that of a broker that has nothing to do"
_APPEND = "a commit of a position less its ways, in the median: the same append, not flushed"
_LATER = (
    "stamps of messages that met an idle system: deliveries that begin after their batch was written, in the median"
)


def estimates(idle: Runs, busy: Runs, known: Mapping[str, float]) -> Estimates:
    """`publish_client`, `consume_client`, `broker_work`; `commit_position`, `write_batch`, `flush`, `fetch`; and what is assumed:
    `replicate`, and `uplink` where the way to the broker was not measured."""
    updates = walks(idle[STOCK_UPDATE])
    publish, consume = log_cpu(idle, busy, known)
    uplink = known.get("uplink", UPLINK)
    position = times(length(updates, "shop.commit") - consume)
    append = max(float(np.median(position)) - 2 * uplink, SHORTEST)
    ways = 2 * publish + 2 * uplink
    set_to = idle[STOCK_UPDATE].meta["parameters"]
    flush = length(updates, "accounting.publish") - ways - set_to["linger"] - append - set_to["per_record"]
    later = start(updates, "shop.delivery") - end(updates, "accounting.publish") + publish + uplink
    return {
        "publish_client": Estimate(publish, _CPU),
        "consume_client": Estimate(consume, _CPU),
        "broker_work": broker_work(idle),
        "commit_position": Estimate(position, WAIT),
        "write_batch": Estimate(append, _APPEND),
        "flush": Estimate(times(flush), WAIT),
        "fetch": Estimate(max(float(np.nanmedian(later)), SHORTEST), _LATER),
        "uplink": Estimate(uplink, "a hop over the loopback interface", measured=False),
        "replicate": Estimate(0.0, "one node: there are no followers", measured=False),
    }


def log_cpu(idle: Runs, busy: Runs, system: Mapping[str, float]) -> tuple[float, float]:
    """Processor times of `publish_client` and `consume_client`, s, from the busy run of updates.

    An update costs accounting a request, a transaction and a publication, and the shop a record that is taken, a transaction, and
    its share of a commit. A client of Kafka works by the clock too, for its heartbeats and for polls that bring nothing: as much
    as accounting does while there are but queries, which the shop answers.
    """
    run = busy[STOCK_UPDATE]
    clock = by_the_clock(idle, "accounting", run)
    around = 2 * (system["http_server"] + system["database_client"])
    publish = (busy_cpu(run, "accounting") - clock - around) / 2
    visits = 1 + stamped(run, "shop.commit") / stamped(run, "shop.delivery")
    consume = (busy_cpu(run, "shop") - clock - 2 * system["database_client"]) / visits
    return max(publish, SHORTEST), max(consume, SHORTEST)


def broker_work(idle: Runs) -> Estimate:
    """Processor time of the broker for a batch, with its reading and the position behind it, s; none where it runs elsewhere."""
    run = idle[STOCK_UPDATE]
    if "kafka" not in run.meta["cpu_seconds"]:
        return Estimate(0.0, "a broker of the user's own takes none of this machine's cores", measured=False)
    work = run.meta["cpu_seconds"]["kafka"] / run.messages.num_rows - by_the_clock(idle, "kafka", run)
    return Estimate(max(work, SHORTEST), _BROKER)


def by_the_clock(idle: Runs, program: str, run: History) -> float:
    """Processor time that a program takes without being asked, for each message of a run, s: as while there are but queries."""
    resting = idle[STOCK_QUERY].meta
    return float(resting["cpu_seconds"][program] / resting["wall"] * run.meta["wall"] / run.messages.num_rows)


def stamped(run: History, block: str) -> int:
    """How often a block was passed."""
    return run.attempts["block"].to_pylist().count(block)
