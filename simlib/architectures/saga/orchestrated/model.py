"""A saga that the shop orchestrates: it asks one service after the other, and where one says no, all before it to undo."""

from __future__ import annotations

from pydantic import Field

from simlib.architectures.fulfilment import Task
from simlib.architectures.parameters import PositiveDuration, Retries
from simlib.architectures.saga.base import Saga, Sagas
from simlib.domain import RESERVE, RESPONSES
from simlib.flow import RESULT, Backoff, Flow, Steps, branch, call, fail, reply, rescue, retry, spawn
from simlib.scenario import Scenario


class Orchestrated(Saga):
    """Parameters of the orchestrated saga."""

    step_timeout: PositiveDuration = Field(
        1.0, description="after which a step without an answer is undone, as it may have been done, s"
    )
    undo_retries: Retries = Field(10, description="further requests to undo a step where nobody answers")


UNHEARD = RESULT.at_least(RESPONSES.index("failed"))
"""Nobody answered in time, or the broker was down."""


def build(p: Orchestrated, scenario: Scenario) -> Flow:
    """The flow of the orchestrated saga."""
    flow = Flow("saga/orchestrated")
    between = Sagas(flow, p, scenario)
    shop, tasks = between.shop, between.tasks

    def from_step(k: int) -> Steps:
        """The steps from here on; what undoes one stands around those after it."""
        if k == len(tasks):
            return between.remember("done")
        return [
            *between.remember(tasks[k].step), *(between.lock() if k == 0 else []),
            *between.ask(tasks[k], shop, reply_within=p.step_timeout),
            branch(RESULT.equals("refused"), [fail()]),
            rescue([branch(UNHEARD, [fail()]), *from_step(k + 1)], otherwise=[*undo(tasks[k]), fail()]),
        ]  # fmt: skip

    def undo(task: Task) -> Steps:
        if not p.compensation:
            return []
        name = f"{task.step}.undo"
        asked = between.send(name, shop, between.right, [between.undoing[task.step]], reply_within=p.step_timeout)
        known = branch(RESULT.equals("ok"), [*shop.commit("saga.restock"), *between.restock()])
        return [
            *between.remember(name),
            retry(Backoff(p.undo_retries), [*asked, branch(UNHEARD, [fail()])]),
            *([known] if task.step == RESERVE else []),
        ]

    def tell(name: str, task: Task) -> Steps:
        """The answer of a service, over the broker."""
        there, back = between.links[task.side.part], between.right
        return [there.send(stream=f"{name}.reply.there"), back.send(stream=f"{name}.reply.back"), reply()]

    saga = [
        rescue(from_step(0), otherwise=between.remember("over")), *between.unlock(),
        branch(RESULT.equals("ok"), [reply("ok")], otherwise=[reply("refused")]),
    ]  # fmt: skip
    between.accept_updates(then=between.publish("update", between.accounting))
    between.accept_orders([rescue([call(saga, timeout=p.answer_timeout)], otherwise=[]), *between.answer_order()])
    between.accept_queries()
    between.consume_updates()
    for task in tasks:
        answered = tell(between.asked[task.step].queue.name, task)
        if scenario.step_timed_out:
            heard = branch(RESULT.differs("timed_out"), answered)
            answered = [*task.unheard(), heard]
        between.consume_task(task, [spawn(answered), *(between.announce() if task.step == RESERVE else [])])
        if p.compensation:
            between.consume_undoing(task, [spawn(tell(f"{task.step}.undo", task))])
    return flow
