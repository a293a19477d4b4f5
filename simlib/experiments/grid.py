"""The grid of one entry: every replication at every rate, run, checked and measured, inside the entry's notebook."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from simlib import api, draws, metrics
from simlib.errors import RunFailed
from simlib.experiments import store
from simlib.experiments.plan import Entry
from simlib.history import History

if TYPE_CHECKING:
    import pandas as pd

CUTS = (0.0, 0.1, 0.25, 0.5)
"""Shares of a stationary run that its times and rates leave out, each measured.

MSER-5 never cuts more than half, so one of them is at least the longest warm-up of whichever architectures are compared
later: that one is used for all of them.
"""
STEP = 1.0
"""Time between two values of the backlog, s."""


class Grid:
    """The entry's runs as tables: `result` and `backlog`, of the store's schemas."""

    def __init__(self, entry: Entry, result: pa.Table, backlog: pa.Table) -> None:
        self.entry = entry
        self.result = result
        self.backlog = backlog

    @property
    def failures(self) -> list[str]:
        """Why runs failed, each reason once."""
        return list(dict.fromkeys(why for why in self.result["failed"].to_pylist() if why))

    def frame(self) -> pd.DataFrame:
        """The result as a data frame."""
        return self.result.to_pandas()


def run_grid(entry: Entry, folder: Path | str = "", key: str = "") -> Grid:
    """Run the entry; with a folder its part of the store is written there, and finished runs are not run again.

    A run that fails is a row that says why. Raises BadInput for what no run can be made of.
    """
    cases = entry.cases()
    journal = store.Journal(Path(folder) if folder else None, key)
    tables = [
        journal.kept(f"{k:03d}-{r:04d}", lambda case=case, r=r: _run(entry, case, r))  # type: ignore[misc]
        for k, case in enumerate(cases)
        for r in range(entry.replications)
    ]
    grid = Grid(entry, *(pa.concat_tables(each) for each in zip(*tables, strict=True)))
    if folder:
        store.write(Path(folder), grid.result, grid.backlog, _about(entry, cases, grid, key))
        journal.close()
    return grid


def _run(entry: Entry, case: api.Case, replication: int) -> tuple[pa.Table, pa.Table]:
    """One run, as rows of the two tables."""
    seed = draws.replication_seed(entry.seed, replication)
    meta = case.meta
    which = {
        "architecture": entry.architecture,
        "variant": entry.variant,
        "scenario": case.scenario.name,
        "rate": meta["rate"],
        "replication": replication,
    }
    origin = {
        "messages": case.messages,
        "seed": seed,
        "parameters_hash": meta["parameters_hash"],
        "calibration_hash": _calibration_hash(meta["calibration"]),
        "version": meta["version"],
        "draws": meta["draws"],
    }
    try:
        history = case.run(seed)
        violations = history.check().violations
        if violations:
            raise RunFailed(f"an invariant broke: {violations[0]}")
        rows = _measured(history)
        backlog = _backlog(history)
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        rows, backlog = [{"overloaded": False, "failed": reason}], []
    return (
        pa.Table.from_pylist([which | origin | row for row in rows], store.RESULT),
        pa.Table.from_pylist([which | row for row in backlog], store.BACKLOG),
    )


def _measured(history: History) -> list[dict[str, Any]]:
    """Every metric at every cut."""
    warm_up = metrics.warmup(history)
    overloaded = metrics.overloaded(history, cut=warm_up or 0)
    messages = history.messages.num_rows
    cuts = [int(share * messages) for share in CUTS] if history.meta["stationary"] else [0]
    return [
        {
            "cut": cut,
            "metric": name,
            "value": value,
            "unit": metrics.unit_of(name),
            "overloaded": overloaded,
            "warm_up": warm_up,
        }
        for cut in dict.fromkeys(cuts)
        for name, value in metrics.measure(history, cut).items()
    ]


def _backlog(history: History) -> list[dict[str, Any]]:
    """How many messages are issued and not settled, at every `STEP`, until the last that settles has settled."""
    facts = metrics.Facts(history)
    issued, settled = np.sort(facts.issued), np.sort(facts.settled[~np.isnan(facts.settled)])
    end = max(issued[-1], settled[-1] if settled.size else 0.0)
    times = np.arange(0.0, end + STEP, STEP)
    waiting = np.searchsorted(issued, times, "right") - np.searchsorted(settled, times, "right")
    return [{"time": t, "backlog": n} for t, n in zip(times.tolist(), waiting.tolist(), strict=True)]


def _calibration_hash(files: dict[str, str] | None) -> str | None:
    return " ".join(f"{name}:{digest}" for name, digest in sorted(files.items())) if files else None


def _about(entry: Entry, cases: list[api.Case], grid: Grid, key: str) -> dict[str, Any]:
    meta = cases[0].meta
    return {
        "key": key,
        "entry": asdict(entry),
        "parameters": meta["parameters"],
        "parameters_hash": meta["parameters_hash"],
        "calibration": meta["calibration"],
        "version": meta["version"],
        "draws": meta["draws"],
        "runs": entry.runs,
        "failed": sum(why is not None for why in grid.result["failed"].to_pylist()),
    }
