"""The tables that `tools/readme.py` fills are there, for all architectures, and it knows all that the pages ask for."""

import importlib.util
import re
from pathlib import Path

import pytest

from simlib import architectures

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("readme", ROOT / "tools" / "readme.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def blocks(page: str) -> dict[str, str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return dict(re.findall(r"<!-- ([^/].*?) -->\n(.*?)<!-- /\1 -->", text, re.DOTALL))


def test_every_block_of_every_page_can_be_filled_and_every_filler_has_a_place(tool):
    assert {block for page in tool.PAGES for block in blocks(page)} == set(tool.BLOCKS)


@pytest.mark.parametrize("page", ["README.md", "docs/comparison.md"])
def test_tables_of_all_architectures_have_a_row_for_each(page):
    tables = [rows for name, rows in blocks(page).items() if name == "choice" or name.startswith("on ")]
    assert tables
    for rows in tables:
        names = [re.sub(r"\[(.*?)\].*", r"\1", line.split("|")[1].strip()) for line in rows.splitlines()[2:]]
        assert names == architectures.names(), "run python tools/readme.py choice 'on steady' …"
