"""The architecture NAME: what fails says what is still to be filled in."""

import re
from importlib import import_module
from pathlib import Path

import numpy as np

import simlib
from simlib import architectures
from simlib.architectures.parameters import make
from simlib.domain import RESPONSES
from simlib.scenario import load_scenario

MINE = architectures.get("NAME")
ORACLE = import_module("simlib.architectures.NAME.oracle")


def test_the_flow_runs_and_breaks_no_law() -> None:
    assert MINE.build(make(MINE.parameters, {}), load_scenario("steady")).check() == []
    history = simlib.run("NAME", messages=500, engine="simpy")
    verdict = history.check()
    assert verdict.ok, str(verdict)
    assert "none" not in set(history.messages["response"].to_pylist()), "in model.py, let every message respond"


def test_model_and_oracle_tell_the_same() -> None:
    parameters, scenario = make(MINE.parameters, {}), load_scenario("steady").with_rate(20)
    told = ORACLE.run(parameters, scenario, 1, 300)
    rows = simlib.run("NAME", scenario, parameters.model_dump(), 1, 300, engine="simpy").messages.to_pandas()
    rows["response"] = rows["response"].map(RESPONSES.index)
    for column, values in told.items():
        np.testing.assert_array_equal(rows[column].to_numpy(values.dtype), values, err_msg=column)


def test_the_readme_has_no_gap() -> None:
    text = (Path(str(ORACLE.__file__)).parent / "README.md").read_text(encoding="utf-8")
    gaps = re.findall(r"<[a-z][^>]*>", text)
    assert not gaps, f"in README.md, say {gaps[0]}"
