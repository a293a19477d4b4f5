"""The runner of a sweep: which entries are there already, and a notebook for each that is not."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from simlib import paths
from simlib.errors import RunFailed
from simlib.experiments import notebooks, store
from simlib.experiments.plan import Entry, Plan
from simlib.scenario import Trace

NOTEBOOK = paths.NOTEBOOKS / "sweep.ipynb"
LATER = ("comparison", "figures", "reporting", "cli")
"""What comes after the store, and so cannot change what is in it."""


@dataclass(frozen=True)
class Outcome:
    """What became of an entry: whether it was there already, how many runs failed, why its notebook failed."""

    entry: Entry
    folder: Path
    kept: bool
    failed_runs: int = 0
    error: str | None = None

    @property
    def ok(self) -> bool:
        """Whether every run is there and none failed."""
        return self.error is None and not self.failed_runs


def sweep(plan: Plan, workers: int = 1) -> list[Outcome]:
    """Bring the plan's part of the store up to date: a notebook for each entry whose results are not there.

    `workers` notebooks run at once. Progress is shown on standard error. Folders of entries that the plan no longer has
    are removed. Raises BadInput, before anything is run or removed, where the store cannot be written or the notebook has
    not these parameters.
    """
    folder = paths.RESULTS / plan.name
    for place in (folder, *(folder / entry.name for entry in plan.entries)):
        paths.writable(place)
    keys = {entry.name: key(entry) for entry in plan.entries}
    missing = [entry for entry in plan.entries if not is_there(folder / entry.name, keys[entry.name])]
    jobs = []
    for entry in missing:
        parameters = {
            **asdict(entry),
            "rates": list(entry.rates),
            "folder": str((folder / entry.name).resolve()),
            "key": keys[entry.name],
        }
        jobs.append(notebooks.Job(NOTEBOOK, folder / entry.name / "notebook.ipynb", parameters))
    notebooks.check(jobs)
    _remove_others(folder, keys)
    for entry in missing:
        (folder / entry.name / "run.json").unlink(missing_ok=True)
    errors: dict[str, str | None] = {}
    if jobs:
        with _Progress(folder, missing) as progress:
            found = notebooks.run_all(jobs, workers, progress.look)
        errors = {entry.name: error for entry, error in zip(missing, found, strict=True)}
    outcomes = []
    for entry in plan.entries:
        error = errors.get(entry.name)
        failed = (store.about(folder / entry.name) or {}).get("failed", 0)
        outcomes.append(Outcome(entry, folder / entry.name, entry.name not in errors, failed, error))
    return outcomes


def require(outcomes: Iterable[Outcome]) -> None:
    """Raise RunFailed, naming the first, where a notebook or a run failed."""
    failed = [outcome for outcome in outcomes if not outcome.ok]
    if failed:
        first = failed[0]
        why = first.error or f"{first.failed_runs} runs failed, see the column 'failed' of its results"
        more = f" (and {len(failed) - 1} more entries)" if len(failed) > 1 else ""
        raise RunFailed(f"{first.entry.name}: {why}; kept in {first.folder}/notebook.ipynb{more}")


def is_there(folder: Path, key: str) -> bool:
    """Whether an entry's results are there, whole, and made under this key."""
    about = store.about(folder)
    return about is not None and about.get("key") == key


def key(entry: Entry) -> str:
    """A hash of all that the results of an entry depend on.

    That is: code, notebook, what is run, parameters and calibration, scenario and its trace, versions of the packages.
    """
    cases = entry.cases()
    workload = cases[0].scenario.arrivals
    return digest(
        code(LATER),
        notebooks.source(NOTEBOOK),
        json.dumps(asdict(entry), sort_keys=True),
        *(case.scenario.model_dump_json() for case in cases),
        json.dumps([cases[0].meta["parameters"], cases[0].meta["calibration"]], sort_keys=True),
        workload.file.read_bytes() if isinstance(workload, Trace) else b"",
        paths.LOCK.read_bytes() if paths.LOCK.exists() else b"",
    )


def code(without: Iterable[str] = ()) -> str:
    """A hash of the package's files but for those of some of its packages and modules."""
    left_out = tuple(without)
    files = paths.code().items()
    kept = [(name, file) for name, file in files if name.split("/")[0].removesuffix(".py") not in left_out]
    return digest(*(part for name, file in kept for part in (name, file.read_bytes())))


def digest(*parts: str | bytes) -> str:
    """Sixteen hexadecimal digits that name these parts."""
    found = hashlib.blake2b(digest_size=8)
    for part in parts:
        found.update(hashlib.blake2b(part.encode() if isinstance(part, str) else part).digest())
    return found.hexdigest()


def _remove_others(folder: Path, names: Iterable[str]) -> None:
    for each in folder.glob("*/run.json"):
        if each.parent.name not in names:
            shutil.rmtree(each.parent)


class _Progress:
    """A bar on standard error that counts the finished runs of entries."""

    def __init__(self, folder: Path, entries: list[Entry]) -> None:
        self.folder = folder
        self.entries = entries

    def __enter__(self) -> _Progress:
        from tqdm import tqdm

        total = sum(entry.runs for entry in self.entries)
        self.bar: Any = tqdm(total=total, desc=self.folder.name, unit="run", file=sys.stderr, dynamic_ncols=True)
        self.look()
        return self

    def look(self) -> None:
        """Count what is finished by now."""
        done = 0
        for entry in self.entries:
            folder = self.folder / entry.name
            done += entry.runs if store.about(folder) else store.finished_runs(folder)
        if done != self.bar.n:
            self.bar.update(done - self.bar.n)

    def __exit__(self, *_: object) -> None:
        self.look()
        self.bar.close()
