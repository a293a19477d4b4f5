"""What a round trip takes by how long the machine had nothing to do before it: `python -m benchmarks.cold`.

The same query is answered several times as fast where the last one was a millisecond ago: caches, clock and sleep of the processors
go by what they did last. A wait that is measured at low load holds what goes at high load.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import psycopg
from rich.console import Console
from rich.table import Table

from simlib.brokers.postgres import postgres

GAPS = (0.1, 0.02, 0.005, 0.001)
"""Pauses before a round trip, s."""
ROUNDS, TRIES = 3, 100


def median(act: Callable[[], object], gap: float) -> float:
    """How long an act takes after a pause, s: the median of the tries."""
    took = []
    for _ in range(TRIES):
        time.sleep(gap)
        begun = time.perf_counter()
        act()
        took.append(time.perf_counter() - begun)
    return float(np.median(took))


def main() -> None:
    """Print the times, of each pause in turn, with their range over the rounds."""
    with postgres() as server, psycopg.connect(server.url, autocommit=True) as database:
        database.execute("create table line (text text)")
        acts: dict[str, Callable[[], object]] = {
            "read": lambda: database.execute("select 1"),
            "commit": lambda: database.execute("insert into line values ('x')"),
        }
        seen: dict[tuple[float, str], list[float]] = {}
        for _ in range(ROUNDS):
            for gap in GAPS:
                for name, act in acts.items():
                    seen.setdefault((gap, name), []).append(median(act, gap))
    table = Table("pause before, ms", *(f"{name}, µs" for name in acts))
    for gap in GAPS:
        times = (1e6 * np.array(seen[gap, name]) for name in acts)
        table.add_row(f"{1e3 * gap:g}", *(f"{np.median(t):.0f} [{t.min():.0f}, {t.max():.0f}]" for t in times))
    Console().print(table)


if __name__ == "__main__":
    main()
