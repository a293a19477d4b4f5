"""Which architecture to choose: how each stands against the others by every criterion, and for which weights it comes first.

By a criterion one architecture is preferred to another where their paired difference is found, and is larger than the models are
accurate: the U-shaped criterion of PROMETHEE (J.-P. Brans, P. Vincke, Management Science 31 (1985) 647-656). What is overloaded
has no times, and stands behind all that have. Which aspect weighs how much is not decided here: all weights are tried (SMAA:
R. Lahdelma, J. Hokkanen, P. Salminen, European Journal of Operational Research 106 (1998) 137-143).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from simlib import architectures, draws
from simlib.comparison import MORE, SATURATION, at_criteria, compared, reference
from simlib.errors import BadInput

COSTS = {"integration": ("parts", "concepts", "settings", "failures"), "cost": ("person_months", "cognitive")}
"""What is counted of the programs, the less the better: by aspect."""
WEIGHTINGS = 10_000
"""How many sets of weights are tried."""


@dataclass(frozen=True)
class Choice:
    """How the architectures stand.

    `preferences` has a row each criterion and pair (a, b): 1 where a is preferred, -1 where b is, 0 where neither. `flows` has the
    net flow of each architecture by aspect, from -1 (behind all others by every criterion) to 1. `overall` is its mean over the
    aspects, `first` the share of weightings for which it comes first, `weights` their mean, by aspect (NaN where it never does).
    """

    preferences: pd.DataFrame
    flows: pd.DataFrame
    overall: pd.Series
    first: pd.Series
    weights: pd.DataFrame


def choose(criteria: pd.DataFrame, pairs: pd.DataFrame, costs: pd.DataFrame, validation: Mapping[str, Any]) -> Choice:
    """The choice among the architectures of a comparison, without their variants.

    `criteria` and `pairs` are the comparison's, `costs` is what `costs` gives; `validation` says how accurate the models are
    held to be.
    """
    names = compared(criteria["candidate"])
    known = _by_results(criteria, pairs, names, validation)
    preferences = pd.concat([known, _by_costs(costs, names)], ignore_index=True)
    flows = _flows(preferences, names)
    weights = _weights(len(flows.columns))
    scores = weights @ flows.to_numpy().T
    leads = scores == scores.max(axis=1, keepdims=True)
    won = leads / leads.sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        central = won.T @ weights / won.sum(axis=0)[:, None]
    return Choice(
        preferences,
        flows,
        flows.mean(axis=1),
        pd.Series(won.mean(axis=0), flows.index),
        pd.DataFrame(central, flows.index, flows.columns),
    )


def costs(file: Path) -> pd.DataFrame:
    """What the programs cost: a row each architecture, on the first of its brokers, and a column each measure.

    Raises BadInput where the file is missing or no JSON.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{file} is missing: run make cost") from None
    except ValueError as error:
        raise BadInput(f"{file} is no JSON ({error}): run make cost") from None
    rows = [
        {
            "architecture": row["architecture"],
            **{name: _count(row[name]) for names in COSTS.values() for name in names},
        }
        for row in found["rows"]
        if row["broker"] == architectures.get(row["architecture"]).brokers[0]
    ]
    return pd.DataFrame(rows).set_index("architecture")


def _count(measure: Any) -> float:
    return float(len(measure) if isinstance(measure, list) else measure)


def _by_results(
    criteria: pd.DataFrame, pairs: pd.DataFrame, names: list[str], validation: Mapping[str, Any]
) -> pd.DataFrame:
    proper = pairs[pairs["a"].isin(names) & pairs["b"].isin(names)]
    values = criteria.set_index(["aspect", "metric", "scenario", "candidate"])["value"]
    rows = []
    for row in at_criteria(proper, reference(pairs)).itertuples():
        of_a, of_b = (values[row.aspect, row.metric, row.scenario, name] for name in (row.a, row.b))
        if math.isnan(of_a) or math.isnan(of_b):
            preferred = float(math.isnan(of_b)) - float(math.isnan(of_a))
        else:
            indifferent = _inaccuracy(row.metric, validation) * max(abs(of_a), abs(of_b))
            is_found = (row.low > 0 or row.high < 0) and abs(row.difference) > indifferent
            preferred = is_found * math.copysign(1.0, row.difference) * (1 if row.metric in MORE else -1)
        rows.append((row.aspect, row.metric, row.scenario, row.a, row.b, preferred))
    return pd.DataFrame(rows, columns=["aspect", "metric", "scenario", "a", "b", "preferred"])


def _inaccuracy(metric: str, validation: Mapping[str, Any]) -> float:
    """The share by which a model may miss, as it was stated before it was validated; none is stated of counts."""
    if metric == SATURATION:
        return float(validation["saturation_accuracy"])
    level = metric.partition(".")[0].rpartition("_")[2]
    return float(validation["accuracy"].get(level, 0.0))


def _by_costs(costs: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    rows = [
        (aspect, measure, "", a, b, float(np.sign(costs.loc[b, measure] - costs.loc[a, measure])))
        for aspect, measures in COSTS.items()
        for measure in measures
        for k, b in enumerate(names)
        for a in names[k + 1 :]
    ]
    return pd.DataFrame(rows, columns=["aspect", "metric", "scenario", "a", "b", "preferred"])


def _flows(preferences: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """The net flow of each architecture by aspect: the share of others that it is preferred to, less that preferred to it."""
    turned = preferences.rename(columns={"a": "b", "b": "a"}).assign(preferred=-preferences["preferred"])
    both = pd.concat([preferences, turned])
    flows = both.groupby(["aspect", "a"], sort=False)["preferred"].mean().unstack("aspect")
    return flows.loc[names, list(dict.fromkeys(preferences["aspect"]))]


def _weights(aspects: int) -> np.ndarray:
    """Weights of the aspects that add up to 1, uniform among all such, of shape (WEIGHTINGS, aspects)."""
    drawn = draws.uniforms(draws.stream_key(0, "weights"), WEIGHTINGS * aspects, 0)
    lengths = -np.log(drawn).reshape(WEIGHTINGS, aspects)
    return lengths / lengths.sum(axis=1, keepdims=True)
