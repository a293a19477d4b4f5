"""Where the project keeps its files: the one module that knows the paths."""

from __future__ import annotations

import os
from pathlib import Path

from simlib.errors import BadInput

HOME = Path(os.environ.get("SIMLIB_HOME", Path(__file__).resolve().parent.parent))
"""The project's folder; SIMLIB_HOME names another one (a rehearsal in a temporary folder)."""
PACKAGE = Path(__file__).resolve().parent
ARCHITECTURES = (HOME if "SIMLIB_HOME" in os.environ else PACKAGE) / "architectures"
"""Where new architectures stand: with the others, or in the folder that SIMLIB_HOME names."""
SCENARIOS = PACKAGE / "scenarios"
NOTEBOOKS = PACKAGE.parent / "notebooks"
REPORT_SOURCE = PACKAGE.parent / "report"
LOCK = PACKAGE.parent / "requirements.lock"
DATA = HOME / "data"
PLANS = DATA / "plans"
MEASUREMENTS = DATA / "measurements"
BROKERS = DATA / "brokers"
"""Brokers of the user's own, by name."""
CALIBRATION = DATA / "calibration"
VALIDATION = CALIBRATION / "validation.json"
COST = DATA / "cost.json"
RESULTS = DATA / "results"
FIGURES = HOME / "figures"
REPORT = HOME / "report" / "build"
PARTS = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "simlib"
"""Real parts that are fetched once: the user's, not the project's."""


def measurement(architecture: str, broker: str | None) -> Path:
    """Where what was measured of an architecture on a broker is kept."""
    return MEASUREMENTS / (architecture.replace("/", "-") + (f".{broker}" if broker else ""))


def validation(broker: str | None = None) -> Path:
    """Where the validation of all kinds of broker is kept, or of a broker of the user's own."""
    return VALIDATION if broker is None else CALIBRATION / f"validation.{broker}.json"


def code() -> dict[str, Path]:
    """The files that results come from, by their names: the package's, and those of the user's own architectures."""
    return {
        file.relative_to(root).as_posix(): file
        for root, folder in ((PACKAGE, PACKAGE), (ARCHITECTURES.parent, ARCHITECTURES))
        for file in sorted(folder.rglob("*"))
        if file.suffix in {".py", ".yaml", ".sql"}
    }


def writable(folder: Path) -> None:
    """Raise BadInput, before any work is done for it, where a folder cannot be made or written; nothing is left of the try."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise BadInput(f"folder {folder} cannot be written: {error.strerror}: name a writable one") from None
    finally:
        for each in missing:
            if each.exists():
                each.rmdir()
