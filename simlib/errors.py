"""The errors that simlib raises on purpose, and how each ends a command."""

from __future__ import annotations

import difflib
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


def explained(error: ValidationError, where: str) -> BadInput:
    """A pydantic error as one line: where, which field, the constraint, the value."""
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    value = first.get("input")
    got = "" if isinstance(value, (dict, list)) else f", got {value!r}"
    if first["type"] == "extra_forbidden":
        return BadInput(f"{where}: unknown key '{field}': remove it or correct its name")
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    message = first["msg"].removeprefix("Value error, ")
    return BadInput(f"{where}: {field or 'value'}: {message}{got}{more}")
