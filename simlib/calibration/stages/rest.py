"""The times that every architecture shares, from REST's runs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.optimize import nnls

from simlib.calibration.stages import CPU, WAIT, Estimate, Estimates, Runs, busy_cpu, end, length, start, times, walks
from simlib.domain import STOCK_QUERY, STOCK_UPDATE


def estimates(idle: Runs, busy: Runs, known: Mapping[str, float]) -> Estimates:
    """`http_server`, `http_client`, `database_client`, `read`; `edge`, `network`, `commit`."""
    cpu = {**system_cpu(busy), "read": read_cpu(busy)}
    waits = system_waits(idle, cpu)
    return {name: Estimate(time, CPU) for name, time in cpu.items()} | {
        name: Estimate(samples, WAIT) for name, samples in waits.items()
    }


def read_cpu(busy: Runs) -> float:
    """Processor time of the database server for a transaction, s, from REST's busy run of queries, each of which is one."""
    run = busy[STOCK_QUERY]
    return float(run.meta["cpu_seconds"]["postgres"]) / run.messages.num_rows


def system_cpu(busy: Runs) -> dict[str, float]:
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


def system_waits(idle: Runs, cpu: Mapping[str, float]) -> dict[str, np.ndarray]:
    """Samples of `edge`, `network` and `commit`, s, from REST's runs of messages one by one, by kind."""
    h, c, q, read = (cpu[name] for name in ("http_server", "http_client", "database_client", "read"))
    updates, queries = walks(idle[STOCK_UPDATE]), walks(idle[STOCK_QUERY])
    within = end(updates, "accounting.call") - start(updates, "accounting.change")
    server = end(updates, "shop.write") - start(updates, "shop.handle")
    asked = end(queries, "accounting.read") - start(queries, "accounting.handle")
    written = np.concatenate([length(updates, stage) for stage in ("accounting.change", "shop.write")])
    return {
        "edge": times((length(updates, "request") - within - 2 * h) / 2),
        "network": np.concatenate(
            [
                times((length(updates, "accounting.call") - server - 2 * h - 2 * c) / 2),
                times((length(queries, "shop.call") - asked - 2 * h - 2 * c) / 2),
            ]
        ),
        "commit": times(written - 2 * q - read),
    }
