"""A saga without a conductor: each service tells the next that its step is done, or the one before that it is to be undone."""

from __future__ import annotations

from pydantic import Field

from simlib.architectures.parameters import PositiveDuration
from simlib.architectures.queues import Channel
from simlib.architectures.saga.base import Saga, Sagas
from simlib.architectures.sides import Side
from simlib.domain import RESERVE
from simlib.flow import RESULT, Flow, Steps, branch, call, fail, reply, rescue, timeout
from simlib.scenario import Scenario


class Choreographed(Saga):
    """Parameters of the choreographed saga."""

    deadline: PositiveDuration = Field(
        1.0, description="after which the shop has a process undone of whose end it has not heard, s"
    )


def build(p: Choreographed, scenario: Scenario) -> Flow:
    """The flow of the choreographed saga."""
    flow = Flow("saga/choreographed")
    between = Sagas(flow, p, scenario)
    shop, tasks = between.shop, between.tasks
    completed, cancelled = (between.channel(name, shop) for name in ("completed", "cancelled"))
    confirmed, ended = (shop.part.table(name, key="message") for name in ("confirmed", "ended"))

    def tell(channel: Channel, here: Side, label: str) -> Steps:
        """An event, which is published again where that is not confirmed."""
        link = between.links[here.part]
        return between.send(label, here, link, [channel], unconfirmed=[fail()])

    def back(k: int, label: str) -> Steps:
        """The step before is to be undone; where there is none, or none is undone, the shop hears of the end."""
        if k == 0 or not p.compensation:
            return tell(cancelled, tasks[k].side, f"{label}.cancelled")
        return tell(between.undoing[tasks[k - 1].step], tasks[k].side, f"{label}.undo")

    known = [ended.wait_until(1), branch(confirmed.level.at_least(1), [reply("ok")], otherwise=[reply("refused")])]
    late = [*between.unlock(), reply("timed_out")]
    if p.compensation:
        last = between.undoing[tasks[-1].step]
        late = [*between.send("order.late", shop, between.right, [last]), reply("refused")]
    saga = [
        *between.remember("begun"), *between.lock(), *between.publish("order", shop),
        timeout(p.deadline, known, otherwise=late),
    ]  # fmt: skip
    between.accept_updates(then=between.publish("update", between.accounting))
    between.accept_orders([rescue([call(saga, timeout=p.answer_timeout)], otherwise=[]), *between.answer_order()])
    between.accept_queries()
    between.consume_updates()
    for k, task in enumerate(tasks):
        onward = (
            between.ask(tasks[k + 1], task.side, unconfirmed=[fail()])
            if k + 1 < len(tasks)
            else tell(completed, task.side, "completed")
        )
        between.consume_task(task, [
            *(between.announce() if task.step == RESERVE else []),
            *task.unheard(), branch(RESULT.equals("ok"), onward),
            branch(RESULT.equals("refused"), back(k, task.step)),
        ])  # fmt: skip
        if p.compensation:
            between.consume_undoing(task, back(k, f"{task.step}.undone"))
    over = [ended.once(between.unlock()), ended.add()]
    between.consume(completed.queue, shop, [*shop.commit("completed.shop"), confirmed.add(), *over])
    restocked = branch(RESULT.equals("ok"), between.restock())
    between.consume(cancelled.queue, shop, [*shop.commit("cancelled.shop"), restocked, *over])
    return flow
