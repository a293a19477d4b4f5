"""The times of event sourcing's own, from its runs on the library `eventsourcing` over PostgreSQL."""

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

_LATER = "stamps of messages that met an idle system: events that are taken later than they were stored, in the median"
_SELDOM = "that of a transaction: too seldom to be measured in such runs"


def estimates(idle: Runs, busy: Runs, known: Mapping[str, float]) -> Estimates:
    """`recording`, `subscription_client`; `append`; `dispatch`; and `snapshot`, which is assumed.

    An update costs accounting a request, two transactions, and the making and recording of a stream; the shop the taking of
    an event and a transaction. What a load and an append last beside that and a transaction's read and flush is the append.
    """
    q = known["database_client"]
    recording = max((busy_cpu(busy[STOCK_UPDATE], "accounting") - 2 * known["http_server"] - 4 * q) / 2, SHORTEST)
    taking = max(busy_cpu(busy[STOCK_UPDATE], "shop") - 2 * q, SHORTEST)
    updates = walks(idle[STOCK_UPDATE])
    both = length(updates, "accounting.load") + length(updates, "accounting.change")
    later = start(updates, "shop.delivery") - end(updates, "accounting.change") + q - known["network"] - taking
    return {
        "recording": Estimate(recording, CPU),
        "subscription_client": Estimate(taking, CPU),
        "append": Estimate(times(both - 2 * recording - 4 * q - known["read"] - known["commit"]), WAIT),
        "dispatch": Estimate(max(float(np.nanmedian(later)), SHORTEST), _LATER),
        "snapshot": Estimate(known["read"], _SELDOM, measured=False),
    }
