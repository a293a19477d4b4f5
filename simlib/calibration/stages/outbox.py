"""The times of the outbox's own, from its runs with a relay that polls."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from simlib.calibration.stages import SHORTEST, Estimate, Estimates, Runs, length, walks
from simlib.domain import STOCK_UPDATE

TAIL = 0.001
"""From a commit until the reader of the database's log has it, s: a relay that polls does not read the log."""
_MORE = (
    "stamps of messages that met an idle system: what a change with its row lasts longer than one without, on average"
)


def estimates(idle: Runs, busy: Runs, known: Mapping[str, float]) -> Estimates:
    """`insert`; and `tail`, which is assumed.

    A change with its row is one transaction: what it lasts beside the client's work, a transaction's read and its flush is the row.
    That is little, and hardly more than what the same change differs by between two runs.
    """
    changes = length(walks(idle[STOCK_UPDATE]), "accounting.change")
    more = float(np.nanmean(changes)) - 2 * known["database_client"] - known["read"] - known["commit"]
    return {
        "insert": Estimate(max(more, SHORTEST), _MORE),
        "tail": Estimate(TAIL, "streamed, not polled", measured=False),
    }
