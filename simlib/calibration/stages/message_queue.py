"""The times of the message queue's own, from its runs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from simlib.calibration.stages import (
    CPU,
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
from simlib.domain import STOCK_UPDATE

UPLINK = 50e-6
"""Way between a client and a broker on one machine, s: its stamps cannot tell it from the broker's write."""
_LATER = "stamps of messages that met an idle system: deliveries that begin after their confirm came, in the median"


def estimates(idle: Runs, busy: Runs, known: Mapping[str, float]) -> Estimates:
    """`publish_client`, `consume_client`; `store`, `dispatch`; and `uplink`, which is assumed where the way to the broker was not
    measured."""
    cpu, uplink = queue_cpu(busy, known), known.get("uplink", UPLINK)
    waits = queue_waits(idle, cpu, uplink)
    return (
        {name: Estimate(time, CPU) for name, time in cpu.items()}
        | {name: Estimate(samples, WAIT) for name, samples in waits.items()}
        | {
            "dispatch": Estimate(queue_dispatch(idle, cpu), _LATER),
            "uplink": Estimate(uplink, "a hop over the loopback interface", measured=False),
        }
    )


def queue_cpu(busy: Runs, system: Mapping[str, float]) -> dict[str, float]:
    """Processor times of `publish_client` and `consume_client`, s, from the queue's busy run of updates.

    An update costs accounting a request, a transaction and a publication, and the shop a delivery and a transaction.
    """
    around = 2 * (system["http_server"] + system["database_client"])
    publish = (busy_cpu(busy[STOCK_UPDATE], "accounting") - around) / 2
    consume = (busy_cpu(busy[STOCK_UPDATE], "shop") - 2 * system["database_client"]) / 2
    return {"publish_client": max(publish, SHORTEST), "consume_client": max(consume, SHORTEST)}


def queue_waits(idle: Runs, cpu: Mapping[str, float], uplink: float) -> dict[str, np.ndarray]:
    """Samples of `store`, s, from the queue's run of updates one by one: a publication less its way there and back."""
    updates = walks(idle[STOCK_UPDATE])
    return {"store": times(length(updates, "accounting.publish") - 2 * cpu["publish_client"] - 2 * uplink)}


def queue_dispatch(idle: Runs, cpu: Mapping[str, float]) -> float:
    """`dispatch`, s, from the same run: how much later a delivery begins than it would if it left with the confirm, in the median
    and not below 0."""
    updates = walks(idle[STOCK_UPDATE])
    later = start(updates, "shop.delivery") - end(updates, "accounting.publish") + cpu["publish_client"]
    return max(float(np.nanmedian(later)), 0.0)
