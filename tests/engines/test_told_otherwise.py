"""What is the same told in other words: a queue, a log and a pool of which nothing else is asked run to the same times."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from simlib import simulate
from simlib.distributions import Exponential
from simlib.engines import ENGINES
from simlib.flow import Flow, Step, Steps, ack, apply, by_attempt, delay, publish

WORK = Exponential(1.0)


def pool(flow: Flow, servers: int) -> Steps:
    """So many servers, first come first served."""
    return [by_attempt([flow.pool("servers", capacity=servers).serve(WORK, stream="work")]), apply("done")]


def worked() -> Steps:
    """What a consumer does."""
    return [by_attempt([delay(WORK, stream="work")]), apply("done"), ack()]


def queue(flow: Flow, consumers: int) -> Steps:
    """So many consumers, each of which holds one delivery at most, and no network."""
    part = flow.part("part")
    waiting = part.queue("waiting", prefetch=1)
    flow.consumers(waiting, part, consumers, worked())
    return [publish(waiting)]


def log(flow: Flow, members: int) -> Steps:
    """A log of one partition, read by one member of a group."""
    part = flow.part("part")
    records = part.log("records", partitions=members)
    for partition in records.group("group"):
        flow.consumers(partition, part, 1, worked())
    return [publish(records)]


def done(told: Callable[[Flow, int], Steps], servers: int, engine: str) -> np.ndarray:
    """When each message is done."""
    flow = Flow("told")
    steps: list[Step] = [*told(flow, servers)]
    flow.source("job", interarrival=Exponential(1.25 / servers), steps=steps)
    return simulate(flow, messages=3_000, seed=1, engine=engine).messages["applied"].to_numpy()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("servers", [1, 4])
def test_a_queue_of_prefetch_one_without_a_network_is_a_pool_of_as_many_servers_as_consumers(servers, engine) -> None:
    np.testing.assert_array_equal(done(queue, servers, engine), done(pool, servers, engine))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_log_of_one_partition_read_by_one_is_a_queue_first_in_first_out(engine) -> None:
    np.testing.assert_array_equal(done(log, 1, engine), done(queue, 1, engine))
