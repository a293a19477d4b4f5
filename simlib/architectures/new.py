"""A new architecture: a folder of the one shape, and a test that fails with what is to be filled in."""

from __future__ import annotations

import keyword
import os
import re
from pathlib import Path

from simlib import paths
from simlib.architectures import ARCHITECTURES, class_name
from simlib.errors import BadInput

TEMPLATE = paths.PACKAGE / "architectures" / "template"


def create(name: str) -> list[Path]:
    """Make the architecture's folder and its test, and put it among the others; the files that were written.

    In a checkout of the project the folder stands with the others, the test in `tests/architectures`, and a line is added to
    `ARCHITECTURES`. Where SIMLIB_HOME names a folder they stand in its `architectures`, from where they are found.
    Raises BadInput for a name that cannot be one or is taken, or where there is neither.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise BadInput(
            f"the name of an architecture must be of lower-case letters, digits and _, and no word of Python, got '{name}':"
            " choose another"
        )
    folder, registry, tests = paths.ARCHITECTURES / name, paths.PACKAGE / "architectures" / "__init__.py", None
    if name in ARCHITECTURES or folder.exists() or (registry.parent / f"{name}.py").exists():
        raise BadInput(f"the name '{name}' is taken: choose another")
    if "SIMLIB_HOME" not in os.environ:
        tests = paths.PACKAGE.parent / "tests" / "architectures"
        if not tests.exists():
            raise BadInput("here is no checkout of the project to add it to: set SIMLIB_HOME to a folder for your own")
    paths.writable(folder)
    folder.mkdir(parents=True)
    places = {file: folder / file for file in ("__init__.py", "model.py", "oracle.py", "README.md")}
    places["test.py"] = (tests or folder) / f"test_{name}.py"
    for file, place in places.items():
        text = (TEMPLATE / file).read_text(encoding="utf-8").replace("architectures.template", f"architectures.{name}")
        place.write_text(text.replace("NAME", name).replace("CLASS", class_name(name)), encoding="utf-8")
    if tests:
        line = f'        Architecture("{name}", "{class_name(name)}"),\n'
        text = registry.read_text(encoding="utf-8")
        end = text.index("    )\n}", text.index("ARCHITECTURES = {"))
        registry.write_text(text[:end] + line + text[end:], encoding="utf-8")
        places["registry"] = registry
    return list(places.values())
