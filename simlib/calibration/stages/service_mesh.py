"""The times of the service mesh's own, from its runs and two contrasts: sidecars that do not encrypt, or are configured often."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from simlib.calibration.stages import (
    CPU,
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
from simlib.domain import STOCK_QUERY, STOCK_UPDATE
from simlib.history import History

PLAIN, PUSHED = "plain", "pushed"
PUSHED_EVERY = 0.02
"""Between two configurations in the contrast, s."""
CONTRASTS = {
    PLAIN: Contrast("busy", {"mtls": False}),
    PUSHED: Contrast("busy", {"push_interval": PUSHED_EVERY}),
}
_TLS = f"{CPU}, with and without encryption"
_PUSH = f"{CPU}, configured every {PUSHED_EVERY:g} s and every 10 s"


def estimates(idle: Runs, busy: Runs, known: Mapping[str, float]) -> Estimates:
    """`hop`, `tls`, `push` (of Envoy alone); and `loopback`."""
    cpu = mesh_cpu(busy)
    waits = mesh_waits(idle, cpu, known)
    sources = {"hop": CPU, "tls": _TLS, "push": _PUSH}
    return {name: Estimate(time, sources[name]) for name, time in cpu.items()} | {"loopback": Estimate(waits, WAIT)}


def mesh_cpu(busy: Runs) -> dict[str, float]:
    """Processor times of `hop`, `tls` and, where a control plane pushes, `push`, s, from busy runs.

    Every message passes the caller's sidecar twice, and the other side's twice. Encryption is what a passage costs more than in
    the run without; the times in which configurations came are told by what the sidecars worked more with many of them.
    """
    encrypted = [passage(busy[kind]) for kind in (STOCK_UPDATE, STOCK_QUERY)]
    tls = max(encrypted[0] - passage(busy[PLAIN]), SHORTEST)
    found = {"hop": max(float(np.mean(encrypted)) - tls, SHORTEST), "tls": tls}
    if pushed := busy.get(PUSHED):
        more = sidecar_cpu(pushed) - 4 * encrypted[0] * pushed.messages.num_rows
        found["push"] = max(more / (2 * pushed.meta["wall"] / PUSHED_EVERY), SHORTEST)
    return found


def passage(history: History) -> float:
    """CPU seconds of a sidecar for a message that passes it."""
    return sidecar_cpu(history) / (4 * history.messages.num_rows)


def sidecar_cpu(history: History) -> float:
    """CPU seconds of both sides' sidecars."""
    spent = history.meta["cpu_seconds"]
    return float(spent["accounting.sidecar"] + spent["shop.sidecar"])


def mesh_waits(idle: Runs, cpu: Mapping[str, float], known: Mapping[str, float]) -> np.ndarray:
    """Samples of `loopback`, s, from runs one by one: a call less what the other side does, the work of both processes and of
    the sidecars, and the way between these. A call takes it four times."""
    work = 2 * (known["http_server"] + known["http_client"]) + 4 * (cpu["hop"] + cpu["tls"]) + 2 * known["network"]
    updates, queries = walks(idle[STOCK_UPDATE]), walks(idle[STOCK_QUERY])
    served = end(updates, "shop.write") - start(updates, "shop.handle")
    asked = end(queries, "accounting.read") - start(queries, "accounting.handle")
    calls = [length(updates, "accounting.call") - served, length(queries, "shop.call") - asked]
    return times((np.concatenate(calls) - work) / 4)
