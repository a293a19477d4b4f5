"""Where the project keeps its files: the one module that knows the paths."""

from __future__ import annotations

import os
from pathlib import Path

HOME = Path(os.environ.get("SIMLIB_HOME", Path(__file__).resolve().parent.parent))
"""The project's folder; SIMLIB_HOME names another one (a rehearsal in a temporary folder)."""
PACKAGE = Path(__file__).resolve().parent
SCENARIOS = PACKAGE / "scenarios"
NOTEBOOKS = PACKAGE.parent / "notebooks"
REPORT_SOURCE = PACKAGE.parent / "report"
LOCK = PACKAGE.parent / "requirements.lock"
DATA = HOME / "data"
PLANS = DATA / "plans"
MEASUREMENTS = DATA / "measurements"
CALIBRATION = DATA / "calibration"
VALIDATION = CALIBRATION / "validation.json"
RESULTS = DATA / "results"
FIGURES = HOME / "figures"
REPORT = HOME / "report" / "build"
