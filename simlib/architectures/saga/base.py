"""What the two styles of saga share: parameters, the undoing of steps, what the shop remembers of those that are under way."""

from __future__ import annotations

from pydantic import Field

from simlib.architectures.fulfilment import Task
from simlib.architectures.parameters import PositiveDuration, Truth
from simlib.architectures.queues import Exchange, JetStream
from simlib.domain import COPY, RESTOCKED
from simlib.flow import RESULT, Flow, Steps, apply, branch, checkpoint, point, reject
from simlib.quantities import Duration
from simlib.scenario import Scenario


class Saga(JetStream):
    """Parameters of a saga in either style."""

    deduplication: Duration = Field(0.0, description="within which the broker drops a message that it has, s")
    compensation: Truth = Field(
        True, description="whether what was done is undone where a later step is refused or not heard of"
    )
    semantic_locks: Truth = Field(
        True, description="whether an order waits until no other process is under way for its SKU"
    )
    durable_state: Truth = Field(
        True, description="whether the shop remembers the processes under way, and goes on with them after a crash"
    )
    answer_timeout: PositiveDuration = Field(5.0, description="after which a customer waits no longer, s")


class Sagas(Exchange):
    """Sides, services and broker; a queue for each step, and where steps are undone another one for that."""

    def __init__(self, flow: Flow, p: Saga, scenario: Scenario) -> None:
        super().__init__(flow, p, scenario)
        self.durable = p.durable_state
        self.undoing = {
            task.step: self.channel(f"{task.step}.undo", task.side) for task in self.tasks if p.compensation
        }
        several = len(self.tasks) > 1
        self.locks = self.shop.part.credit("locks", tokens=1, key="sku") if p.semantic_locks and several else None

    def remember(self, label: str) -> Steps:
        """The shop writes down how far a process is, and goes on there after a crash."""
        return [*self.shop.commit(f"saga.{label}"), *self.hold_on()] if self.durable else []

    def hold_on(self) -> Steps:
        """What was just done, in no time, is in what was written down last."""
        return [checkpoint()] if self.durable else []

    def lock(self) -> Steps:
        """No other process is under way for the SKU from now on."""
        return [self.locks.take(), *self.hold_on()] if self.locks else []

    def unlock(self) -> Steps:
        """The process is over, whoever ends it."""
        return [self.locks.give()] if self.locks else []

    def restock(self) -> Steps:
        """The shop's copy learns what accounting has again."""
        return [self.copy.write_if_newer([apply(RESTOCKED, COPY)])]

    def consume_undoing(self, task: Task, then: Steps) -> None:
        """A service undoes a step, if it did it; if it did not, it never will."""
        queue, side = self.undoing[task.step].queue, task.side
        steps = task.undone()
        if self.p.idempotent_receiver:
            undone = side.part.table(f"{task.step}.undone", key="message")
            steps = [self.handled[task.step].once([reject()]), branch(RESULT.equals("ok"), [undone.once(steps)])]
        self.consume(queue, side, [
            *task.undoing(), *side.commit(f"{queue.name}.{side.part.name}"), *steps, point(f"{queue.name}.applied"), *then,
        ])  # fmt: skip
