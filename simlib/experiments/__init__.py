"""Sweeps: a plan, a notebook for each of its entries, and the store that these notebooks write."""

from simlib.experiments.grid import CUTS, Grid, run_grid
from simlib.experiments.plan import Candidate, Entry, Load, Plan, load_plan
from simlib.experiments.runner import Outcome, require, sweep
from simlib.experiments.store import read

__all__ = [
    "CUTS",
    "Candidate",
    "Entry",
    "Grid",
    "Load",
    "Outcome",
    "Plan",
    "load_plan",
    "read",
    "require",
    "run_grid",
    "sweep",
]
