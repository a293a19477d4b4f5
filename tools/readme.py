"""Fills the tables and figures of the READMEs and of docs/comparison.md: `make readme`; or the blocks that are named alone.

The measured and swept ones come from the finished report's results, the others are simulated here, in some minutes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from simlib import api, architectures, comparison, paths
from simlib.calibration import twin
from simlib.comparison import words
from simlib.domain import STOCK_UPDATE
from simlib.experiments import store
from simlib.scenario import Scenario
from simlib.statistics import paired

ROOT = Path(__file__).resolve().parent.parent
FIGURES = {"README.md": "readme_comparison.png", "README.ru.md": "readme_comparison.ru.png"}
PAGES = (*FIGURES, "docs/comparison.md")
BASELINE = "rest"


def main(names: Iterable[str] = ()) -> None:
    """Fill the blocks `<!-- NAME -->` … `<!-- /NAME -->` of these names in all pages; all of them, and the figures, where none is
    named."""
    chosen = set(names) or set(BLOCKS)
    for figure in FIGURES.values() if not names else ():
        source, copy = paths.FIGURES / figure, ROOT / "figures" / figure
        if source != copy:
            shutil.copy(source, copy)
    for name in PAGES:
        text = (ROOT / name).read_text(encoding="utf-8")
        for block in (block for block in BLOCKS if block in chosen and f"<!-- {block} -->" in text):
            between = re.compile(rf"(<!-- {block} -->\n).*?(<!-- /{block} -->)", re.DOTALL)
            text = between.sub(lambda found, block=block: found[1] + BLOCKS[block]() + found[2], text)
        (ROOT / name).write_text(text, encoding="utf-8")


def compared() -> str:
    """The criteria about time, a row each candidate and a column each metric, scenario and rate."""
    stored = store.read(paths.RESULTS / "report")
    pairs = comparison.pairs(stored)
    table = comparison.criteria(comparison.points(stored), comparison.saturation(stored), pairs)
    table = table[table["aspect"].isin(comparison.TIMELY)]
    columns: dict[str, dict[str, str]] = {}
    for (metric, scenario, rate), group in table.groupby(["metric", "scenario", "rate"], sort=False, dropna=False):
        where = scenario if pd.isna(rate) else f"{scenario}, {rate:.4g}/s"
        values = group[["candidate", "value", "unit", "low", "high"]].itertuples(index=False)
        columns[f"`{metric}`, {where}"] = {candidate: words.quantity(*value) for candidate, *value in values}
    candidates = list(dict.fromkeys(table["candidate"]))
    return markdown(
        ["architecture", *columns], [[name, *(cells[name] for cells in columns.values())] for name in candidates]
    )


def validated() -> str:
    """How many points meet the stated accuracy, and measured against predicted: the trace-driven rows."""
    validation = json.loads(paths.VALIDATION.read_text(encoding="utf-8"))
    rows, met = [], {}
    for row in validation["rows"]:
        if row["kind"] != "trace":
            continue
        measured = " / ".join(f"{row['measured'][level] * 1e3:.1f}" for level in ("p50", "p95", "p99"))
        errors = " / ".join(f"{row['error'][level]:+.0%}".rstrip("%") for level in ("p50", "p95", "p99"))
        verdict = {True: "met", False: "**missed**", None: "none stated"}[row["accepted"]]
        if row["accepted"] is not None:
            met.setdefault(twin(row), []).append(row["accepted"])
        what = f"{row['kind_of_message']}, {row['metric'].removesuffix('_time')}"
        rows.append([twin(row), f"{row['load']:g} ({row['rate']:g}/s)", what, measured, errors, verdict])
    columns = ["architecture", "load", "message, time", "measured p50 / p95 / p99, ms", "error, %", "stated accuracy"]
    counts = "; ".join(f"{name}: {sum(points)} of {len(points)}" for name, points in met.items())
    rejected = f"{validation['rejected']} of {validation['tried']}"
    saturations = [
        [
            twin(row),
            f"{row['measured']:.0f} ({row['measured_range'][0]:.0f} to {row['measured_range'][1]:.0f})",
            f"{row['predicted']:.0f}",
            f"{row['error']:+.1%}".rstrip("%"),
            "met" if row["accepted"] else "**missed**",
        ]
        for row in validation["saturations"]
    ]
    throughput = ["architecture", "measured at saturation, /s", "predicted, /s", "error, %", "stated accuracy"]
    return (
        f"Points that meet it: {counts}. Measured runs that were rejected: {rejected}.\n\n{markdown(throughput, saturations)}"
        f"\n\n{markdown(columns, rows)}"
    )


FAULTS: dict[str, dict[str, Any]] = {
    "crash of the shop": {"fault": "crash", "part": "shop", "restart": 2},
    "crash of accounting": {"fault": "crash", "part": "accounting", "restart": 2},
    "crash of the broker": {"fault": "crash", "part": "broker", "restart": 2},
    "outage of accounting, refusing": {"fault": "outage", "part": "accounting", "lasts": 2},
    "outage of accounting, blocking": {"fault": "outage", "part": "accounting", "lasts": 2, "mode": "block"},
    "accounting three times as slow": {"fault": "slowdown", "part": "accounting", "lasts": 2, "factor": 3},
    "pause of accounting": {"fault": "pause", "part": "accounting", "lasts": 2},
    "pause of the broker": {"fault": "pause", "part": "broker", "lasts": 2},
    "partition": {"fault": "partition", "lasts": 2},
    "partition of what accounting sends": {"fault": "partition", "lasts": 2, "direction": "accounting"},
    "1 % of the updates poisoned": {"fault": "poison", "kind": "stock_update", "probability": 0.01},
    "1 % of what is sent lost": {"fault": "loss", "probability": 0.01},
}
"""What strikes at 20 s, for 2 s where it passes; links are those of accounting."""


def faulted() -> str:
    """What each fault leaves of 50,000 messages, ten runs of 5,000 of the same at 100/s: how many fail, are parked, lost, or take
    effect twice, and how long the slowest delivery takes."""
    stands = {"rest": ("rest", {}), "message_queue (nats)": ("message_queue", {})}
    stands["message_queue (rabbitmq)"] = ("message_queue", {"broker": "rabbitmq"})
    rows = [[fault, *(_left(*stand, FAULTS[fault]) for stand in stands.values())] for fault in FAULTS]
    return markdown(["fault", *stands], rows)


def _left(architecture: str, parameters: dict[str, Any], fault: dict[str, Any]) -> str:
    steady = api.load_scenario("steady")
    known = architectures.get(architecture)
    flow = known.build(known.load_parameters(parameters), steady)
    if fault.get("part", "shop") not in flow.parts:
        return "none there"
    if fault["fault"] in ("partition", "loss"):
        fault = {**fault, "link": next(iter(flow.links))}
    struck = fault if "probability" in fault else {**fault, "at": [20]}
    scenario = Scenario.model_validate({**dict(steady), "faults": [struck]})
    case = api.case(architecture, scenario, parameters, 5000)
    failed, parked, lost, duplicated, slowest = 0, 0, 0, 0, 0.0
    for history in api.histories(case, 10, seed=1):
        messages = history.messages.to_pandas()
        parked += int((messages["outcome"] == "dead_lettered").sum())
        verdict = history.check()
        failed += int((messages["outcome"] == "failed").sum())
        lost += verdict.counts["lost"]
        duplicated += verdict.counts["duplicated"]
        updates = messages[messages["kind"] == STOCK_UPDATE]
        slowest = max(slowest, float((updates["applied"] - updates["issued"]).max()))
    return f"{failed} / {parked} / {lost} / {duplicated} / {slowest:.2g} s"


DOWN = "accounting is down"
"""Beside the named scenarios: 5,000 messages of `steady`, while accounting is down for 2 s."""
GIVEN: dict[str, tuple[str, str]] = {
    "an order is answered": ("steady", "response_time_p95.order"),
    "in a sale": ("flash_sale", "response_time_p95.order"),
    "a query is answered": ("steady", "response_time_p95.stock_query"),
    "an update is at the shop": ("steady", "delivery_time_p95.stock_update"),
    "stale reads": ("steady", "stale_read_fraction"),
    "own order not seen": ("steady", "read_your_writes_violations"),
    "oversold in a sale": ("flash_sale", "oversold_units"),
    "half finished": ("fulfilment", "half_finished"),
    f"failed while {DOWN}": (DOWN, "failed"),
}
"""What an architecture gives and costs: of each the less the better."""
SHOWN = (
    "response_time_p95.order", "response_time_p95.stock_query", "response_time_p95.stock_update",
    "delivery_time_p95.stock_update", "goodput", "stale_read_fraction", "read_your_writes_violations", "oversold_units",
    "undersold_units", "half_finished", "compensated", "dead_lettered",
)  # fmt: skip
"""Metrics of the tables that show everything."""


@cache
def compare(scenario: str) -> dict[str, api.Replicates]:
    """All architectures with their default parameters, ten runs each, on the same messages."""
    faults = {"faults": [{**FAULTS["crash of accounting"], "at": [20]}]}
    named = scenario != DOWN
    met = scenario if named else Scenario.model_validate({**dict(api.load_scenario("steady")), **faults})
    found = api.compare(scenario=met, messages=None if named else 5000, workers=os.cpu_count() or 1)
    return {each.case.architecture: each for each in found.replicates}


def measured(runs: api.Replicates, metric: str) -> np.ndarray:
    """A metric of each run; NaN where it is withheld."""
    row = runs.table().set_index("name").loc[metric]
    values = runs.values[metric].to_numpy(float)
    return values if np.isfinite(row["value"]) else np.full(values.shape, np.nan)


def chosen() -> str:
    """Each architecture against the baseline: bold where it is better, in italics where it is worse, by the paired interval."""
    rows = []
    for name in architectures.names():
        cells = []
        for scenario, metric in GIVEN.values():
            values, base = (measured(compare(scenario)[which], metric) for which in (name, BASELINE))
            shown = words.quantity(
                float(values.mean()), "s" if metric.endswith((".order", "_query", "_update")) else ""
            )
            if metric == "stale_read_fraction":
                shown = f"{100 * values.mean():.2g} %"
            against = paired(values, base)
            cells.append(f"**{shown}**" if against.high < 0 else f"*{shown}*" if against.low > 0 else shown)
        rows.append([f"[{name}](simlib/architectures/{name}/README.md)", *cells])
    return markdown(["architecture", *GIVEN], rows)


def shown(scenario: str) -> str:
    """All architectures on a scenario, with 95 % intervals."""
    rows = []
    for name, runs in compare(scenario).items():
        table = runs.table().set_index("name")
        rows.append([name, *(words.quantity(*table.loc[metric, ["value", "unit", "low", "high"]]) for metric in SHOWN)])
    return markdown(["architecture", *(f"`{metric}`" for metric in SHOWN)], rows)


BLOCKS: dict[str, Callable[[], str]] = {
    "comparison": compared,
    "validation": validated,
    "faults": faulted,
    "choice": chosen,
    **{f"on {scenario}": partial(shown, scenario) for scenario in ("steady", "burst", "flash_sale", "fulfilment")},
}


def markdown(columns: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    main(sys.argv[1:])
