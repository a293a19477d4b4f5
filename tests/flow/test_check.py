"""What cannot run is refused in one line: what, where, and the remedy; what was hardly meant is a warning."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from simlib import architectures
from simlib.errors import BadInput
from simlib.flow import (
    BATCH,
    KIND,
    LEVEL,
    NTH,
    RESULT,
    VERSION,
    Affine,
    Backoff,
    Breaker,
    Exponential,
    Field,
    Flow,
    Link,
    Part,
    Pool,
    Queue,
    Step,
    Table,
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
    nack,
    publish,
    receive,
    reject,
    repeat,
    reply,
    rescue,
    respond,
    retry,
    spawn,
    timeout,
    wait_until,
)
from simlib.flow.blocks import Condition, Repeat, Steps
from simlib.scenario import load_scenario

SLOW = Exponential(1.0)


@dataclass
class World:
    """A flow with one of each noun, and another flow."""

    flow: Flow
    here: Part
    there: Part
    link: Link
    server: Pool
    desk: Pool
    jobs: Queue
    stock: Table
    other: Flow


def world() -> World:
    flow, other = Flow("world"), Flow("other")
    here, there = flow.part("here"), flow.part("there")
    link = flow.link(here, there, "1 ms")
    jobs = here.queue("jobs", link=link)
    return World(flow, here, there, link, flow.pool("server"), here.pool("desk", 1), jobs, here.table("stock"), other)


def checked(steps: Callable[[World], Steps], handling: Callable[[World], Steps] = lambda w: [ack()]) -> list[str]:
    """The warnings of a flow whose source goes through the steps after publishing, with consumers."""
    w = world()
    w.flow.source("job", at=w.here, steps=[publish(w.jobs), *steps(w)])
    w.flow.consumers(w.jobs, at=w.there, count=1, steps=handling(w))
    return w.flow.check()


def away(w: World) -> list[Step]:
    return [w.link.send(stream="away")]


PROGRAMS: dict[str, tuple[Callable[[World], Steps], str]] = {
    "a step that was not called": (lambda w: [ack], "ack is no step"),
    "a list in the list": (lambda w: [[apply("done")]], "is no step"),
    "a step in the place of a list": (lambda w: [spawn(apply("done"))], "steps must be a list"),  # type: ignore[arg-type]
    "a pool of another flow": (
        lambda w: [w.other.pool("server").serve("1 ms")],
        "pool 'server' belongs to another flow",
    ),
    "a table of another flow": (lambda w: [w.other.part("x").table("t").read()], "table 't' belongs to another flow"),
    "a release without a seize": (
        lambda w: [w.server.release()],
        "pool 'server' is released, but on a path not seized",
    ),
    "a release on a path without a seize": (
        lambda w: [branch(KIND.equals(0), [w.server.seize()]), w.server.release()],
        "released, but on a path not seized",
    ),
    "a second release": (
        lambda w: [w.server.seize(), w.server.release(), w.server.release()],
        "released, but on a path not",
    ),
    "a seize without a release": (lambda w: [w.server.seize()], "pool 'server' is seized and on a path never released"),
    "a seize that one path does not release": (
        lambda w: [w.server.seize(), branch(KIND.equals(0), [w.server.release()])],
        "seized and on a path never released",
    ),
    "a branch that does not release": (lambda w: [fork([w.server.seize()])], "seized and on a path never released"),
    "a release by a branch of what the row seized": (
        lambda w: [w.server.seize(), fork([w.server.release()]), w.server.release()],
        "released, but on a path not seized",
    ),
    "a release inside a time-out of what was seized outside": (
        lambda w: [w.server.seize(), timeout(1, [w.server.release()], [])],
        "released inside a scope that it was seized outside of",
    ),
    "a turn that does not release": (lambda w: [repeat([w.server.seize()], again=0.5)], "a turn of a repeat"),
    "a seize of what may be taken away": (
        lambda w: [w.flow.pool("p", discipline="preemptive").seize()],
        "pool 'p' is preemptive, which only a service can be: serve there",
    ),
    "a priority at an event loop": (
        lambda w: [w.flow.pool("p", discipline="event_loop").serve(1.0, priority=1)],
        "priority 1 at event loop 'p', which knows none: leave it out",
    ),
    "a turn of what is no event loop": (
        lambda w: [w.server.turn()],
        "turn of pool 'server', which is no event loop: give it that discipline",
    ),
    "a turn by who holds the loop": (
        lambda w: [(p := w.flow.pool("p", discipline="event_loop")).seize(), p.turn(), p.release()],
        "turn of event loop 'p' by who holds it: release it before",
    ),
    "a choice while holding": (lambda w: [w.server.seize(), choose({"end": 1.0})], "while it holds pool 'server'"),
    "a checkpoint at no part": (
        lambda w: [w.flow.source("roaming", [checkpoint(), delay("1 ms")])] and [],
        "a checkpoint of a row at no part, which no crash strikes",
    ),
    "a checkpoint while holding": (
        lambda w: [w.server.seize(), checkpoint(), w.server.release()],
        "a checkpoint while the row holds pool 'server', which a crash takes from it",
    ),
    "a checkpoint against the clock": (
        lambda w: [timeout(1, [checkpoint(), delay("1 ms")], [])],
        "a checkpoint within a timeout, whose timer a crash ends",
    ),
    "a credit of another flow": (
        lambda w: [w.other.credit("tokens", 1).take()],
        "credit 'tokens' belongs to another flow",
    ),
    "a credit that is elsewhere": (
        lambda w: [w.there.credit("tokens", 1).take()],
        "credit 'tokens' is at part 'there', the row at 'here'",
    ),
    "a reply to nobody": (lambda w: [reply()], "nobody waits for it"),
    "a reply beside a call": (lambda w: [call([reply()]), reply()], "nobody waits for it"),
    "a call that nothing answers": (lambda w: [call([delay("1 ms")], timeout=1.0)], "a call that nothing answers"),
    "a call whose only reply is an inner call's": (lambda w: [call([call([reply()])])], "a call that nothing answers"),
    "an ack without a delivery": (lambda w: [ack()], "outside of consumers"),
    "a nack without a delivery": (lambda w: [nack()], "outside of consumers"),
    "a link of another part": (lambda w: [*away(w), *beyond(w)], "joins 'here' and 'third', the row is at 'there'"),
    "a pool of another part": (
        lambda w: [*away(w), w.desk.serve("1 ms")],
        "pool 'here.desk' is at part 'here', the row at 'there'",
    ),
    "a pool of another part on one path": (
        lambda w: [branch(KIND.equals(0), away(w)), w.desk.serve("1 ms")],
        "pool 'here.desk' is at part 'here'",
    ),
    "a pool of another part in the second turn": (
        lambda w: [repeat([w.desk.serve("1 ms"), *away(w)], again=0.5)],
        "pool 'here.desk' is at part 'here'",
    ),
    "a queue of another part": (lambda w: [*away(w), publish(w.jobs)], "queue 'jobs' is at part 'here'"),
    "a table of another part": (lambda w: [*away(w), w.stock.read()], "table 'stock' is at part 'here'"),
    "a step after a failure": (
        lambda w: [rescue([fail(), apply("done")], [])],
        "apply.. after fail.. is never reached",
    ),
    "a step after failures on all paths": (
        lambda w: [rescue([branch(0.5, [fail()], [fail()]), apply("done")], [])],
        "after branch.. is never reached",
    ),
    "a step after a choice": (lambda w: [choose({"end": 1.0}), apply("done")], "after choose.. is never reached"),
    "an unknown stage": (lambda w: [choose({"ned": 1.0})], "unknown stage 'ned': did you mean 'end'"),
    "probabilities above 1": (lambda w: [choose({"end": 0.7, "again": 0.7})], "sum of the probabilities"),
    "a probability above 1": (
        lambda w: [branch(1.5, [apply("done")])],
        "probability of a branch must be between 0 and 1, got 1.5",
    ),
    "a probability that is no number": (lambda w: [branch(math.nan, [apply("done")])], "probability of a branch"),
    "a negative probability": (lambda w: [choose({"end": -0.1})], "probability of stage 'end'"),
    "a repeat for ever": (lambda w: [repeat([apply("done")], again=1.0)], "a repeat with again=1 never ends"),
    "a repeat above 1": (lambda w: [Repeat([apply("done")], again=2.0)], "again of a repeat"),
    "an unknown field": (lambda w: [branch(Condition("colour", "==", 1), [])], "unknown field 'colour'"),
    "a field of no table": (
        lambda w: [branch(VERSION.at_least(Field("stok.version")), [])],
        "unknown field 'stok.version': did you mean 'stock.version'",
    ),
    "a cell that is elsewhere": (
        lambda w: [*away(w), branch(LEVEL.at_least(w.stock.level), [])],
        "table 'stock' is at part 'here', the row at 'there'",
    ),
    "a wait for a cell that is elsewhere": (
        lambda w: [*away(w), w.stock.wait_until(1)],
        "table 'stock' is at part 'here', the row at 'there'",
    ),
    "half a field": (
        lambda w: [branch(LEVEL.at_least(0.5 * VERSION), [])],  # type: ignore[operator]
        "how many times a field is compared with must be a whole number of at least 0, got 0.5",
    ),
    "no branch by SKU": (
        lambda w: [by_sku()],
        "how many branches there are by SKU must be a whole number of at least 1",
    ),
    "a branch by SKU that keeps its unit": (
        lambda w: [by_sku([w.server.seize()], [])],
        "pool 'server' is seized and on a path never released",
    ),
    "a replica that is not there": (
        lambda w: [w.stock.read(1)],
        "replica of table 'stock' must be a whole number of between 0 and 0, got 1",
    ),
    "an unknown choice of a replica": (
        lambda w: [w.stock.wait_until(1, "nearest")],  # type: ignore[arg-type]
        "unknown replica of table 'stock' 'nearest'",
    ),
    "an unknown comparison": (lambda w: [branch(Condition("kind", "=", 1), [])], "unknown comparison '='"),
    "an unknown response": (lambda w: [respond("okay")], "unknown result 'okay': did you mean 'ok'"),
    "a budget of another flow": (
        lambda w: [retry(Backoff(retries=1, budget=w.other.budget("b", 0.1)), [fail()])],
        "budget 'b' belongs to another flow",
    ),
    "the number of a delivery where there is no batch": (
        lambda w: [branch(NTH.equals(1), [])],
        "field 'nth' where there is none: only an actor has a batch in hand",
    ),
    "negative retries": (lambda w: [retry(Backoff(retries=-1), [fail()])], "retries of a retry must be a whole number"),
    "half a retry": (lambda w: [retry(Backoff(retries=0.5), [fail()])], "retries of a retry must be a whole number"),  # type: ignore[arg-type]
    "a negative backoff": (lambda w: [retry(Backoff(retries=1, base=-1.0), [fail()])], "base of a retry's backoff"),
    "a backoff that is no number": (
        lambda w: [retry(Backoff(retries=1, base=math.nan), [fail()])],
        "base of a retry's backoff",
    ),
    "a negative time-out of a call": (
        lambda w: [call([reply()], timeout=-1.0)],
        "timeout of a call must be at least 0, got -1.0",
    ),
    "a time-out that is no number": (lambda w: [call([reply()], timeout=math.nan)], "timeout of a call"),
    "a hedge at a negative time": (lambda w: [hedge(-1.0, [apply("a")])], "after of a hedge must be at least 0"),
    "a reply by a try of a hedge": (lambda w: [call([hedge(1.0, [reply()]), reply()])], "nobody waits for it"),
    "a call that a try of a hedge is to answer": (lambda w: [call([hedge(1.0, [publish(w.jobs)])])], "nothing answers"),
    "a try that does not release": (lambda w: [hedge(1.0, [w.server.seize()])], "seized and on a path never released"),
    "one explicit stream in a hedge and after it by attempt": (
        lambda w: [hedge(1.0, [by_attempt([delay(SLOW, stream="x")])]), by_attempt([delay(SLOW, stream="x")])],
        "stream 'x' is drawn from twice on one path",
    ),
    "a join of more than there are": (lambda w: [fork([apply("a")], join=2)], "join of a fork must be"),
    "a join of none": (lambda w: [fork([apply("a")], join=0)], "join of a fork must be"),
    "a fork into nothing": (lambda w: [fork()], "join of a fork must be"),
    "a transaction that takes time": (lambda w: [w.stock.once([delay("1 ms")])], "delay.. takes time inside once"),
    "a transaction that works": (
        lambda w: [w.stock.once([branch(0.5, [w.server.serve("1 ms")])])],
        "serve of 'server' takes time inside once",
    ),
    "two draws of one name": (lambda w: [delay(SLOW), delay(SLOW)], "2 steps draw from one stream, 'job.delay'"),
    "two draws of one name on two paths": (
        lambda w: [branch(KIND.equals(0), [w.server.serve(SLOW)], [w.server.serve(SLOW)])],
        "2 steps draw from one stream, 'job.server.serve'",
    ),
    "two draws of one name in two branches": (
        lambda w: [fork([delay(SLOW)], [delay(SLOW)])],
        "2 steps draw from one stream",
    ),
    "two chances of one name": (
        lambda w: [branch(0.5, []), branch(0.5, [])],
        "2 steps draw from one stream, 'job.branch'",
    ),
    "two random members of one name": (
        lambda w: [*members(w), *members(w)],
        "2 steps draw from one stream, 'job.two.serve'",
    ),
    "one explicit stream twice": (
        lambda w: [delay(SLOW, stream="x"), delay(SLOW, stream="x")],
        "stream 'x' is drawn from twice",
    ),
    "one explicit stream in two branches": (
        lambda w: [fork([delay(SLOW, stream="x")], [delay(SLOW, stream="x")])],
        "stream 'x' is drawn from twice on one path",
    ),
    "one explicit stream in a branch and after it": (
        lambda w: [branch(KIND.equals(0), [delay(SLOW, stream="x")]), delay(SLOW, stream="x")],
        "stream 'x' is drawn from twice on one path",
    ),
    "one explicit stream in a call and after it": (
        lambda w: [call([delay(SLOW, stream="x"), reply()]), delay(SLOW, stream="x")],
        "stream 'x' is drawn from twice on one path",
    ),
    "one explicit stream where the first use failed": (
        lambda w: [rescue([delay(SLOW, stream="x"), fail()], [delay(SLOW, stream="x")])],
        "stream 'x' is drawn from twice on one path",
    ),
    "turns that draw alike": (
        lambda w: [repeat([by_attempt([delay(SLOW, stream="x")])], again=0.5)],
        "stream 'x' is drawn from by attempt in a repeat, whose turns would draw alike",
    ),
    "one explicit stream twice by attempt": (
        lambda w: [by_attempt([delay(SLOW, stream="x")]), spawn([by_attempt([delay(SLOW, stream="x")])])],
        "stream 'x' is drawn from twice on one path",
    ),
    "a step after a failure by attempt": (
        lambda w: [rescue([by_attempt([fail()]), apply("done")], [])],
        "after by_attempt.. is never reached",
    ),
    "two sends one way": (
        lambda w: [fork([w.link.send()], [w.link.send()])],
        "stream 'here-there.send from here' is drawn from twice",
    ),
}


def beyond(w: World) -> Steps:
    return [w.flow.link(w.here, w.flow.part("third"), "1 ms").send()]


def members(w: World) -> Steps:
    pool = w.flow.pools.get("two") or w.flow.pool("two", members=2, select="random")
    return [pool.serve("1 ms")]


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_cannot_run_is_refused_in_one_line(name: str) -> None:
    steps, message = PROGRAMS[name]

    def with_stages(w: World) -> Steps:
        steps_of = steps(w)
        for stage in ("end", "again"):
            w.flow.stage(stage, [apply(stage), *([choose({"again": 0.5})] if stage == "end" else [])])
        return [branch(KIND.equals(0), [choose({"end": 1.0})]), *steps_of]

    with pytest.raises(BadInput, match=message) as error:
        checked(with_stages)
    assert "\n" not in str(error.value)


HANDLINGS: dict[str, tuple[Callable[[World], Steps], str]] = {
    "a consumer that sends itself away": (lambda w: [ack(), w.link.send()], "a consumer sends itself away over link"),
    "a consumer that fails": (
        lambda w: [branch(0.5, [fail()]), ack()],
        "a fail that nothing catches leaves the delivery",
    ),
    "a consumer that uses what is elsewhere": (
        lambda w: [w.desk.serve("1 ms"), ack()],
        "pool 'here.desk' is at part 'here'",
    ),
    "a consumer with a checkpoint": (
        lambda w: [checkpoint(), ack()],
        "a checkpoint with a delivery in hand, which comes again after a crash",
    ),
    "a consumer that publishes where it may be refused": (
        lambda w: [publish(w.there.queue("full", length=1, overflow="refuse")), ack()],
        "a fail that nothing catches leaves the delivery",
    ),
    "a consumer that keeps its unit": (lambda w: [w.server.seize(), ack()], "seized and on a path never released"),
    "an ack from where the link does not end": (
        lambda w: [spawn([w.flow.link(w.there, w.flow.part("third"), "1 ms").send(), ack()])],
        "ack.. away from link 'here-there'",
    ),
}


@pytest.mark.parametrize("name", HANDLINGS)
def test_what_consumers_cannot_do_is_refused(name: str) -> None:
    handling, message = HANDLINGS[name]
    with pytest.raises(BadInput, match=message):
        checked(lambda w: [], handling)


READY = "1 s"
TURNS: dict[str, tuple[Callable[[Queue], Steps], str]] = {
    "a turn that waits for nothing": (
        lambda q: [receive(q), ack()],
        "a turn that may take no time goes round for ever",
    ),
    "a turn of which one way waits for nothing": (
        lambda q: [receive(q), branch(BATCH.at_least(1), [delay(READY)]), ack()],
        "goes round for ever",
    ),
    "no period": (lambda q: [every(0.0), receive(q), ack()], "period of an every must be above 0, got 0"),
    "a wait for none": (
        lambda q: [wait_until(q, at_least=0), receive(q), ack()],
        "at_least of a wait for queue 'inbox'",
    ),
    "none received": (
        lambda q: [wait_until(q), receive(q, at_most=0), ack()],
        "at_most of what is received from queue",
    ),
    "an effect of no message": (
        lambda q: [wait_until(q), receive(q), apply("done"), ack()],
        "apply.. in an actor, which has no message in hand: do it inside for_each",
    ),
    "a call for no message": (lambda q: [every(READY), call([reply()])], "call.. in an actor"),
    "a field of no message": (
        lambda q: [wait_until(q), receive(q), branch(KIND.equals("order"), [ack()])],
        "field 'kind' in an actor, which has no message",
    ),
    "a time of no message": (
        lambda q: [wait_until(q), receive(q), delay(Affine(1, 1, of=KIND)), ack()],
        "field 'kind' in an actor",
    ),
    "an unknown field of a time": (lambda q: [delay(Affine(1, 1, of=Field("colour")))], "field 'colour'"),
    "each of nothing": (lambda q: [every(READY), for_each([apply("done")])], "nothing is received: receive before"),
    "each of each": (
        lambda q: [wait_until(q), receive(q), for_each([for_each([apply("done")])]), ack()],
        "for_each.. .*outside of an actor's own steps",
    ),
    "a batch inside a batch": (
        lambda q: [wait_until(q), receive(q), for_each([receive(q)]), ack()],
        "receive of 'inbox'",
    ),
    "a stage": (lambda q: [every(READY), choose({"end": 1.0})], "an actor chooses a stage, which would end its loop"),
    "a failure": (lambda q: [wait_until(q), receive(q), fail()], "a fail that nothing catches leaves the delivery"),
    "a failure of each": (lambda q: [wait_until(q), receive(q), for_each([fail()])], "a fail that nothing catches"),
    "an actor that sends itself away": (
        lambda q: [wait_until(q), receive(q), for_each([q.at.flow.links["here-there"].send()]), ack()],
        "sends itself away over link",
    ),
    "a unit for each": (
        lambda q: [wait_until(q), receive(q), for_each([q.at.flow.pools["server"].seize()]), ack()],
        "a for_each ends with other units than it began with",
    ),
    "one stream for each and all": (
        lambda q: [wait_until(q), receive(q), *[for_each([delay(SLOW)])] * 2, ack()],
        "2 steps draw from one stream, 'actor.delay'",
    ),
    "a token by key of no message": (
        lambda q: [every(READY), q.at.flow.credit("keyed", 1, key="sku").give()],
        "credit 'keyed' goes by key in an actor, which has no message",
    ),
    "a member by key of no message": (
        lambda q: [every(READY), q.at.flow.pool("keyed", members=2, select="key").serve("1 ms")],
        "pool 'keyed' selects by key in an actor",
    ),
}


@pytest.mark.parametrize("name", TURNS)
def test_what_actors_cannot_do_is_refused_in_one_line(name: str) -> None:
    turn, message = TURNS[name]
    w = world()
    inbox = w.here.queue("inbox")
    w.flow.stage("end", [apply("end")])
    w.flow.source("job", at=w.here, steps=[publish(inbox), choose({"end": 1.0})])
    w.flow.actor("reader", at=w.here, steps=[every(READY), receive(inbox), ack()])
    w.flow.actor("actor", at=w.here, steps=turn(inbox))
    with pytest.raises(BadInput, match=message) as error:
        w.flow.check()
    assert "\n" not in str(error.value)


def test_a_queue_is_read_by_consumers_or_by_actors_at_one_part_without_a_link() -> None:
    def refused(message: str, part: str = "here", consumed: bool = False, far: bool = False) -> None:
        w = world()
        inbox = w.here.queue("inbox", link=w.link if far else None)
        w.flow.source("job", at=w.here, steps=[publish(inbox)])
        w.flow.actor("one", at=w.here, steps=[wait_until(inbox), receive(inbox), ack()])
        if consumed:
            w.flow.consumers(inbox, at=w.here, count=1, steps=[ack()])
        if part != "here":
            w.flow.actor("other", at=w.flow.parts[part], steps=[delay(1), receive(inbox), ack()])
        with pytest.raises(BadInput, match=message):
            w.flow.check()

    refused("receives from queue 'inbox', which has consumers", consumed=True)
    refused("actors at two parts receive from queue 'inbox'", part="there")
    refused("receives from queue 'inbox', which delivers over a link", far=True)
    w = world()
    w.flow.source("job", at=w.here, steps=[publish(w.jobs)])
    w.flow.consumers(w.jobs, at=w.there, count=1, steps=[ack()])
    w.flow.actor("watcher", at=w.here, steps=[wait_until(w.jobs)])
    with pytest.raises(BadInput, match="no actor receives from queue 'jobs' that is waited for"):
        w.flow.check()


def test_a_batch_is_of_actors_alone_and_is_acknowledged() -> None:
    for steps in (
        [receive(Queue("jobs", Part(Flow("x"), "y")))],
        [for_each([apply("x")])],
        [branch(BATCH.equals(0), [])],
    ):
        with pytest.raises(BadInput):
            checked(lambda w, steps=steps: steps)
    w = world()
    inbox = w.here.queue("inbox")
    w.flow.source("job", at=w.here, steps=[publish(inbox)])
    w.flow.actor("reader", at=w.here, steps=[wait_until(inbox), receive(inbox), for_each([apply("done")])])
    assert "flow 'world': actor 'reader' never acknowledges: add ack()" in w.flow.check()


def test_periods_and_growth_are_single_times() -> None:
    for wrong in (lambda: every(SLOW), lambda: Affine(1, SLOW, of=BATCH)):
        with pytest.raises(BadInput, match="must be one time, got exponential"):
            wrong()


NOUNS: dict[str, tuple[Callable[[World], object], str]] = {
    "loss above 1": (
        lambda w: w.flow.link(w.here, w.there, "1 ms", loss=1.5, name="l"),
        "loss of link 'l' must be between 0 and 1",
    ),
    "loss that is no number": (
        lambda w: w.flow.link(w.here, w.there, "1 ms", loss=math.nan, name="l"),
        "loss of link 'l'",
    ),
    "a link to itself": (lambda w: w.flow.link(w.here, w.here, "1 ms"), "has part 'here' at both ends"),
    "a link of another flow's part": (
        lambda w: w.flow.link(w.here, w.other.part("x"), "1 ms"),
        "part 'x' belongs to another flow",
    ),
    "no member": (
        lambda w: w.flow.pool("p", members=0),
        "members of pool 'p' must be a whole number of at least 1, got 0",
    ),
    "an unknown choice of members": (lambda w: w.flow.pool("p", select="ransom"), "did you mean 'random'"),
    "an unknown discipline": (lambda w: w.flow.pool("p", discipline="preempt"), "unknown discipline of pool 'p'"),
    "several units to displace from": (
        lambda w: w.flow.pool("p", 2, discipline="preemptive"),
        "pool 'p' is preemptive with a capacity of 2: give it a capacity of 1",
    ),
    "several units of an event loop": (
        lambda w: w.flow.pool("p", 2, discipline="event_loop"),
        "event loop 'p' has 1 members with a capacity of 2: give it one of each",
    ),
    "no token": (lambda w: w.flow.credit("c", 0), "tokens of credit 'c' must be a whole number of at least 1, got 0"),
    "an unknown key of tokens": (
        lambda w: w.flow.credit("c", 1, key="skew"),
        "unknown key of credit .c. .skew.: known are",
    ),  # type: ignore[arg-type]
    "a rate of tokens by key": (
        lambda w: w.here.credit("c", 1, key="sku", rate=1.0),
        "credit 'c' with a rate of 1.0 must be at a part, without a key",
    ),
    "a negative queue_limit": (lambda w: w.flow.pool("p", queue_limit=-1), "queue_limit of pool 'p'"),
    "a breaker that no failure opens": (
        lambda w: w.flow.pool("p", breaker=Breaker(failures=0, lasts=1.0)),
        "failures of the breaker of pool 'p' must be a whole number of at least 1, got 0",
    ),
    "a breaker for no time": (
        lambda w: w.flow.pool("p", breaker=Breaker(failures=1, lasts=0.0)),
        "lasts of the breaker of pool 'p' must be above 0",
    ),
    "a breaker of more than all": (
        lambda w: w.flow.pool("p", breaker=Breaker(failures=1, lasts=1.0, at_most=1.5)),
        "at_most of the breaker of pool 'p' must be between 0 and 1",
    ),
    "a negative share": (lambda w: w.flow.budget("b", -0.1), "share of budget 'b' must be at least 0"),
    "a reserve of no retry": (
        lambda w: w.flow.budget("b", 0.1, reserve=0.5),
        "reserve of budget 'b' must be at least 1",
    ),
    "no prefetch": (
        lambda w: w.here.queue("q", prefetch=0),
        "prefetch of queue 'q' must be a whole number of at least 1, got 0",
    ),
    "half a delivery": (lambda w: w.here.queue("q", max_deliveries=2.5), "max_deliveries of queue 'q'"),
    "no time to acknowledge": (
        lambda w: w.here.queue("q", ack_wait=0.0),
        "ack_wait of queue 'q' must be above 0, got 0.0",
    ),
    "a negative window": (lambda w: w.here.queue("q", deduplicate=-1.0), "deduplicate of queue 'q' must be at least 0"),
    "a negative time to notice": (lambda w: w.here.queue("q", detected_after=-1.0), "detected_after of queue 'q'"),
    "an unknown place for what is refused": (lambda w: w.here.queue("q", requeue="bach"), "did you mean 'back'"),
    "no room": (
        lambda w: w.here.queue("q", length=0),
        "length of queue 'q' must be a whole number of at least 1, got 0",
    ),
    "no time to live": (lambda w: w.here.queue("q", ttl=0.0), "ttl of queue 'q' must be above 0, got 0.0"),
    "an unknown end of what is too much": (lambda w: w.here.queue("q", overflow="refused"), "did you mean 'refuse'"),
    "a queue at another flow's part": (
        lambda w: w.flow.queue("q", at=w.other.part("x")),
        "part 'x' belongs to another flow",
    ),
    "an unknown key": (lambda w: w.here.table("t", key=("sku", "sesion")), "did you mean 'session'"),
    "a stock that is not by SKU": (lambda w: w.here.table("t", key="session", stocked=True), "stocked, but not by SKU"),
    "a stock of each window": (lambda w: w.here.table("t", window=1.0, stocked=True), "stocked, but not by SKU"),
    "a window that lasts no time": (
        lambda w: w.here.table("t", window=0.0),
        "window of table 't' must be above 0, got 0.0",
    ),
    "no replica": (
        lambda w: w.here.table("t", replicas=0),
        "replicas of table 't' must be a whole number of at least 1",
    ),
    "no customers": (lambda w: w.flow.source("k", [], population=0), "population of source 'k'"),
    "customers and a rate": (lambda w: w.flow.source("k", [], population=1, interarrival=1), "give it one of them"),
    "a thinker without customers": (lambda w: w.flow.source("k", [], think=1), "thinks, but has no population"),
    "a stage that nothing chooses": (lambda w: w.flow.stage("s", [apply("x")]), "no step chooses stage 's'"),
    "consumers elsewhere than the link goes": (
        lambda w: w.flow.consumers(w.here.queue("q", link=w.link), at=w.flow.part("third"), count=1, steps=[ack()]),
        "delivers to 'third' over link 'here-there', which joins others",
    ),
    "a queue that is published to without consumers": (
        lambda w: w.flow.source("k", [publish(w.here.queue("q"))], at=w.here),
        "queue 'q' has no consumers",
    ),
    "a row at no part that is sent": (lambda w: w.flow.source("k", [w.link.send()]), "a row at no part cannot be sent"),
}


@pytest.mark.parametrize("name", NOUNS)
def test_nouns_that_cannot_be_are_refused(name: str) -> None:
    made, message = NOUNS[name]

    def steps(w: World) -> Steps:
        made(w)
        return []

    with pytest.raises(BadInput, match=message):
        checked(steps)


def test_a_flow_that_nothing_enters_is_refused() -> None:
    with pytest.raises(BadInput, match="nothing enters"):
        Flow("empty").check()


FINE: dict[str, Callable[[World], Steps]] = {
    "units that each path gives back": lambda w: [
        w.server.seize(),
        branch(KIND.equals(0), [w.server.release()], [w.server.release()]),
    ],
    "units that a failure gives back": lambda w: [
        rescue([w.server.seize(), branch(0.5, [fail()]), w.server.release()], [reject()])
    ],
    "a token that another row gives back": lambda w: [
        w.flow.credit("tokens", 1).take(),
        spawn([delay(SLOW), w.flow.credits["tokens"].give()]),
    ],
    "checkpoints, and a timeout after them": lambda w: [checkpoint(), delay("1 ms"), checkpoint(), timeout(1, [], [])],
    "patience": lambda w: [
        rescue([timeout(1, [w.server.seize()], [fail()]), delay("1 ms"), w.server.release()], [reject()])
    ],
    "there and back": lambda w: [w.link.send(), w.link.send(), w.desk.serve("1 ms")],
    "there and back in a call": lambda w: [call([w.link.send(), w.link.send(), reply()]), w.desk.serve("1 ms")],
    "back where a scope began": lambda w: [timeout(1, [w.link.send()], [fail()]), w.link.send()],
    "constant times without names": lambda w: [
        delay("1 ms"),
        delay("2 ms"),
        w.server.serve("1 ms"),
        w.server.serve("2 ms"),
    ],
    "chances that are none": lambda w: [branch(0.0, [apply("a")]), branch(1.0, [apply("b")])],
    "an explicit stream on two paths": lambda w: [
        branch(KIND.equals(0), [delay(SLOW, stream="x")], [w.server.serve(SLOW, stream="x")])
    ],
    "an explicit stream on a path that fails and after it": lambda w: [
        branch(KIND.equals(0), [delay(SLOW, stream="x"), fail()]),
        delay(SLOW, stream="x"),
    ],
    "an explicit stream inside a retry and after it": lambda w: [
        retry(Backoff(retries=1), [delay(SLOW, stream="x")]),
        delay(SLOW, stream="x"),
    ],
    "an explicit stream by attempt inside a retry": lambda w: [
        retry(Backoff(retries=1), [by_attempt([delay(SLOW, stream="x")])])
    ],
    "an explicit stream in every turn": lambda w: [repeat([delay(SLOW, stream="x")], again=0.5)],
    "one stream both ways": lambda w: [w.link.send(stream="x"), w.link.send(stream="x")],
    "a failure that ends the message": lambda w: [branch(RESULT.equals("failed"), [fail()])],
    "a reply from a queue's consumers": lambda w: [call([publish(w.jobs)], timeout=1.0)],
    "a choice of probabilities that were added up": lambda w: [
        *stages(w),
        choose({"a": 0.1 + 0.2, "b": 0.7, "a2": -1e-17}),
    ],
}


def stages(w: World) -> list[Step]:
    for name in ("a", "b"):
        w.flow.stage(name, [apply(name)])
    w.flow.stage("a2", [apply("a2")])
    w.flow.source("another", [choose({"a2": 1.0})])
    return []


@pytest.mark.parametrize("name", FINE)
def test_what_can_run_passes_without_a_warning(name: str) -> None:
    assert checked(FINE[name]) == []


def test_stages_are_walked_with_what_is_known_of_those_who_choose_them() -> None:
    """A stage that replies may be chosen inside a call, and not outside of one."""

    def chosen(inside: bool) -> list[str]:
        w = world()
        w.flow.stage("answer", [reply("ok")])
        steps = [choose({"answer": 1.0})]
        w.flow.source("job", at=w.here, steps=[publish(w.jobs), *([call(steps)] if inside else steps)])
        w.flow.consumers(w.jobs, at=w.there, count=1, steps=[ack()])
        return w.flow.check()

    assert chosen(inside=True) == []
    with pytest.raises(BadInput, match="stage 'answer': a reply, but nobody waits"):
        chosen(inside=False)


def test_a_stage_is_walked_at_each_part_that_it_is_chosen_at() -> None:
    w = world()
    w.flow.stage("work", [w.desk.serve("1 ms")])
    w.flow.source("near", at=w.here, steps=[choose({"work": 1.0})])
    assert w.flow.check() == [f"flow 'world': nobody publishes to queue '{w.jobs.name}'"]
    w.flow.source("far", at=w.here, steps=[w.link.send(), choose({"work": 1.0})])
    with pytest.raises(BadInput, match=r"stage 'work': pool 'here\.desk' is at part 'here'"):
        w.flow.check()


def test_what_was_hardly_meant_is_a_warning() -> None:
    def warned(steps: Callable[[World], Steps], handling: Callable[[World], Steps] = lambda w: [ack()]) -> str:
        return "; ".join(checked(steps, handling))

    lossy: Callable[[World], Link] = lambda w: w.flow.link(w.here, w.there, "1 ms", loss=0.1, name="lossy")  # noqa: E731
    assert "a fail inside a call tells its caller nothing" in warned(lambda w: [call([branch(0.5, [fail()]), reply()])])
    assert "a fail that no retry or rescue catches ends the row" in warned(lambda w: [spawn([branch(0.5, [fail()])])])
    assert "its caller may wait for ever" in warned(lambda w: [call([lossy(w).send(), reply()])])
    assert "its caller may wait" not in warned(lambda w: [call([lossy(w).send(), reply()], timeout=1.0)])
    assert "its caller may wait" not in warned(lambda w: [timeout(1, [call([lossy(w).send(), reply()])], [])])
    assert "consumers of 'jobs' never acknowledge" in warned(lambda w: [], lambda w: [apply("done")])


def test_a_queue_that_nobody_publishes_to_is_a_warning() -> None:
    w = world()
    w.flow.source("job", at=w.here, steps=[apply("done")])
    w.flow.consumers(w.jobs, at=w.there, count=1, steps=[ack()])
    assert w.flow.check() == ["flow 'world': nobody publishes to queue 'jobs'"]


def test_deliveries_that_a_link_loses_for_ever_are_a_warning() -> None:
    for options, warned in (({}, True), ({"ack_wait": 1.0}, False), ({"automatic_ack": True}, False)):
        flow = Flow("lossy")
        here, there = flow.part("here"), flow.part("there")
        jobs = here.queue("jobs", link=flow.link(here, there, "1 ms", loss=0.1), **options)
        flow.source("job", at=here, steps=[publish(jobs)])
        flow.consumers(jobs, at=there, count=1, steps=[ack()])
        assert any("never delivered again" in warning for warning in flow.check()) == warned


def test_an_overloaded_pool_is_a_warning_with_its_utilisation() -> None:
    flow = Flow("overload")
    flow.source("job", interarrival="10 ms", steps=[flow.pool("server").serve("15 ms")])
    (warning,) = flow.check()
    assert "'server' is overloaded" in warning and "utilisation of 1.5" in warning


@pytest.mark.parametrize("name", architectures.names())
def test_the_architectures_pass_without_a_warning(name: str) -> None:
    architecture = architectures.get(name)
    switched = ({"idempotency": False}, {"answered_on": "reply"}, {"confirm": False}, {"manual_ack": False})
    for overrides in ({}, *switched, {"publisher": "log_tailing"}, {"publisher": "dual_write"}):
        if set(overrides) <= set(architecture.parameters.model_fields):
            flow = architecture.build(architecture.load_parameters(overrides), load_scenario("steady"))
            assert flow.check() == []
