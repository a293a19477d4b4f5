"""The machine under a measurement: what it is, whose CPU time is spent on it, and whether it keeps its pace."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil

BIN = 0.05
"""Length of the bins in which the machine's pace is judged, s."""
SLOW = 1.5
"""How many times as long as in the median bin a fixed piece of work takes in a slow one."""
_PIECE = 10_000
_PACKAGES = ("fastapi", "uvicorn", "uvloop", "httptools", "aiohttp", "psycopg", "nats-py")


def describe() -> dict[str, Any]:
    """CPU model, cores, memory, kernel, Python and the packages that the services stand on; no host name, no paths."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{package: version(package) for package in _PACKAGES},
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def cpu_seconds(processes: Iterable[psutil.Process]) -> float:
    """CPU time that these processes took so far, s; those that ended count nothing."""
    total = 0.0
    for process in processes:
        try:
            total += _scheduled(process.pid)
        except (OSError, ValueError, IndexError):
            try:
                times = process.cpu_times()
            except psutil.Error:
                continue
            total += times.user + times.system
    return total


def _scheduled(pid: int) -> float:
    """CPU time of a process's threads by the scheduler's own count, which is in ns (Linux, proc(5): schedstat)."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


@dataclass(frozen=True)
class Busy:
    """CPU time of the whole machine so far, s: work of processes, and what the hypervisor gave to others."""

    work: float
    steal: float

    @classmethod
    def now(cls) -> Busy:
        """As it stands."""
        times = psutil.cpu_times()
        return cls(times.user + getattr(times, "nice", 0.0) + times.system, getattr(times, "steal", 0.0))


def pace(seconds: float) -> dict[str, float]:
    """Whether a fixed piece of work takes as long every time, by the processor time of one thread that does it all along.

    What others take of the processor is not in it; a slower clock, a busy sibling of the core and a hypervisor that does
    not tell of its steal are. See `paced` for what is in the answer.
    """
    times, costs = [], []
    start = time.monotonic()
    while (now := time.monotonic()) < start + seconds:
        before = time.thread_time_ns()
        for _ in range(_PIECE):
            pass
        costs.append((time.thread_time_ns() - before) / 1e9)
        times.append(now - start)
    return paced(np.array(times), np.array(costs))


def paced(times: np.ndarray, costs: np.ndarray) -> dict[str, float]:
    """Share of `seconds` in slow bins, episodes of them a second, and `factor`, how many times as long a piece takes there.

    `times` are when pieces began, `costs` their processor times, s, both of shape (n,). Slow bins with one other bin or
    less between them are one episode.
    """
    bins = (times // BIN).astype(int)
    count = np.bincount(bins)
    cost = np.bincount(bins, weights=costs)[count > 0] / count[count > 0]
    relative = cost / np.median(cost)
    slow = np.flatnonzero(relative > SLOW)
    episodes = int(slow.size > 0) + int((np.diff(slow) > 2).sum())
    return {
        "seconds": float(times[-1]),
        "share": slow.size / relative.size,
        "episodes_per_second": episodes / float(times[-1]),
        "factor": float(relative[slow].mean()) if slow.size else 1.0,
    }
