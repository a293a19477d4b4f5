"""Real servers for the tests of the live twins, started once, and short ways to run a twin on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

from simlib import architectures
from simlib.brokers import Server
from simlib.brokers import kafka as kafka_part
from simlib.brokers import nats as nats_part
from simlib.brokers import postgres as postgres_part
from simlib.brokers import rabbitmq as rabbitmq_part
from simlib.engines.live import Bench, broker_of
from simlib.history import History
from simlib.scenario import Mix, Scenario, load_scenario
from tests.conftest import require_part


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    require_part(postgres_part.found() is not None, f"no PostgreSQL: {postgres_part.INSTALL}")
    with postgres_part.postgres() as server:
        yield server


@pytest.fixture(scope="session")
def nats() -> Iterator[Server]:
    require_part(nats_part.found() is not None, f"no NATS: {nats_part.INSTALL}")
    with nats_part.nats() as server:
        yield server


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[Server]:
    require_part(rabbitmq_part.found() is not None, f"no RabbitMQ: {rabbitmq_part.INSTALL}")
    with rabbitmq_part.rabbitmq() as server:
        yield server


@pytest.fixture(scope="session")
def kafka() -> Iterator[Server]:
    require_part(kafka_part.found() is not None, f"no Kafka: {kafka_part.INSTALL}")
    with kafka_part.kafka() as server:
        yield server


NAMED = {
    "postgres": postgres_part.URL, "nats": nats_part.URL, "rabbitmq": rabbitmq_part.URL, "kafka": kafka_part.URL
}  # fmt: skip
"""The variables that name the servers of the session, each a fixture of the part's name."""


@pytest.fixture(scope="session")
def bench(request: pytest.FixtureRequest) -> Callable[..., AbstractContextManager[Bench]]:
    """Makes the bench of an architecture, with parameters, on the servers of the session; on a broker of its own if asked; for
    orders of several steps if asked."""

    @contextmanager
    def make(name: str, own_broker: bool = False, process: str = "simple", **parameters: Any) -> Iterator[Bench]:
        architecture = architectures.get(name)
        loaded = architecture.load_parameters(parameters)
        broker = broker_of(loaded.model_dump())
        with pytest.MonkeyPatch.context() as environment:
            for part, variable in NAMED.items():
                environment.delenv(variable, raising=False)
                if part in architecture.live.PARTS or part == broker:
                    if not (part == broker and own_broker):
                        environment.setenv(variable, request.getfixturevalue(part).url)
            with Bench(architecture.live, loaded, process) as ready:
                yield ready

    return make


@pytest.fixture
def run(bench: Callable[..., AbstractContextManager[Bench]]) -> Callable[..., History]:
    """Runs a scenario on a twin with parameters."""

    def perform(name: str, scenario: Scenario, messages: int, **parameters: Any) -> History:
        with bench(name, **parameters) as ready:
            return ready.run(scenario, 1, messages)

    return perform


TWINS: list[tuple[str, dict[str, Any]]] = [
    ("rest", {}),
    ("message_queue", {}),
    ("message_queue", {"broker": "rabbitmq"}),
    ("outbox", {}),
    ("outbox", {"publisher": "log_tailing"}),
    ("batch_exchange", {"interval": 0.3, "coalesce": False}),
    ("event_sourcing", {}),
    ("cqrs", {}),
    ("streaming", {}),
    ("saga/orchestrated", {}),
    ("saga/choreographed", {}),
    ("service_mesh", {}),
    ("service_mesh", {"proxy": "haproxy"}),
]


@pytest.fixture(scope="module", params=TWINS, ids=lambda twin: "-".join([twin[0], *map(str, twin[1].values())]))
def standing(request: pytest.FixtureRequest, bench: Callable[..., AbstractContextManager[Bench]]) -> Iterator[Bench]:
    """A bench of each architecture with the default parameters, for several runs."""
    name, parameters = request.param
    with bench(name, **parameters) as ready:
        yield ready


@pytest.fixture
def workload() -> Callable[..., Scenario]:
    """The `steady` scenario with other properties; `only` names the one kind of message in it."""

    def make(rate: float, only: str = "", **properties: Any) -> Scenario:
        if only:
            properties["mix"] = Mix.model_validate({"stock_update": 0, "order": 0, "stock_query": 0, only: 1})
        return load_scenario("steady").with_rate(rate).model_copy(update=properties)

    return make
