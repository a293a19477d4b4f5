"""What a user writes in files: YAML, read strictly, into models that are frozen and know their keys."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, ScalarEvent

from simlib.errors import BadInput, explained, shown, unknown

DEEPEST = 50
"""How many lists and mappings may stand inside each other."""
_LEADING_ZERO = re.compile(r"[+-]?0[0-9_]+\Z")


class Frozen(BaseModel):
    """Frozen and validated; a key that it does not know is refused with the one that was meant perhaps."""

    model_config = ConfigDict(frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _known(cls, data: Any) -> Any:
        for key in data if isinstance(data, dict) else ():
            if key not in cls.model_fields:
                raise unknown("key", str(key), cls.model_fields)
        return data


Model = TypeVar("Model", bound=BaseModel)


def read_model(model: type[Model], path: Path, what: str, **defaults: Any) -> Model:
    """What a YAML file says; raises BadInput where it cannot be read, is no mapping or does not fit the model."""
    data = read_yaml(path)
    if not isinstance(data, dict):
        raise BadInput(
            f"{path}: {what} must be a mapping of keys to values, got {shown(data)}: write 'key: value' lines"
        )
    try:
        return model.model_validate({**defaults, **data})
    except ValidationError as error:
        raise explained(error, str(path)) from None


def read_yaml(path: Path) -> Any:
    """The data of a YAML file; raises BadInput where it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}: name a YAML file that is there") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is no text in UTF-8 (byte {error.start}): name a YAML file") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, where: str) -> Any:
    """YAML 1.2 as plain Python data.

    Raises BadInput for bad syntax and duplicate keys, and for what means one thing here and another there, or harm: aliases,
    tags, deep nesting, numbers with a leading zero.
    """
    try:
        depth = 0
        for event in YAML(typ="safe", pure=True).parse(text):
            depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
            if isinstance(event, AliasEvent):
                raise BadInput(f"{where}: a YAML alias is not allowed, got '*{event.anchor}': write the value out")
            if depth > DEEPEST:
                raise BadInput(
                    f"{where}: at most {DEEPEST} lists and mappings may stand inside each other: write it flat"
                )
            if getattr(event, "tag", None) is not None:
                raise BadInput(f"{where}: a YAML tag is not allowed, got '{event.tag}': write the value alone")
            if isinstance(event, ScalarEvent) and event.implicit[0] and _LEADING_ZERO.match(event.value):
                raise BadInput(
                    f"{where}: a number must not begin with 0, got {event.value}: write {int(event.value)}, or quotes around a text"
                )
        return YAML(typ="safe", pure=True).load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise BadInput(f"{where}{line}: not valid YAML: {error.problem or error.context}: correct it") from None
    except YAMLError as error:
        raise BadInput(f"{where}: not valid YAML: {str(error).splitlines()[0]}: correct it") from None
