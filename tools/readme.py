"""Fills the tables and figures of README.md and README.ru.md from the finished report's results: `make readme`."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pandas as pd

from simlib import comparison, paths
from simlib.comparison import words
from simlib.experiments import store

ROOT = Path(__file__).resolve().parent.parent
FIGURES = {"README.md": "readme_comparison.png", "README.ru.md": "readme_comparison.ru.png"}


def main() -> None:
    """Fill every block `<!-- NAME -->` … `<!-- /NAME -->` that either file has."""
    results = store.read(paths.RESULTS / "report")
    validation = json.loads(paths.VALIDATION.read_text(encoding="utf-8"))
    for name, figure in FIGURES.items():
        source, copy = paths.FIGURES / figure, ROOT / "figures" / figure
        if source != copy:
            shutil.copy(source, copy)
        blocks = {"comparison": compared(results), "validation": validated(validation)}
        text = (ROOT / name).read_text(encoding="utf-8")
        for block, content in blocks.items():
            between = re.compile(rf"(<!-- {block} -->\n).*?(<!-- /{block} -->)", re.DOTALL)
            text = between.sub(lambda found, content=content: found[1] + content + found[2], text)
        (ROOT / name).write_text(text, encoding="utf-8")


def compared(results: pd.DataFrame) -> str:
    """The first metric of each topic, a row each scenario (the roughest alone where it is not about time)."""
    table = comparison.criteria(results)
    table = table[table["metric"].isin([names[0] for names in comparison.TOPICS.values()])]
    first = table.groupby("topic")["scenario"].transform("first")
    table = table[table["topic"].isin(comparison.TIMELY) | (table["scenario"] == first)]
    candidates = list(dict.fromkeys(table["candidate"]))
    rows = []
    for (metric, scenario, rate), group in table.groupby(["metric", "scenario", "rate"], sort=False, dropna=False):
        where = scenario if pd.isna(rate) else f"{scenario}, {rate:.4g}/s"
        by = group.set_index("candidate")
        cells = [words.quantity(*by.loc[name, ["value", "unit", "low", "high"]]) for name in candidates]
        rows.append([where, f"`{metric}`", *cells])
    return markdown(["scenario", "metric", *candidates], rows)


def validated(validation: dict[str, Any]) -> str:
    """Measured against predicted: the trace-driven rows."""
    rows = []
    for row in validation["rows"]:
        if row["kind"] != "trace":
            continue
        measured = " / ".join(f"{row['measured'][level] * 1e3:.1f}" for level in ("p50", "p95", "p99"))
        errors = " / ".join(f"{row['error'][level]:+.0%}".rstrip("%") for level in ("p50", "p95", "p99"))
        verdict = {True: "met", False: "**missed**", None: "none stated"}[row["accepted"]]
        who = row["architecture"] + (f" ({row['broker']})" if row["broker"] else "")
        what = f"{row['kind_of_message']}, {row['metric'].removesuffix('_time')}"
        rows.append([who, f"{row['load']:g} ({row['rate']:g}/s)", what, measured, errors, verdict])
    columns = ["architecture", "load", "message, time", "measured p50 / p95 / p99, ms", "error, %", "stated accuracy"]
    return markdown(columns, rows)


def markdown(columns: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    main()
