"""The errors that simlib raises on purpose, and how each ends a command."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from pydantic import ValidationError


class BadInput(ValueError):
    """What the user gave cannot be used: one line that names it, the constraint, the value and the remedy (exit 2)."""


class MissingPart(BadInput):
    """A real part (broker, database) is not on this machine; the line says what to install (exit 2)."""


class RunFailed(RuntimeError):
    """A run could not be finished, or broke an invariant such as conservation (exit 1)."""


def unknown(what: str, name: str, known: Iterable[str]) -> BadInput:
    """The error for a misspelt name: says what is unknown, what was meant perhaps, and what there is."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return BadInput(f"unknown {what} '{name}': {hint}known are {', '.join(names)}")


_REFUSED = {
    "missing": ("is missing", "add it"),
    "greater_than": ("must be above {gt}", "give a larger one"),
    "greater_than_equal": ("must be at least {ge}", "give a larger one"),
    "less_than": ("must be below {lt}", "give a smaller one"),
    "less_than_equal": ("must be at most {le}", "give a smaller one"),
    "finite_number": ("must be finite", "give a finite one"),
    "int_type": ("must be a whole number", "write digits without quotes"),
    "float_type": ("must be a number", "write one without quotes"),
    "bool_type": ("must be true or false", "write one of them"),
    "string_type": ("must be a text", "put it in quotes"),
    "tuple_type": ("must be a list", "put it in brackets"),
    "dict_type": ("must be a mapping of keys to values", "put it in braces"),
    "model_type": ("must be a mapping of keys to values", "put it in braces"),
    "model_attributes_type": ("must be a mapping of keys to values", "put it in braces"),
    "too_short": ("must have {min_length} or more", "add what is missing"),
    "too_long": ("must have {max_length} at most", "take some out"),
    "string_pattern_mismatch": ("must match {pattern}", "change it"),
}
"""What pydantic refuses: the constraint and the remedy, by the type of its error."""


def explained(error: ValidationError, where: str) -> BadInput:
    """A pydantic error as one line: where, which field, the constraint, the value, the remedy."""
    first = error.errors(include_url=False)[0]
    field, kind, about = ".".join(map(str, first["loc"])) or "value", first["type"], first.get("ctx", {})
    if kind == "value_error":
        return BadInput(f"{where}: {field + ': ' if first['loc'] else ''}{about['error']}")
    if kind == "literal_error":
        return BadInput(f"{where}: {unknown(field, str(first['input']), _quoted(about['expected']))}")
    if kind == "union_tag_invalid":
        tag = unknown(_quoted(about["discriminator"])[0], about["tag"], _quoted(about["expected_tags"]))
        return BadInput(f"{where}: {field}: {tag}")
    if kind == "union_tag_not_found":
        kind, field = "missing", f"{field}.{_quoted(about['discriminator'])[0]}"
    constraint, remedy = _REFUSED.get(kind, (first["msg"].replace("Input should be", "must be"), "correct it"))
    got = "" if kind == "missing" else f", got {shown(first['input'])}"
    return BadInput(f"{where}: {field} {constraint.format(**about)}{got}: {remedy}")


def shown(value: object) -> str:
    """A value as an error prints it: in a few words."""
    if isinstance(value, (dict, list, tuple, type(None))):
        return {dict: "a mapping", type(None): "nothing"}.get(type(value), "a list")
    words = repr(value)
    return words if len(words) <= 60 else f"{words[:57]}..."


def _quoted(words: str) -> list[str]:
    """The names that stand in quotes in pydantic's words."""
    return re.findall("'([^']*)'", words)
