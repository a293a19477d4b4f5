"""Writes environment.yml from requirements.lock, so that conda and pip install the same versions.

python tools/environment.py            rewrites environment.yml
python tools/environment.py --check    exits with status 1 when it differs from what would be written
"""

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
ENVIRONMENT = ROOT / "environment.yml"
PYTHON = "3.11"

HEADER = f"""\
# Made from requirements.lock by `make environment.yml`; do not edit.
# conda env create -f environment.yml; conda activate simlib
name: simlib
channels:
  - conda-forge
  - nodefaults
dependencies:
  - python={PYTHON}
  - pip
  - pip:
"""


def pins(lock: str) -> list[str]:
    """The requirements of a lock in order, `name==version` or `name==version ; marker`, without hashes."""
    logical_lines = lock.replace("\\\n", " ").splitlines()
    requirements = [re.sub(r"\s*--hash=\S+", "", line).strip() for line in logical_lines if not line.startswith("#")]
    return [requirement for requirement in requirements if requirement]


def environment(lock: str) -> str:
    """The text of environment.yml for the text of a lock."""
    lines = [*pins(lock), "-e ."]
    return HEADER + "".join(f"      - {line}\n" for line in lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="Writes environment.yml from requirements.lock.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with status 1 when it differs")
    check = parser.parse_args().check

    text = environment(LOCK.read_text(encoding="utf-8"))
    if not check:
        ENVIRONMENT.write_text(text, encoding="utf-8")
        return 0
    if ENVIRONMENT.exists() and ENVIRONMENT.read_text(encoding="utf-8") == text:
        return 0
    print("environment.yml differs from requirements.lock: run `python tools/environment.py`", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
