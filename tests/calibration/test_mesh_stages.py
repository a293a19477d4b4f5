"""The times of a sidecar come from its processor time by the arithmetic that the module states."""

from types import SimpleNamespace

import pytest

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


def test_every_contrast_changes_a_parameter_of_the_mesh_and_no_other_architecture_has_any():
    from simlib import architectures

    parameters = architectures.get("service_mesh").load_parameters({})
    for changes in stages.contrasts("service_mesh").values():
        assert parameters.replace(**changes) != parameters
    assert stages.contrasts("rest") == stages.contrasts("batch_exchange") == {}
