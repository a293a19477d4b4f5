"""NAME: what the pattern is, in one sentence."""

from __future__ import annotations

from simlib.architectures.parameters import Parameters
from simlib.architectures.sides import sides
from simlib.flow import Flow
from simlib.scenario import Scenario


class CLASS(Parameters):
    """Parameters of NAME: a field for each time and each choice that is its own, with what both sides have of theirs."""


def build(p: CLASS, scenario: Scenario) -> Flow:
    """The flow of NAME."""
    flow = Flow("NAME")
    sides(flow, p)
    raise NotImplementedError("in model.py, give the flow what is between the sides, and each kind of message a source")
