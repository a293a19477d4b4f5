"""From the stamps and CPU times of live runs to samples of each parameter: what a stage of the twin is in the model.

Processor times come from runs of one kind of message with a backlog always there (a busy event loop), by the utilisation
law: CPU seconds of a side over messages, less the handler's work (Denning & Buzen, ACM Computing Surveys 10 (1978)).
Waiting times come from runs of one kind at low load, of messages that met an idle system: a stamp less the processor
times inside it. Where a stamp holds the same time twice (there and back), each is taken as half.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy.optimize import nnls

from simlib.domain import STOCK_QUERY, STOCK_UPDATE
from simlib.history import History

SHORTEST = 1e-6
"""What a waiting time is taken for where its stamp is shorter than the processor times inside it, s."""


def busy_cpu(history: History, side: str) -> float:
    """CPU seconds of a side for a message, less the handler's work there."""
    stamps = history.attempts.to_pandas()
    handled = stamps[stamps["block"] == f"{side}.handle"]
    work = float((handled["end"] - handled["start"]).sum())
    return (float(history.meta["cpu_seconds"][side]) - work) / history.messages.num_rows


def system_cpu(busy: Mapping[str, History]) -> dict[str, float]:
    """Processor times of `http_server`, `http_client` and `database_client`, s, from REST's busy runs by kind.

    The twin's visits: an update costs accounting a request, a transaction and a call, and the shop a request and a
    transaction; a query costs the shop a request and a call, and accounting a request and a read. Each counts twice, there
    and back. The least squares solution with no negative time.
    """
    visits = {
        ("accounting", STOCK_UPDATE): (2, 2, 2),
        ("shop", STOCK_UPDATE): (2, 0, 2),
        ("accounting", STOCK_QUERY): (2, 0, 2),
        ("shop", STOCK_QUERY): (2, 2, 0),
    }
    measured = [busy_cpu(busy[kind], side) for side, kind in visits]
    times, _ = nnls(np.array(list(visits.values()), float), np.array(measured))
    return dict(zip(("http_server", "http_client", "database_client"), times.tolist(), strict=True))


def queue_cpu(busy: Mapping[str, History], system: Mapping[str, float]) -> dict[str, float]:
    """Processor times of `publish_client` and `consume_client`, s, from the queue's busy run of updates.

    An update costs accounting a request, a transaction and a publication, and the shop a delivery and a transaction.
    """
    around = 2 * (system["http_server"] + system["database_client"])
    publish = (busy_cpu(busy[STOCK_UPDATE], "accounting") - around) / 2
    consume = (busy_cpu(busy[STOCK_UPDATE], "shop") - 2 * system["database_client"]) / 2
    return {"publish_client": max(publish, SHORTEST), "consume_client": max(consume, SHORTEST)}


def system_waits(idle: Mapping[str, History], cpu: Mapping[str, float]) -> dict[str, np.ndarray]:
    """Samples of `edge`, `network`, `commit` and `read`, s, from REST's runs at low load by kind."""
    h, c, q = cpu["http_server"], cpu["http_client"], cpu["database_client"]
    updates, queries = walks(idle[STOCK_UPDATE]), walks(idle[STOCK_QUERY])
    within = _end(updates, "accounting.call") - _start(updates, "accounting.change")
    server = _end(updates, "shop.write") - _start(updates, "shop.handle")
    asked = _end(queries, "accounting.read") - _start(queries, "accounting.handle")
    read = _times(_length(queries, "accounting.read") - 2 * q)
    written = np.concatenate([_length(updates, stage) for stage in ("accounting.change", "shop.write")])
    return {
        "edge": _times((_length(updates, "request") - within - 2 * h) / 2),
        "network": np.concatenate(
            [
                _times((_length(updates, "accounting.call") - server - 2 * h - 2 * c) / 2),
                _times((_length(queries, "shop.call") - asked - 2 * h - 2 * c) / 2),
            ]
        ),
        "commit": _times(written - 2 * q - np.median(read)),
        "read": read,
    }


def queue_waits(idle: Mapping[str, History], cpu: Mapping[str, float], uplink: float) -> dict[str, np.ndarray]:
    """Samples of `store`, s, from the queue's run of updates at low load: a publication less its way there and back."""
    updates = walks(idle[STOCK_UPDATE])
    return {"store": _times(_length(updates, "accounting.publish") - 2 * cpu["publish_client"] - 2 * uplink)}


def queue_dispatch(idle: Mapping[str, History], cpu: Mapping[str, float]) -> float:
    """`dispatch`, s, from the same run: how much later a delivery begins than it would if it left with the confirm, in the median
    and not below 0."""
    updates = walks(idle[STOCK_UPDATE])
    later = _start(updates, "shop.delivery") - _end(updates, "accounting.publish") + cpu["publish_client"]
    return max(float(np.nanmedian(later)), 0.0)


def walks(history: History) -> pd.DataFrame:
    """A row each message that met an idle system and needed one attempt; columns (start | end, block), s.

    Idle is a system in which nothing stamped was going on when the message was issued.
    """
    stamps = history.attempts.to_pandas()
    wide = stamps[stamps["attempt"] == 1].pivot_table(
        index="message", columns="block", values=["start", "end"], aggfunc="first"
    )
    issued = history.messages["issued"].to_numpy()[wide.index.to_numpy()]
    over = wide["end"].max(axis=1).cummax().shift(1, fill_value=-1.0).to_numpy()
    repeated = set(stamps.loc[stamps["attempt"] > 1, "message"])
    return wide[(issued > over) & ~wide.index.isin(repeated)]


def _start(walks: pd.DataFrame, block: str) -> np.ndarray:
    return walks["start"][block].to_numpy()


def _end(walks: pd.DataFrame, block: str) -> np.ndarray:
    return walks["end"][block].to_numpy()


def _length(walks: pd.DataFrame, block: str) -> np.ndarray:
    return _end(walks, block) - _start(walks, block)


def _times(values: np.ndarray) -> np.ndarray:
    return np.maximum(values[~np.isnan(values)], SHORTEST)
