"""The cost of development, measured on the live twins, for docs/cost.md and data/cost.json: `make cost`; `--check` writes nothing.

What counts is the code of the pattern: `live.py`, what it imports of the architectures, and the files that these name. The ground
of all twins (`twin.py`, `schema.sql`, the engine, what starts a broker) does not, nor what some do beside the pattern where
orders go through several steps (`steps.py`, `steps.sql`).
"""

from __future__ import annotations

import ast
import io
import json
import keyword
import math
import re
import sys
import token
import tokenize
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import complexipy
import lizard
from ruamel.yaml import YAML

from simlib import architectures
from simlib.architectures.parameters import PROFILES, Parameters, times
from simlib.engines import live

ROOT = Path(__file__).resolve().parent.parent
PAGE, DATA = ROOT / "docs" / "cost.md", ROOT / "data" / "cost.json"
PACKAGE = ROOT / "simlib" / "architectures"
GROUND = {"twin", "parameters", "model", "oracle", "steps", "__init__"}
"""Modules that belong to all twins, to the models, or to a process of several steps, which no pattern needs but the sagas."""
BASELINE = "rest"
_KEYWORDS = set(keyword.kwlist) - {"None", "True", "False"}
_OTHERS = {token.NEWLINE, token.NL, token.INDENT, token.DEDENT, token.COMMENT, token.ENCODING, token.ENDMARKER}


@dataclass(frozen=True)
class Cost:
    """What it takes to write and run one architecture, on one broker or proxy where it stands on one."""

    architecture: str
    broker: str | None
    """Or proxy."""
    files: tuple[str, ...]
    statements: int
    lines: int
    """Lines of Python and SQL that are neither blank nor comment."""
    cyclomatic: int
    """Sum over all functions (McCabe)."""
    most_cyclomatic: int
    """Of the function that has most."""
    cognitive: int
    """Sum over all functions (Campbell)."""
    volume: float
    effort: float
    """Halstead's V and E, summed over the files of Python."""
    configuration: int
    """Lines of configuration that are neither blank nor comment."""
    settings: int
    """Parameters that somebody must choose."""
    parts: tuple[str, ...]
    """Processes to run."""
    concepts: tuple[str, ...]
    failures: tuple[str, ...]
    person_months: float
    """Basic COCOMO, organic: far below the sizes that it was fitted to, so of use as a ratio alone."""

    @property
    def name(self) -> str:
        return self.architecture + (f" ({self.broker})" if self.broker else "")


class Halstead(NamedTuple):
    """Distinct operators and operands, and all of them."""

    n1: int
    n2: int
    N1: int
    N2: int

    @property
    def volume(self) -> float:
        return (self.N1 + self.N2) * math.log2(self.n1 + self.n2)

    @property
    def difficulty(self) -> float:
        return self.n1 / 2 * self.N2 / self.n2

    @property
    def effort(self) -> float:
        return self.difficulty * self.volume


@cache
def stated() -> dict[str, Any]:
    """What stands in cost.yaml, by architecture."""
    found: dict[str, Any] = YAML(typ="safe", pure=True).load(Path(__file__).with_suffix(".yaml"))
    return found


def known_of(name: str, what: str) -> tuple[str, ...]:
    """The concepts or failures of an architecture, after those of the one that it stands on."""
    entry = stated()[name]
    below = known_of(entry["on"], what) if entry.get("on") else ()
    return tuple(dict.fromkeys([*below, *entry[what]]))


def code(architecture: str, broker: str | None) -> list[Path]:
    """The files of a pattern, without those of other brokers (`on_<broker>.py`), or of what does not run by default."""
    found: list[Path] = []
    waiting = [PACKAGE / architecture / "live.py"]
    while waiting:
        file = waiting.pop(0)
        of_another = file.stem.startswith("on_") and file.stem != f"on_{broker}"
        of_another |= stated()[architecture].get("only", {}).get(file.stem, broker) != broker
        if file in found or file.stem in GROUND or of_another:
            continue
        found.append(file)
        if file.suffix == ".py":
            waiting += [*imported(file), *named(file)]
    return found


def imported(file: Path) -> Iterator[Path]:
    """The modules of the architectures that a file imports, wherever it does."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("simlib.architectures"):
            path = PACKAGE.joinpath(*str(node.module).split(".")[2:])
            for one in (path.with_suffix(".py"), *(path / f"{alias.name}.py" for alias in node.names)):
                if one.exists():
                    yield one


def named(file: Path) -> Iterator[Path]:
    """The files that lie beside a module and that it names."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"\w+\.\w+", node.value):
            for folder in (file.parent, file.parent.parent):
                one = folder / node.value
                if one.is_file() and folder != PACKAGE:
                    yield one
                    break


def statements(text: str) -> int:
    """Statements of Python, without imports and docstrings."""
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.stmt)]
    return sum(
        not isinstance(node, ast.Import | ast.ImportFrom)
        and not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        for node in nodes
    )


def halstead(text: str) -> Halstead:
    """Operators are keywords and signs (a pair of brackets is one), operands names and literals; docstrings are none."""
    operators: Counter[str] = Counter()
    operands: Counter[str] = Counter()
    before = token.NEWLINE
    for one in tokenize.generate_tokens(io.StringIO(text).readline):
        if one.type in _OTHERS:
            before = before if one.type in (token.NL, token.COMMENT) else token.NEWLINE
            continue
        alone = one.type == token.STRING and before == token.NEWLINE
        before = one.type
        if alone or one.string in (")", "]", "}"):
            continue
        is_operator = one.type == token.OP or one.string in _KEYWORDS
        (operators if is_operator else operands)[one.string] += 1
    return Halstead(len(operators), len(operands), operators.total(), operands.total())


def written(text: str, comment: str) -> int:
    """Lines that are neither blank nor comment."""
    return sum(bool(line.strip()) and not line.strip().startswith(comment) for line in text.splitlines())


def cocomo(kloc: float, mode: str = "organic") -> float:
    """Person-months of basic COCOMO."""
    metrics = YAML(typ="safe", pure=True).load(ROOT / "data" / "reference" / "cost_metrics.yaml")
    of = metrics["cocomo_basic"]["coefficients"][mode]
    return float(of["a"] * kloc ** of["b"])


def variant_on(architecture: str, broker: str | None) -> type[Parameters]:
    """The parameters of an architecture on a broker or proxy, in the default variant of it."""
    return next(one for one in architectures.get(architecture).variants if one.stands_on() == broker)


def to_run(architecture: str, broker: str | None) -> tuple[str, ...]:
    """The processes that a twin is made of: real parts, programs, what stands beside them."""
    twin, variant = architectures.get(architecture).live, variant_on(architecture, broker)
    brokers = [broker] if broker and "broker" in variant.model_fields else []
    own = [part for part in live.parts(twin, variant().model_dump(mode="json")) if part != "broker"]
    also = [name for name, on in stated()[architecture].get("also", {}).items() if on == broker]
    return tuple(dict.fromkeys([*twin.PARTS, *brokers, *own, *also]))


def cost(architecture: str, broker: str | None) -> Cost:
    """The cost of an architecture's twin."""
    files = code(architecture, broker)
    python = {file: file.read_text(encoding="utf-8") for file in files if file.suffix == ".py"}
    others = {file: file.read_text(encoding="utf-8") for file in files if file.suffix != ".py"}
    seen = [lizard.analyze_file(str(file)) for file in python]
    functions = [function.cyclomatic_complexity for one in seen for function in one.function_list]
    texts = [halstead(text) for text in python.values()]
    sql = sum(written(text, "--") for file, text in others.items() if file.suffix == ".sql")
    lines = sum(one.nloc for one in seen) + sql
    variant = variant_on(architecture, broker)
    settings = set(variant.model_fields) - times(variant) - set(Parameters.model_fields) - set(PROFILES)
    return Cost(
        architecture=architecture,
        broker=broker,
        files=tuple(file.relative_to(PACKAGE).as_posix() for file in files),
        statements=sum(map(statements, python.values())),
        lines=lines,
        cyclomatic=sum(functions),
        most_cyclomatic=max(functions),
        cognitive=sum(complexipy.file_complexity(str(file)).complexity for file in python),
        volume=round(sum(text.volume for text in texts), 1),
        effort=round(sum(text.effort for text in texts), 1),
        configuration=sum(written(text, "#") for file, text in others.items() if file.suffix != ".sql"),
        settings=len(settings),
        parts=to_run(architecture, broker),
        concepts=known_of(architecture, "concepts"),
        failures=known_of(architecture, "failures"),
        person_months=round(cocomo(lines / 1000), 4),
    )


def costs() -> list[Cost]:
    """The costs of all twins that come with the package, on each broker."""
    own = [name for name in architectures.twins() if (PACKAGE / name).is_dir()]
    return [cost(name, broker) for name in own for broker in architectures.get(name).brokers]


def table(rows: list[Cost]) -> str:
    """Of all twins, in Markdown."""
    (baseline,) = (row for row in rows if row.architecture == BASELINE)
    heads = ["twin", "statements", "lines", "cyclomatic (most)", "cognitive", "Halstead V", "Halstead E, thousands",
             "configuration lines", "settings", "parts to run", "concepts", "failure modes", "COCOMO, times REST"]  # fmt: skip
    lines = ["| " + " | ".join(heads) + " |", "| --- |" + " --: |" * (len(heads) - 1)]
    for row in rows:
        cells = [row.name, row.statements, row.lines, f"{row.cyclomatic} ({row.most_cyclomatic})", row.cognitive,
                 f"{row.volume:.0f}", f"{row.effort / 1000:.0f}", row.configuration, row.settings, len(row.parts),
                 len(row.concepts), len(row.failures), f"{row.person_months / baseline.person_months:.2f}"]  # fmt: skip
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def lists(rows: list[Cost]) -> str:
    """What was counted, by twin, in Markdown."""
    blocks = []
    for row in rows:
        what = {"files": [f"`{file}`" for file in row.files], "parts to run": row.parts, "concepts": row.concepts,
                "failure modes": row.failures}  # fmt: skip
        blocks.append(
            f"### {row.name}\n\n" + "\n".join(f"- {name}: {', '.join(of)}." for name, of in what.items()) + "\n"
        )
    return "\n".join(blocks)


def page(rows: list[Cost]) -> str:
    """The page with its blocks filled."""
    text = PAGE.read_text(encoding="utf-8")
    for name, block in (("table", table(rows)), ("lists", lists(rows))):
        between = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        text = between.sub(lambda found, block=block: found[1] + block + found[2], text)
    return text


def document(rows: list[Cost]) -> str:
    """The same as JSON, a row each twin."""
    return json.dumps({"rows": [asdict(row) for row in rows]}, indent=1) + "\n"


def main() -> int:
    rows = costs()
    made = {PAGE: page(rows), DATA: document(rows)}
    if "--check" in sys.argv[1:]:
        stale = [file.name for file, text in made.items() if file.read_text(encoding="utf-8") != text]
        if stale:
            print(f"{' and '.join(stale)} differ from the twins: run `make cost`", file=sys.stderr)
        return int(bool(stale))
    for file, text in made.items():
        file.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
