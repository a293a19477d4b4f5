"""The cost of development: the page is the generated one, and each measure counts what it says."""

import importlib.util
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from simlib import architectures

ROOT = Path(__file__).resolve().parent.parent
METRICS = YAML(typ="safe", pure=True).load(ROOT / "data/reference/cost_metrics.yaml")


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("cost", ROOT / "tools" / "cost.py")
    sys.modules["cost"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def rows(tool):
    return {row.name: row for row in tool.costs()}


def test_page_and_data_are_those_that_the_twins_give(tool, rows):
    those = list(rows.values())
    assert tool.PAGE.read_text(encoding="utf-8") == tool.page(those), "run make cost"
    assert tool.DATA.read_text(encoding="utf-8") == tool.document(those), "run make cost"


def test_every_architecture_has_its_lists_and_every_twin_its_row(tool, rows):
    shipped = {name for name in architectures.names() if (tool.PACKAGE / name).is_dir()}
    assert set(tool.stated()) == shipped
    assert {row.architecture for row in rows.values()} == {name for name in shipped if architectures.get(name).has_twin}


def test_a_pattern_is_its_live_module_with_what_that_takes_from_others_and_no_ground(rows):
    assert rows["rest"].files == ("rest/live.py", "calls.py")
    mesh = rows["service_mesh (envoy)"]
    assert {"service_mesh/envoy.yaml", "service_mesh/control_plane.py", "rest/live.py", "calls.py"} <= set(mesh.files)
    assert mesh.configuration > 50 and rows["rest"].configuration == 0
    assert {"accounting.sidecar", "shop.sidecar", "control_plane"} == set(mesh.parts) - set(rows["rest"].parts)
    assert not any(file.endswith(("twin.py", "model.py", "oracle.py")) for row in rows.values() for file in row.files)


def test_a_proxy_counts_where_it_is_the_sidecar_alone(rows):
    light, heavy = rows["service_mesh (haproxy)"], rows["service_mesh (envoy)"]
    assert {"service_mesh/haproxy.cfg"} == set(light.files) - set(heavy.files)
    assert {"service_mesh/envoy.yaml", "service_mesh/control_plane.py"} == set(heavy.files) - set(light.files)
    assert "control_plane" not in light.parts and light.settings < heavy.settings


def test_a_broker_counts_where_it_is_stood_on_alone(rows):
    assert "message_queue/on_rabbitmq.py" not in rows["message_queue (nats)"].files
    assert "message_queue/on_nats.py" not in rows["message_queue (rabbitmq)"].files
    assert rows["message_queue (rabbitmq)"].parts == ("postgres", "rabbitmq", "accounting", "shop")


@pytest.mark.parametrize("case", METRICS["cocomo_basic"]["cases"], ids=lambda case: f"{case['mode']}-{case['kloc']}")
def test_cocomo_gives_the_published_efforts(tool, case):
    assert tool.cocomo(case["kloc"], case["mode"]) == pytest.approx(case["effort"], rel=1e-6)


def test_halstead_gives_the_worked_example(tool):
    example = METRICS["halstead"]["example"]
    found = tool.Halstead(*(example[name] for name in ("n1", "n2", "N1", "N2")))
    assert (found.volume, found.difficulty) == pytest.approx((example["V"], example["D"]), rel=1e-6)
    assert found.effort == pytest.approx(example["E"], rel=1e-6)


def test_halstead_counts_signs_and_keywords_as_operators_and_names_as_operands(tool):
    text = '"""A docstring."""\n\n\ndef f(a):\n    """Another."""\n    # a comment\n    return a + a * 2\n'
    found = tool.halstead(text)
    assert found == (6, 3, 6, 5), "def ( : return + * and f a a a 2"


def test_imports_docstrings_comments_and_blank_lines_are_no_statements(tool):
    assert tool.statements('"""Doc."""\nimport os\n\n# comment\nx = 1\nif x:\n    y = 2\n') == 3
    assert tool.written("a\n\n-- b\n  -- c\nd\n", "--") == 2
