"""The mesh's mechanisms, live: each is seen to hold with it, and to fail without."""

from __future__ import annotations

import json
import re
import socket
import ssl
import time
import urllib.error
import urllib.request

import pytest

from simlib.architectures.service_mesh import control_plane
from simlib.brokers import envoy, haproxy, processes
from simlib.distributions import Constant
from simlib.engines.live import parts
from simlib.errors import BadInput
from simlib.scenario import Crash
from tests.conftest import require_part

pytestmark = [pytest.mark.live, pytest.mark.xdist_group("live")]
ALONE = {"retries": 0, "proxy_retries": 0}
"""Nobody tries again."""


def columns(history):
    return history.messages.to_pandas()


def told(history):
    return columns(history)["response"].astype(str).value_counts().to_dict()


def tries(history):
    """The numbers of the tries that came to a handler."""
    stamps = history.attempts.to_pandas()
    return stamps.loc[stamps["block"].str.endswith(".handle"), "attempt"]


def inbound(ready, side):
    """The port on which a side's sidecar listens for those of the other side."""
    (file,) = [*ready.folder.glob(f"{side}.sidecar.yaml"), *ready.folder.glob(f"{side}.sidecar.cfg")]
    config = file.read_text(encoding="utf-8").split(" inbound\n")[1]
    return int(re.search(r"port_value: (\d+)|127.0.0.1:(\d+)", config)[0].split(":")[-1])


@pytest.fixture(scope="module")
def sidecars(bench):
    """Sidecars that retry for applications that do not."""
    require_part(envoy.found() is not None, envoy.INSTALL)
    with bench("service_mesh", retries=0, proxy_retries=3, proxy_backoff=0.005) as ready:
        yield ready


@pytest.fixture(scope="module")
def light(bench):
    """The same with HAProxy, which has no backoff."""
    require_part(haproxy.found() is not None, haproxy.INSTALL)
    with bench("service_mesh", proxy="haproxy", retries=0, proxy_retries=3, ejection=0) as ready:
        yield ready


@pytest.mark.parametrize("which", ["sidecars", "light"])
def test_sidecars_try_again_before_the_application_knows(request, which, workload):
    mended = request.getfixturevalue(which).run(workload(30.0, only="stock_query", handler_failure=0.3), 1, 60)
    assert told(mended).get("failed", 0) <= 3 and tries(mended).max() > 2
    assert columns(mended)["attempts"].max() == 1, "the application called once"


def test_without_retries_the_application_learns_of_each_failure(run, workload):
    alone = run("service_mesh", workload(30.0, only="stock_query", handler_failure=0.3), 60, **ALONE)
    assert told(alone)["failed"] > 5 and set(tries(alone)) == {1}


def test_a_killed_sidecar_cuts_a_side_off_and_is_started_again(sidecars, workload):
    struck = workload(40.0, only="stock_query", faults=(Crash(part="shop.sidecar", at=(0.5,), restart=0.5),))
    history = sidecars.run(struck, 2, 80)
    messages = columns(history)
    assert history.check().ok
    assert (messages.loc[messages["issued"] < 0.4, "response"] == "ok").all()
    assert (messages["response"] == "failed").sum() > 5
    assert (messages.loc[messages["issued"] > history.meta["struck"][0]["stood"][1] + 0.2, "response"] == "ok").all()


def test_a_configuration_is_taken_in_without_a_restart(sidecars, workload):
    """A port where nobody listens is named, and then the right one again, while the control plane itself is silent."""
    (silent,) = sidecars.servers["control_plane"].processes()
    file = sidecars.folder / "shop.sidecar.endpoints.json"
    queries = workload(40.0, only="stock_query")
    responses = []
    silent.suspend()
    for version, port in ((1001, processes.free_port()), (1002, inbound(sidecars, "accounting"))):
        control_plane.push(version, {str(file): [port]})
        time.sleep(0.5)
        responses.append(told(sidecars.run(queries, 3, 10)))
    silent.resume()
    assert responses == [{"failed": 10}, {"ok": 10}]


def test_configurations_come_as_often_as_is_said(bench, workload):
    with bench("service_mesh", push_interval=0.05) as ready:
        assert told(ready.run(workload(40.0), 1, 40)) == {"ok": 40}
        sent = json.loads((ready.folder / "shop.sidecar.endpoints.json").read_text(encoding="utf-8"))
    assert int(sent["version_info"]) > 20


@pytest.mark.parametrize("which", ["sidecars", "light"])
def test_only_the_other_sides_sidecar_is_let_in(request, which):
    ready = request.getfixturevalue(which)
    port = inbound(ready, "accounting")
    with pytest.raises((urllib.error.URLError, ConnectionError)):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/pending", timeout=5)

    def asked(certificate):
        context = ssl.create_default_context(cafile=ready.folder / "authority.pem")
        if certificate:
            context.load_cert_chain(ready.folder / f"{certificate}.pem")
        with (
            socket.create_connection(("127.0.0.1", port), timeout=5) as plain,
            context.wrap_socket(plain, server_hostname="accounting") as connection,
        ):
            connection.sendall(b"GET /pending HTTP/1.1\r\nHost: accounting\r\n\r\n")
            return connection.recv(64)

    assert asked("shop").startswith(b"HTTP/1.1 200")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        asked(None)
    if which == "sidecars":
        with pytest.raises(ssl.SSLError):
            asked("accounting")
    else:
        assert asked("accounting").startswith(b"HTTP/1.1 403"), "HAProxy answers whoever the authority knows"


def test_without_mtls_anybody_is_let_in_and_the_applications_do_not_notice(bench, workload):
    with bench("service_mesh", mtls=False) as ready:
        port = inbound(ready, "accounting")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/pending", timeout=5) as answer:
            assert answer.status == 200
        assert told(ready.run(workload(40.0), 1, 40)) == {"ok": 40}


@pytest.mark.parametrize(("proxy", "ejection"), [("envoy", 0), ("envoy", 3), ("haproxy", 3)])
def test_a_dead_process_gets_a_share_of_all_calls_unless_it_is_left_out(run, workload, proxy, ejection):
    dead = workload(40.0, only="stock_query", faults=(Crash(part="accounting.2", at=(0.2,), restart=2.0),))
    history = run("service_mesh", dead, 80, proxy=proxy, processes=2, ejection=ejection, ejection_lasts=10.0, **ALONE)
    failed = 80 - told(history)["ok"]
    assert 3 <= failed <= 8 if ejection else failed > 20, "what is under way when it is left out fails too"


@pytest.mark.parametrize(("proxy_retries", "calls"), [(0, 2), (2, 6)])
def test_retries_of_the_sidecar_multiply_those_of_the_application(run, workload, proxy_retries, calls):
    failing = workload(20.0, only="stock_query", handler_failure=1.0)
    history = run(
        "service_mesh", failing, 10, retries=1, backoff=0.01, proxy_retries=proxy_retries, proxy_backoff=0.002
    )
    assert told(history) == {"failed": 10}
    assert len(tries(history)) == 10 * calls
    assert sorted(set(tries(history))) == list(range(1, calls + 1)), "each try has a number of its own"


def test_a_budget_bounds_what_retries_add(run, workload):
    failing = workload(300.0, only="stock_query", handler_failure=1.0)
    policy = {"retries": 0, "proxy_retries": 3, "proxy_backoff": 0.05, "timeout": 10.0}
    free = run("service_mesh", failing, 100, **policy)
    bounded = run("service_mesh", failing, 100, proxy_budget=0.1, **policy)
    assert len(tries(free)) == 400
    assert 100 < len(tries(bounded)) < 200


@pytest.mark.parametrize("limit", [1, 1024])
def test_limits_refuse_at_once_what_would_wait_at_the_other_side(run, workload, limit):
    crowded = workload(300.0, only="stock_query", handler_work=Constant(0.02))
    history = run("service_mesh", crowded, 40, proxy_connections=1, proxy_pending=limit, **ALONE)
    refused = told(history).get("failed", 0)
    assert refused > 10 if limit == 1 else refused == 0
    assert len(tries(history)) == 40 - refused, "what was refused never came to the other side"


@pytest.mark.parametrize("idempotency", [False, True])
def test_a_sidecar_repeats_what_was_done_unless_requests_carry_a_key(run, workload, idempotency):
    slow = workload(6.0, only="order", handler_work=Constant(0.05))
    impatient = {"retries": 0, "proxy_retries": 1, "proxy_timeout": 0.03, "proxy_backoff": 0.01}
    messages = columns(run("service_mesh", slow, 12, idempotency=idempotency, **impatient))
    assert set(messages["response"]) == {"timed_out"}, "the sidecar gave up, and the caller does not know"
    assert (messages["outcome"] == "applied").sum() > 5
    assert (messages["duplicates"].sum() > 0) is not idempotency


def test_what_the_twin_has_not_is_refused_in_one_line(bench):
    with pytest.raises(BadInput, match="breaker"), bench("service_mesh", breaker=1):
        pass


def test_every_process_and_its_sidecar_can_be_killed():
    from simlib import architectures

    twin = architectures.get("service_mesh").live
    assert parts(twin, {"processes": 2})[:4] == ["accounting", "shop", "accounting.2", "shop.2"]
    assert "shop.2.sidecar" in parts(twin, {"processes": 2})
    assert "shop.2.sidecar" not in parts(twin, {"processes": 1})
