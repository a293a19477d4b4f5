"""The times of a sidecar come from its processor time by the arithmetic that the module states."""

from types import SimpleNamespace

import pytest

from simlib import architectures
from simlib.calibration import stages
from simlib.calibration.stages import service_mesh
from simlib.domain import STOCK_QUERY, STOCK_UPDATE

HOP, TLS, PUSH = 150e-6, 20e-6, 300e-6


def run(messages, passage, pushes=0.0, wall=6.0):
    """A run whose sidecars took as much processor time as its messages and configurations cost."""
    spent = 2 * messages * passage + pushes * PUSH
    usage = {"accounting.sidecar": spent, "shop.sidecar": spent}
    return SimpleNamespace(meta={"cpu_seconds": usage, "wall": wall}, messages=SimpleNamespace(num_rows=messages))


def test_hop_tls_and_push_are_told_apart_by_the_contrasts():
    busy = {
        STOCK_UPDATE: run(600, HOP + TLS),
        STOCK_QUERY: run(500, HOP + TLS),
        service_mesh.PLAIN: run(600, HOP),
        service_mesh.PUSHED: run(600, HOP + TLS, pushes=6.0 / service_mesh.PUSHED_EVERY),
    }
    found = service_mesh.mesh_cpu(busy)
    assert found == pytest.approx({"hop": HOP, "tls": TLS, "push": PUSH})
    del busy[service_mesh.PUSHED]
    assert service_mesh.mesh_cpu(busy) == pytest.approx({"hop": HOP, "tls": TLS}), "nobody pushes to HAProxy"


@pytest.mark.parametrize(("proxy", "names"), [("envoy", {"plain", "pushed"}), ("haproxy", {"plain"})])
def test_contrasts_are_those_of_the_proxy_and_each_changes_a_parameter(proxy, names):
    parameters = architectures.get("service_mesh").load_parameters({"proxy": proxy})
    contrasts = stages.contrasts("service_mesh", proxy)
    assert set(contrasts) == names
    assert all(parameters.replace(**one.changes) != parameters for one in contrasts.values())


@pytest.mark.parametrize(("name", "profile"), [("rest", None), ("batch_exchange", None), ("message_queue", "nats")])
def test_most_architectures_need_no_contrasts(name, profile):
    assert stages.contrasts(name, profile) == {}
