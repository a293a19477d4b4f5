"""The compiled engine yields, to the bit, the history of the SimPy engine: every table, whatever the flow and its faults.

Every short run of this suite is already made by both (see tests/conftest.py). Here flows are drawn at random from the whole
vocabulary, with whole-number and zero times, so that many things fall on one instant, and with faults that strike there.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import simlib
from simlib import architectures
from simlib.api import case, histories
from simlib.distributions import Exponential, Quantiles
from simlib.domain import KINDS
from simlib.engines import ENGINES, compiled
from simlib.engines import simpy as simpy_engine
from simlib.errors import RunFailed
from simlib.flow import (
    ATTEMPT,
    AWAITED,
    BATCH,
    DELIVERY,
    KIND,
    LEVEL,
    MEMBER,
    NTH,
    POISONED,
    RESULT,
    SKU,
    VERSION,
    Affine,
    Backoff,
    Breaker,
    Flow,
    Steps,
    ack,
    apply,
    branch,
    by_attempt,
    by_sku,
    call,
    checkpoint,
    choose,
    delay,
    every,
    fail,
    for_each,
    fork,
    hedge,
    mark,
    nack,
    point,
    publish,
    receive,
    reject,
    repeat,
    reply,
    rescue,
    respond,
    retry,
    seek,
    spawn,
    supersede,
    timeout,
    undo,
    wait_until,
)  # fmt: skip
from simlib.history import SCHEMAS
from simlib.scenario import (
    Arrivals,
    Crash,
    Goods,
    Loss,
    Outage,
    Partition,
    Pause,
    Poison,
    Poisson,
    PowerLoss,
    Scenario,
    Slowdown,
)

Differences = Callable[[Any, Any], list[str]]
TIMES = (0.0, 0.0, 0.5, 1.0, 1.0, 2.0)
HARD = settings(deadline=None, suppress_health_check=list(HealthCheck))


class Composer:
    """A random flow of two parts, whose steps come from the whole vocabulary."""

    def __init__(self, random: Random) -> None:
        self.random = random
        flow = self.flow = Flow("random")
        self.parts = [
            flow.part("one", cores=random.choice((1, 2))),
            flow.part("other", discipline=random.choice(("priority", "event_loop"))),
        ]
        self.link = flow.link(*self.parts, self.time(), loss=random.choice((0.0, 0.0, 0.2)))
        selects = ("round_robin", "random", "two_choices", "least_requests", "key")
        breakers = (None, None, Breaker(1, 1.0), Breaker(2, 0.5, at_most=0.4))
        disciplines = [random.choice(("priority", "preemptive")) for _ in range(3)]
        self.pools = [
            random.choice((*self.parts, flow)).pool(
                f"pool{i}", 1 if discipline == "preemptive" else random.choice((1, 1, 2)), discipline=discipline,
                members=random.choice((1, 1, 3)), select=random.choice(selects), breaker=random.choice(breakers),
                queue_limit=random.choice((None, None, 0, 1)),
            )
            for i, discipline in enumerate(disciplines)
        ]  # fmt: skip
        self.budget = flow.budget("budget", random.choice((0.0, 0.5, 1.0)), reserve=2.0)
        self.stores = [
            part.table(f"{part.name}.store", stocked=random.random() < 0.7, durable=random.random() < 0.5)
            for part in self.parts
        ]
        self.stores.append(
            self.parts[0].table(
                "copies", key=random.choice(("sku", "session", ("session", "sku"), None)), replicas=random.choice((1, 3)),
                window=random.choice((None, None, 2.0)), durable=random.random() < 0.5,
            )
        )  # fmt: skip
        self.credits = [
            flow.credit(f"credit.{key}", random.choice((1, 1, 2)), key=key)  # type: ignore[arg-type]
            for key in (None, "sku", "message")
        ]
        self.memory = self.parts[1].table("memory", key="message", durable=random.random() < 0.5)
        self.queues = [
            self.parts[i].queue(
                f"queue{i}", link=random.choice((None, self.link)), prefetch=random.choice((None, 1, 2)),
                shared=random.random() < 0.5, automatic_ack=random.random() < 0.2,
                ack_wait=random.choice((None, 0.5, 3.0)), max_deliveries=random.choice((1, 2, 3)),
                dead_letter=random.random() < 0.5, deduplicate=random.choice((None, None, 1.0)),
                requeue=random.choice(("head", "back")), detected_after=random.choice((None, 0.0, 0.5, 1.0)),
                flush_every=random.choice((None, 1.0, 1.5)), state_every=random.choice((None, 0.5, 2.0)),
                coalesce=random.random() < 0.2, **self.limits(),
                dispatch=random.choice((None, None, 0.5, "exponential(300 ms)")),
            )
            for i in range(2)
        ]  # fmt: skip
        self.log = random.choice(self.parts).log(
            "log",
            partitions=random.choice((1, 1, 2)),
            streams=random.choice(self.stores),
            flush_every=random.choice((None, None, 1.5)),
        )
        self.log.group(
            "group", link=random.choice((None, self.link)), prefetch=random.choice((None, 1, 2)),
            detected_after=random.choice((0.0, 0.5)), commit_every=random.choice((None, None, 1.0)),
        )  # fmt: skip
        self.log.group(
            "other group", detected_after=random.choice((0.0, 1.0)), commit_every=random.choice((None, 0.7, 2.0))
        )
        third = flow.part("third")
        self.shared = random.choice((*self.parts, third)).log("shared", partitions=random.choice((1, 2, 3)))
        coordinator = self.shared.at.coordinator(
            "members",
            random.sample((*self.parts, third), random.choice((1, 2, 2, 3))),
            rebalance=self.time(),
            session_timeout=random.choice((0.0, 0.5, 1.0)),
            cooperative=random.random() < 0.5,
        )
        self.shared.group(
            "shared group", coordinator=coordinator, ack_wait=random.choice((None, 0.5, 2.0)),
            commit_every=random.choice((None, None, 0.7)), prefetch=random.choice((None, None, 2)),
        )  # fmt: skip
        self.publishes = self.travels = True
        self.holding = 0
        stages = ("first", "second") if random.random() < 0.3 else ()
        for name in stages:
            onward = choose({stage: 0.3 for stage in stages}) if random.random() < 0.5 else apply("staged")
            flow.stage(name, [*self.steps(2), onward])
        self.publishes = False  # in what consumers do, or a message would breed for ever
        for queue in self.queues:
            settling = [nack(random.choice((0.0, 0.5)))] if random.random() < 0.5 else []
            work = rescue([*self.steps(2, handling=True), ack()], settling) if random.random() < 0.8 else fail()
            flow.consumers(queue, random.choice(self.parts), random.choice((1, 2, 3)), [work])
        self.inbox = random.choice(self.parts).queue(
            "inbox", prefetch=random.choice((None, None, 1, 2)), automatic_ack=random.random() < 0.2,
            ack_wait=random.choice((None, 0.5, 3.0)), max_deliveries=random.choice((1, 2, 3)),
            deduplicate=random.choice((None, None, 1.0)), requeue=random.choice(("head", "back")),
            detected_after=random.choice((None, 0.0, 0.5, 1.0)), coalesce=random.random() < 0.3, **self.limits(),
        )  # fmt: skip
        at = random.choice(self.parts)
        self.travels = False  # an actor stays where it is, or its part's crash would start another
        for name in ("relay", "other relay")[: random.choice((1, 1, 2))]:
            flow.actor(name, at, self.turn(), count=random.choice((1, 1, 2)))
        self.queues.append(self.inbox)
        self.read_log()
        self.publishes = self.travels = True
        ending = [choose({stage: 0.4 for stage in stages})] if stages else [respond(random.choice((None, "ok")))]
        for kind in KINDS[:2]:
            at = random.choice(self.parts)
            begun = apply("begun")  # so that whoever responds has a result to tell
            end = apply("end", "store", sign=random.choice((-1, 0, 1)))
            flow.source(kind, [begun, *self.steps(3), end, *ending], at=at)

    def read_log(self) -> None:
        """Consumers of one group of the log, actors that read the other, and one that seeks."""
        random, queues, n = self.random, self.log.queues, self.log.partitions
        settled = branch(0.3, [nack(0.5)], [ack()])  # never at once: it would come again for ever
        for group in queues[:n]:
            work = rescue([*self.steps(1), settled], [ack()])
            self.flow.consumers(group, random.choice(self.parts), random.choice((1, 2)), [work])
        for other in queues[n:]:
            taken = [wait_until(other), receive(other, random.choice((None, 2))), for_each(self.steps(1)), settled]
            self.flow.actor(f"reader of {other.name}", random.choice(self.parts), taken)
        for each in self.shared.queues:
            assert each.coordinator is not None
            for member in each.coordinator.members:
                taken = [
                    wait_until(each),
                    receive(each, random.choice((None, 1, 2))),
                    delay(self.time()),
                    for_each(self.steps(1)),
                ]
                end = random.choice((ack(), ack(), branch(0.3, [delay(0.5), nack()], [ack()]), delay(0.5)))
                self.flow.actor(f"reader of {each.name} at {member.name}", member, [*taken, end])
        queues += self.shared.queues
        if random.random() < 0.7:
            self.flow.actor("operator", self.parts[0], [every(random.choice((2.5, 7.0))), seek(random.choice(queues))])

    def time(self) -> Any:
        chance = self.random.random()
        if chance < 0.7:
            return self.random.choice(TIMES)
        return Exponential(1.0) if chance < 0.9 else Quantiles((0.0, 0.5, 0.5, 2.0))

    def limits(self) -> dict[str, Any]:
        """What a queue may be full of, and for how long."""
        return {
            "length": self.random.choice((None, None, 1, 2)), "overflow": self.random.choice(("drop", "refuse")),
            "ttl": self.random.choice((None, None, 0.5, 1.0)),
        }  # fmt: skip

    def steps(self, depth: int, handling: bool = False) -> Steps:
        """Some steps; `handling`: with a delivery in hand."""
        return [
            step
            for _ in range(self.random.randint(1, 3))
            for step in self.random.choice(self.words(depth))(depth, handling)
        ]

    def turn(self) -> Steps:
        """An actor's steps, each turn of which waits, receives, and works for all and for each."""
        random = self.random
        growing = Affine(random.choice(TIMES), 0.5, of=BATCH)
        keyless = [pool for pool in self.pools if pool.select != "key"]
        work = [
            delay(growing), self.parts[0].cpu.serve(growing), delay(Exponential(0.5)), point("here"),
            for_each(self.steps(1, handling=True)), *[pool.serve(growing) for pool in keyless],
        ]  # fmt: skip
        begin = random.choice(
            (every(0.5), every(0.3), wait_until(self.inbox, 1), wait_until(self.inbox, 2), delay(0.5))
        )
        first = branch(NTH.equals(1), self.steps(1, handling=True))
        each = for_each([*random.choice(([], [first])), *self.steps(2, handling=True)])
        match random.randint(0, 4):
            case 0:
                each = timeout(self.time(), [each], [point("there")])
            case 1:
                each = retry(Backoff(1, 0.5), [random.choice(work), each, branch(0.3, [fail()])])
            case 2:
                each = branch(BATCH.at_least(2), [each], [delay(growing)])
            case 3:
                each = repeat([each, receive(self.inbox, 1)], 0.4)
        end = random.choice((ack(), ack(), nack(), nack(0.5), delay(0.0)))
        return [
            begin,
            receive(self.inbox, random.choice((None, 1, 2))),
            random.choice(work),
            rescue([each, end], [end]),
        ]

    def words(self, depth: int) -> list[Callable[[int, bool], Steps]]:
        simple = [self.serve, self.wait, self.travel, self.store, self.record, self.settle, self.publish, self.strike]
        deep = [self.hold, self.spend, self.together, self.control, self.again, self.ask]
        return [*simple, *deep] if depth else simple

    def condition(self) -> Any:
        return self.random.choice((
            0.5, 0.2, KIND.equals("order"), RESULT.equals("ok"), RESULT.differs("failed"), POISONED.equals(1),
            DELIVERY.at_least(2), ATTEMPT.at_least(2), LEVEL.at_least(1), SKU.equals(1), LEVEL.differs(2 * SKU + 1),
            VERSION.at_least(self.stores[2].version), self.stores[0].level.at_least(self.stores[1].level + 1), MEMBER.equals(1),
            AWAITED.equals(1),
        ))  # fmt: skip

    def serve(self, depth: int, handling: bool) -> Steps:
        pool = self.random.choice([*self.pools, *(part.cpu for part in self.parts)])
        if pool.discipline == "event_loop":
            turns = 0 if self.holding else self.random.choice((0, 1, 1, 2))
            return [pool.serve(self.time()), *[pool.turn()] * turns]
        return [pool.serve(self.time(), priority=self.random.choice((0, 1, 2)))]

    def wait(self, depth: int, handling: bool) -> Steps:
        return [delay(self.time())]

    def travel(self, depth: int, handling: bool) -> Steps:
        return [self.link.send()] if self.travels else [apply("none")]

    def store(self, depth: int, handling: bool) -> Steps:
        store = self.random.choice(self.stores)
        one, other = (self.random.choice((0, store.replicas - 1, "session", "random")) for _ in range(2))
        needed = self.random.choice((1, 2, VERSION, VERSION + 1, self.stores[0].version))
        inside: Steps = [apply("kept", store.name), mark("kept")]
        return [self.random.choice((
            store.read(one), store.write(one), store.add(), store.write_if_newer(inside, [supersede()], other),
            store.wait_until(needed, one), timeout(self.time(), [store.wait_until(needed, other), *inside], [mark("late")]),
            delay(Affine(0.5, 0.5, of=store.version)),
            store.take(inside, [reject()], versioned=self.random.random() < 0.5), self.memory.once(inside),
        ))]  # fmt: skip

    def record(self, depth: int, handling: bool) -> Steps:
        return [
            self.random.choice(
                (apply("seen"), undo("seen"), respond(answer_from="store"), respond("refused"), mark("here"))
            )
        ]

    def settle(self, depth: int, handling: bool) -> Steps:
        return [self.random.choice((ack(), nack(0.5), nack()))] if handling else [apply("free")]

    def publish(self, depth: int, handling: bool) -> Steps:
        if not self.publishes:
            return [apply("none")]
        sign = self.random.choice((-1, 1))
        return self.random.choice((
            [publish(self.random.choice(self.queues))], [publish(self.random.choice(self.queues), urgent=True)],
            [publish(self.log)], [publish(self.shared)],
            [publish(self.log, sign)], [publish(self.log, sign, expect=True, otherwise=[apply("conflict")])],
            [self.log.streams.read(), *self.wait(depth, handling), publish(self.log, sign, expect=True, otherwise=[fail()])],
        ))  # fmt: skip

    def strike(self, depth: int, handling: bool) -> Steps:
        return [point(self.random.choice(("here", "there")))]

    def hold(self, depth: int, handling: bool) -> Steps:
        pools = [pool for pool in (*self.pools, *(part.cpu for part in self.parts)) if pool.discipline != "preemptive"]
        pool = self.random.choice(pools)
        self.holding += 1
        inside = self.steps(depth - 1, handling)
        self.holding -= 1
        priority = 0 if pool.discipline == "event_loop" else self.random.choice((0, 1))
        return [pool.seize(priority=priority), *inside, pool.release()]

    def spend(self, depth: int, handling: bool) -> Steps:
        """A token, which the row that took it may give back, or leave to another."""
        one, other = self.random.choices(self.credits, k=2)
        inside = self.steps(depth - 1, handling)
        match self.random.randint(0, 3):
            case 0:
                return [one.take(), *inside, other.give()]
            case 1:
                return [one.give(), *inside]
        return [one.take(), *inside, one.give()]

    def together(self, depth: int, handling: bool) -> Steps:
        branches = [self.steps(depth - 1) for _ in range(self.random.randint(1, 3))]
        if self.random.random() < 0.3:
            return [spawn(branches[0])]
        if self.random.random() < 0.3:
            return [hedge(self.random.choice((0.0, 0.5, 1.0)), [*branches[0], branch(self.condition(), [fail()])])]
        return [fork(*branches, join=self.random.choice((None, 0, 1)))]

    def control(self, depth: int, handling: bool) -> Steps:
        one, other = self.steps(depth - 1, handling), self.steps(depth - 1, handling)
        match self.random.randint(0, 6):
            case 5:
                return [by_sku(one, other, [apply("third")])]
            case 6 if not handling and not self.holding:  # what is held a crash would take
                return self.random.choice(([checkpoint(), *one], [spawn([checkpoint(), *one])]))
            case 0:
                return [branch(self.condition(), one, other)]
            case 1:
                return [rescue([*one, branch(self.condition(), [fail()])], other)]
            case 2:
                return [timeout(self.time(), one, other)]
            case 3:
                return [by_attempt(one)]
        return [branch(0.1, [fail()], other)]

    def again(self, depth: int, handling: bool) -> Steps:
        inside = self.steps(depth - 1, handling)
        if self.random.random() < 0.5:
            return [repeat(inside, 0.4)]
        waits = {"base": self.random.choice((0.0, 0.5)), "jitter": self.random.random() < 0.5}
        policy = Backoff(self.random.randint(0, 2), **waits, budget=self.random.choice((None, self.budget)))
        tried, otherwise = [*inside, branch(self.condition(), [fail()])], self.steps(depth - 1, handling)
        return [retry(policy, tried, otherwise, goes_on=self.random.random() < 0.5)]

    def ask(self, depth: int, handling: bool) -> Steps:
        limit = self.random.choice((None, 0.0, 0.5, 2.0))
        answer = (
            []
            if limit is not None and self.random.random() < 0.3
            else [reply(self.random.choice((None, "ok", "failed")))]
        )
        return [call([*self.steps(depth - 1), *answer], timeout=limit)]

    def scenario(self) -> Scenario:
        """What strikes, on whole numbers and halves, where much else happens."""
        random = self.random
        faults: list[Any] = []
        for part in ("one", "other", "third"):
            for kind in (Crash, PowerLoss, Outage, Slowdown, Pause):
                if random.random() < 0.2:
                    death = kind in (Crash, PowerLoss)
                    lasting = {"restart" if death else "lasts": self.lasting()}
                    if kind is Slowdown:
                        lasting["factor"] = random.choice((0.5, 3.0))
                    if kind is Outage:
                        lasting["mode"] = random.choice(("refuse", "block"))
                    faults.append(kind(part=part, **self.striking(), **lasting))
        random.shuffle(faults)
        if random.random() < 0.2:
            direction = random.choice((None, "one", "other"))
            faults.append(Partition(link=self.link.name, direction=direction, lasts=self.lasting(), **self.striking()))
        if random.random() < 0.2:
            direction = random.choice((None, "one"))
            faults.append(Loss(link=self.link.name, probability=0.3, direction=direction))
        if random.random() < 0.3:
            faults.append(Poison(kind="order", probability=0.5))
        goods, horizon = Goods(skus=3, units=2), random.choice((0.5, 50.0))
        return Scenario(name="random", arrivals=Poisson(rate=1), goods=goods, faults=tuple(faults), horizon=horizon)

    def striking(self) -> dict[str, Any]:
        """When."""
        random = self.random
        match random.randint(0, 2):
            case 0:
                return {"at": tuple(sorted(random.sample((0.0, 0.5, 1.0, 2.0, 3.0, 5.0), random.randint(1, 3))))}
            case 1:
                return {"every": random.choice((1.0, 2.5, "exponential(2)"))}
        return {"point": random.choice(("here", "there")), "probability": 0.3}

    def lasting(self) -> Any:
        """How long."""
        return self.random.choice((0.0, 0.5, 1.0, 1.0, 2.0, "exponential(1)"))

    def arrivals(self, n: int) -> Arrivals:
        random = self.random
        times = np.cumsum([random.choice(TIMES[1:]) for _ in range(n)])
        kinds = np.array([random.randint(0, 2) for _ in range(n)], np.int8)  # the third has no source
        skus, quantities = ([random.randint(0, 2) for _ in range(n)] for _ in range(2))
        sessions = [random.randint(-1, 2) for _ in range(n)]
        return Arrivals(times, kinds, *(np.array(column, np.int32) for column in (skus, sessions, quantities)))


def agree(random: Random) -> None:
    """One random flow, by both engines, whose histories are seen to be the same and to obey the laws: see tests/conftest.py."""
    composer = Composer(random)
    ENGINES["simpy"](composer.flow, composer.arrivals(random.randint(1, 15)), KINDS, 1, composer.scenario(), {})


@settings(HARD, max_examples=300)
@given(random=st.randoms(use_true_random=False))
def test_random_flows_have_one_history_that_obeys_the_laws(random: Random) -> None:
    agree(random)


@pytest.mark.long
@settings(HARD, max_examples=10_000)
@given(random=st.randoms(use_true_random=False))
def test_ten_thousand_random_flows_have_one_history_that_obeys_the_laws(random: Random) -> None:
    agree(random)


def digest(number: int, engine: str = "compiled") -> str:
    """What the files of a history would hold: of the random flow of a number, under its arrivals and faults."""
    composer = Composer(Random(number))
    arguments = (composer.flow, composer.arrivals(15), KINDS, number, composer.scenario(), {})
    history = (compiled if engine == "compiled" else simpy_engine).run(*arguments)
    content = hashlib.blake2b(digest_size=8)
    for name in SCHEMAS:
        file = io.BytesIO()
        pq.write_table(getattr(history, name), file)
        content.update(file.getvalue())
    return content.hexdigest()


@settings(HARD, max_examples=20)
@given(st.lists(st.integers(0, 2**32), min_size=2, max_size=6, unique=True), st.data())
def test_random_flows_have_the_same_bytes_in_any_order_and_beside_each_other(
    numbers: list[int], data: st.DataObject
) -> None:
    made = {number: digest(number) for number in numbers}
    order = data.draw(st.permutations(numbers))
    assert {number: digest(number) for number in order} == made
    with ThreadPoolExecutor(2) as threads:
        assert dict(zip(order, threads.map(digest, order), strict=True)) == made


@pytest.mark.parametrize("engine", ["compiled", "simpy"])
def test_random_flows_have_the_same_bytes_in_other_processes(engine: str) -> None:
    """Theirs is another order of hashes, of which nothing may depend."""
    digests = f"print(*(digest(number, {engine!r}) for number in range(40)))"
    told = subprocess.check_output(
        [sys.executable, "-c", f"import runpy; digest = runpy.run_path({__file__!r})['digest']; {digests}"],
        env=os.environ | {"PYTHONHASHSEED": "1"},
        text=True,
    )
    assert told.split()[::-1] == [digest(number) for number in reversed(range(40))]


@pytest.mark.parametrize("engine", ["compiled", "simpy"])
def test_replications_are_the_same_whoever_makes_them(engine: str, differences: Differences) -> None:
    """Threads, or processes where they are SimPy's."""
    one = case("message_queue", "burst", None, 400, "200/s", engine)
    for alone, beside in zip(histories(one, 4, 1), histories(one, 4, 1, workers=3), strict=True):
        assert differences(alone, beside) == []


@pytest.mark.parametrize(("scenario", "seed"), [
    *itertools.product(("steady", "burst", "flash_sale"), (1, 2, 3)), ("fulfilment", 1)
])  # fmt: skip
@pytest.mark.parametrize("name", architectures.names())
def test_architectures_have_one_history(name: str, scenario: str, seed: int, differences: Differences) -> None:
    one, other = (
        case(name, scenario, None, *((6500, "20/s") if scenario == "flash_sale" else (1500, "300/s")), engine)
        for engine in ("simpy", "compiled")
    )
    assert differences(one.run(seed), other.run(seed)) == []


def test_tables_that_are_too_small_change_nothing(monkeypatch: pytest.MonkeyPatch, differences: Differences) -> None:
    ordinary = simlib.run("message_queue", "burst", messages=600, rate="400/s")
    monkeypatch.setattr(compiled, "ROOM", dict.fromkeys(compiled.ROOM, 2))
    assert differences(ordinary, simlib.run("message_queue", "burst", messages=600, rate="400/s")) == []


def test_a_run_that_nothing_ends_ends_with_the_last_timer_of_any_length(differences: Differences) -> None:
    flow = Flow("stuck")
    shop = flow.part("shop")
    token = shop.credit("token", 1)
    for kind, lasts in ("long", 300.0), ("short", 1.0):
        flow.source(kind, at=shop, interarrival=None, steps=[call([reply("ok")], timeout=lasts), token.take()])
    none = np.zeros(4, np.int32)
    arrivals = Arrivals(
        np.array([10.0, 305.0, 312.0, 312.5]), np.array([0, 0, 1, 1], np.int8), none, none - 1, none + 1
    )
    one, other = (ENGINES[name](flow, arrivals, ["long", "short"], 1, None, {}) for name in ("simpy", "compiled"))
    assert differences(one, other) == []
    assert one.parts["end"].to_pylist()[-1] == 605.0


def test_a_time_that_is_none_names_its_stream_and_message() -> None:
    class Broken(Exponential):
        def law(self) -> Any:
            return (*super().law()[:1], float("nan"), *super().law()[2:])

    flow = Flow("broken")
    server = flow.pool("server")
    flow.source("job", interarrival="1 s", steps=[server.serve(Broken(1.0)), apply("done")])
    with pytest.raises(RunFailed, match=r"'job.server.serve' drew nan for message 0"):
        simlib.simulate(flow, 5)


@pytest.mark.parametrize("engine", ["simpy", "compiled"])
def test_what_is_counted_of_a_message_fits_or_is_said_not_to(engine: str) -> None:
    flow = Flow("tireless")
    flow.source("job", interarrival="1 s", steps=[repeat([apply("done")], again=0.99999)])
    with pytest.raises(RunFailed, match=r"applied \d{5,} times, a history counts up to 32767"):
        simlib.simulate(flow, 1, engine=engine)


@pytest.mark.long
def test_the_kernel_reads_no_record_that_is_not_there(tmp_path: Any) -> None:
    """With bounds checking, in a cache of its own: a warm cache would check nothing."""
    checked = os.environ | {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    tests = [__file__, "-k", "random_flows_have or architectures or too_small", "-m", "not long"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--timeout", "1800", *tests],
        env=checked,
        check=False,
    )
    assert done.returncode == 0


def test_an_interrupt_ends_long_runs_at_once() -> None:
    run = [sys.executable, "-m", "simlib.cli", "run", "rest", "--messages", "400000", "--replications", "30"]
    with subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(8)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said.strip()) == (130, "error: interrupted")
