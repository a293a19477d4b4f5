"""A draw depends on its seed, stream, message and path, and on nothing else."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import simlib
from simlib import draws
from simlib.flow import (
    Backoff,
    Constant,
    Exponential,
    Flow,
    Step,
    ack,
    apply,
    branch,
    delay,
    fail,
    fork,
    mark,
    nack,
    publish,
    repeat,
    rescue,
    retry,
    timeout,
)
from simlib.flow.blocks import DELIVERY
from simlib.history import SCHEMAS, History

SEEDS = st.integers(0, 2**63 - 1)
NAMES = st.text("abcdefg.", min_size=1, max_size=12)
PLACES = st.lists(st.integers(0, 2**20), min_size=1, max_size=5)


def place(counters: list[int]) -> int:
    """The key of a message's place: the message first, then the counters of its path."""
    key = 0
    for counter in counters:
        key = draws.fold(key, counter)
    return key


def digest(history: History) -> str:
    """A hash of all tables of a history."""
    whole = hashlib.sha256()
    for name in SCHEMAS:
        sink = pa.BufferOutputStream()
        table = getattr(history, name).combine_chunks()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        whole.update(sink.getvalue())
    return whole.hexdigest()


def busy_flow(extra: bool = False) -> Flow:
    """Forks, retries, loops and a queue, all of whose draws are marked; `extra` puts a step in before them all."""
    flow = Flow("busy")
    part = flow.part("broker")
    jobs = part.queue("jobs", max_deliveries=4)
    more = [delay(Exponential(0.1), stream="extra"), branch(0.5, [apply("extra")], stream="extra choice")]
    sides = [[delay(Exponential(1.0), stream=name), mark(name)] for name in ("left", "right")]
    flow.source("job", at=part, interarrival=Exponential(1.0), steps=[
        *(more if extra else []),
        mark("begun"), delay(Exponential(0.3)), mark("delayed"), fork(*sides), mark("joined"),
        retry(Backoff(retries=4, base=0.1, jitter=True), [branch(0.4, [fail()])]),
        mark("tried"), repeat([delay(Exponential(0.2), stream="turn")], again=0.5), mark("turned"), publish(jobs),
    ])  # fmt: skip
    flow.consumers(jobs, part, count=3, steps=[
        delay(Exponential(0.5)), branch(0.3, [nack()], [mark("handled"), apply("done"), ack()]),
    ])  # fmt: skip
    return flow


@settings(max_examples=300)
@given(SEEDS, NAMES, PLACES, SEEDS, NAMES, PLACES)
def test_draws_of_different_seed_stream_message_or_path_never_coincide(
    seed: int, name: str, path: list[int], other_seed: int, other_name: str, other_path: list[int]
) -> None:
    def drawn(seed: int, name: str, path: list[int]) -> float:
        return draws.uniform(draws.stream_key(seed, name), place(path))

    one = drawn(seed, name, path)
    assert 0.0 < one < 1.0
    assert one == drawn(seed, name, path)
    for varied in ((other_seed, name, path), (seed, other_name, path), (seed, name, other_path)):
        if varied != (seed, name, path):
            assert drawn(*varied) != one


def test_neighbouring_seeds_messages_attempts_and_deliveries_are_as_good_as_independent() -> None:
    n = 20_000
    messages = np.array([draws.fold(0, i) for i in range(n)])
    one = np.array([draws.uniform(draws.stream_key(1, "work"), int(place)) for place in messages])
    others = {
        "seed": [draws.uniform(draws.stream_key(2, "work"), int(place)) for place in messages],
        "stream": [draws.uniform(draws.stream_key(1, "works"), int(place)) for place in messages],
        "message": np.roll(one, 1),
        "attempt": [draws.uniform(draws.stream_key(1, "work"), draws.fold(int(place), 0)) for place in messages],
    }
    assert abs(one.mean() - 0.5) < 3.5 * np.sqrt(1 / 12 / n)
    for other in others.values():
        assert abs(np.corrcoef(one, other)[0, 1]) < 3.5 / np.sqrt(n)


def test_the_same_seed_gives_the_same_bytes_again() -> None:
    assert digest(simlib.simulate(busy_flow(), 300, seed=3)) == digest(simlib.simulate(busy_flow(), 300, seed=3))


def test_another_seed_gives_another_history() -> None:
    assert digest(simlib.simulate(busy_flow(), 300, seed=3)) != digest(simlib.simulate(busy_flow(), 300, seed=4))


@pytest.mark.parametrize("architecture", ["rest", "message_queue"])
def test_the_same_seed_gives_the_same_bytes_in_another_process(architecture: str) -> None:
    script = (
        "import runpy, simlib\n"
        f"digest = runpy.run_path({__file__!r})['digest']\n"
        f"print(digest(simlib.run({architecture!r}, messages=200, seed=7)))\n"
    )
    environment = os.environ | {"PYTHONHASHSEED": "12345"}
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    assert other.stdout.strip() == digest(simlib.run(architecture, messages=200, seed=7))


def test_a_step_put_in_shifts_no_other_s_draws() -> None:
    """Nothing contends, so each stretch between two marks is a draw, whatever happened before it."""
    plain, more = (simlib.simulate(busy_flow(extra), 500, seed=5).messages for extra in (False, True))
    assert plain["attempts"].equals(more["attempts"])
    assert plain["deliveries"].equals(more["deliveries"])
    for start, end in (
        ("begun", "delayed"),
        ("delayed", "left"),
        ("delayed", "right"),
        ("joined", "tried"),
        ("tried", "turned"),
    ):
        spans = [m[f"mark.{end}"].to_numpy() - m[f"mark.{start}"].to_numpy() for m in (plain, more)]
        assert np.allclose(*spans, rtol=0, atol=1e-9) and spans[0].std() > 0


def test_branches_turns_and_attempts_of_one_message_draw_apart() -> None:
    messages = simlib.simulate(busy_flow(), 500, seed=5).messages
    left, right = (
        messages[f"mark.{name}"].to_numpy() - messages["mark.delayed"].to_numpy() for name in ("left", "right")
    )
    assert abs(np.corrcoef(left, right)[0, 1]) < 3.5 / np.sqrt(500)
    assert len(set(messages["attempts"].to_pylist())) > 2


def test_a_message_published_twice_is_drawn_for_twice() -> None:
    """Else two copies would be lost together, or take the same time on their way."""
    flow = Flow("copies")
    broker, shop = flow.part("broker"), flow.part("shop")
    link = flow.link(broker, shop, Exponential(1.0), loss=0.5)
    jobs = broker.queue("jobs", link=link, automatic_ack=True)
    flow.source("job", at=broker, interarrival=Constant(100.0), steps=[publish(jobs), publish(jobs)])
    flow.consumers(jobs, shop, count=1, steps=[apply("done")])
    effects = np.array(simlib.simulate(flow, 2_000).messages["effects"].to_pylist())
    assert np.mean(effects == 1) == pytest.approx(0.5, abs=3.5 * 0.5 / np.sqrt(2_000))


def test_a_delivery_that_comes_again_draws_anew() -> None:
    flow = Flow("again")
    part = flow.part("broker")
    jobs = part.queue("jobs")
    steps = [
        mark("first"),
        delay(Exponential(1.0)),
        branch(DELIVERY.equals(1), [mark("second"), nack()], [apply("done"), ack()]),
    ]
    flow.source("job", at=part, interarrival=Constant(100.0), steps=[publish(jobs)])
    flow.consumers(jobs, part, count=1, steps=steps)
    messages = simlib.simulate(flow, 1_000).messages
    first = messages["mark.second"].to_numpy() - messages["mark.first"].to_numpy()
    second = messages["applied"].to_numpy() - messages["mark.second"].to_numpy()
    assert abs(np.corrcoef(first, second)[0, 1]) < 3.5 / np.sqrt(1_000)


@pytest.mark.parametrize(
    ("scope", "straight", "looping"),
    [
        (lambda steps, after: rescue(steps, after), fail(), repeat([delay(1.0), branch(0.5, [fail()])], again=0.999)),
        (lambda steps, after: timeout(3.5, steps, after), delay(9.0), repeat([delay(Exponential(1.0))], again=0.999)),
    ],
    ids=["failed", "timed out"],
)
def test_what_comes_after_a_scope_draws_alike_in_whatever_turn_the_scope_was_left(
    scope: Callable[[list[Step], list[Step]], Step], straight: Step, looping: Step
) -> None:
    def spans(inside: Step) -> np.ndarray:
        flow = Flow("left")
        after = [mark("left"), delay(Exponential(1.0), stream="after"), apply("done")]
        flow.source("job", interarrival=Constant(100.0), steps=[scope([inside], after)])
        messages = simlib.simulate(flow, 200).messages
        return messages["applied"].to_numpy() - messages["mark.left"].to_numpy()

    assert np.allclose(spans(looping), spans(straight), rtol=0, atol=1e-9)


def test_flows_that_name_the_same_stream_meet_the_same_work() -> None:
    """A retry's attempt k and a queue's delivery k of one message draw alike."""
    called, queued = Flow("called"), Flow("queued")
    work = [mark("begun"), delay(Exponential(1.0), stream="handler_work"), mark("ended")]
    called.source("job", interarrival=Constant(100.0), steps=[retry(Backoff(retries=1), work)])
    part = queued.part("broker")
    jobs = part.queue("jobs")
    queued.source("job", at=part, interarrival=Constant(100.0), steps=[publish(jobs)])
    queued.consumers(jobs, part, count=1, steps=[*work, ack()])
    one, other = (simlib.simulate(flow, 200, seed=9).messages for flow in (called, queued))
    assert np.allclose(
        *(m["mark.ended"].to_numpy() - m["mark.begun"].to_numpy() for m in (one, other)), rtol=0, atol=1e-9
    )
