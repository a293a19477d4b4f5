"""NAME as a textbook would write it in SimPy: it shares nothing with the flow's blocks, so that each checks the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simlib.scenario import Scenario

if TYPE_CHECKING:
    from simlib.architectures.template.model import CLASS


def run(parameters: CLASS, scenario: Scenario, seed: int, messages: int) -> dict[str, np.ndarray]:
    """One run, to the time when nothing is under way any more.

    Arrays of shape (messages,): `issued`, `responded`, `applied` (first effect) in s, NaN where it did not happen;
    `response` (index into `domain.RESPONSES`); `version` (made, or seen by a query) and `answer` (units that a query
    saw), -1 for none; `duplicates`, effects that happened again.
    """
    raise NotImplementedError("in oracle.py, tell the same story in plain SimPy, on the model's streams and places")
