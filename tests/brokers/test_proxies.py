"""The proxies: found on the PATH or in a Python package, started with the configuration that they are given, gone after."""

from __future__ import annotations

import importlib.util
import shutil

import pytest

from simlib.brokers import envoy, haproxy, processes
from simlib.errors import BadInput, MissingPart
from tests.conftest import require_part

live = pytest.mark.live
STARTS = {
    envoy: lambda folder, config: envoy.envoy("front", folder, config, [processes.free_port()], 1),
    haproxy: lambda folder, config: haproxy.haproxy("front", folder, config, [processes.free_port()]),
}
PARTS = list(STARTS)


@pytest.mark.parametrize("part", PARTS)
def test_an_absent_proxy_is_said_with_what_to_install(part, monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert part.found() is None
    with pytest.raises(MissingPart, match="install") as said, STARTS[part](tmp_path, ""):
        pass
    assert "\n" not in str(said.value)


@live
@pytest.mark.parametrize("part", PARTS)
def test_a_proxy_with_a_configuration_that_makes_no_sense_is_bad_input_of_one_line(part, tmp_path):
    require_part(part.found() is not None, part.INSTALL)
    with pytest.raises(BadInput, match="ended with status 1") as said, STARTS[part](tmp_path, "no: sense\n"):
        pass
    assert "\n" not in str(said.value)


@live
def test_haproxy_listens_on_its_port_and_is_gone_after_the_block(tmp_path):
    require_part(haproxy.found() is not None, haproxy.INSTALL)
    port = processes.free_port()
    config = f"defaults\n mode http\n timeout client 1s\nfrontend f\n bind 127.0.0.1:{port}\n http-request return status 204\n"
    with haproxy.haproxy("front", tmp_path, config, [port]) as server:
        (process,) = server.processes()
        assert processes.listens(port) and server.url.endswith(f":{port}")
    assert not process.is_running() and not processes.listens(port)
