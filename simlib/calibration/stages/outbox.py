"""The times of the outbox's own, from its runs with a relay that polls and a contrast: one that tails the log."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from simlib.calibration.stages import (
    SHORTEST,
    WAIT,
    Contrast,
    Estimate,
    Estimates,
    Runs,
    end,
    length,
    start,
    times,
    walks,
)

TAILED = "tailed"
CONTRASTS = {TAILED: Contrast("idle", {"publisher": "log_tailing"})}
_MORE = (
    "stamps of messages that met an idle system: what a change with its row lasts longer than one without, on average"
)


def estimates(idle: Runs, busy: Runs, known: Mapping[str, float]) -> Estimates:
    """`insert` and `tail`.

    A change with its row is one transaction: what it lasts beside the client's work, a transaction's read and its flush is the row.
    That is little, and hardly more than what the same change differs by between two runs. Beside a relay that polls no message
    meets an idle system: the one before still waits for its poll. A relay that tails the log begins to publish as soon as it has
    what a commit left there.
    """
    tailed = walks(idle[TAILED])
    changes = length(tailed, "accounting.change")
    more = float(np.nanmean(changes)) - 2 * known["database_client"] - known["read"] - known["commit"]
    tails = start(tailed, "accounting.relay") - end(tailed, "accounting.change")
    return {"insert": Estimate(max(more, SHORTEST), _MORE), "tail": Estimate(times(tails), WAIT)}
