"""The machine under a measurement: what it is, and whose CPU time is spent on it."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

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
