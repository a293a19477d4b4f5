"""The steps of an order: which service does each, what it does and undoes there, and how it fails.

With `process: simple` there is one: accounting takes the units. With `process: fulfilment` accounting reserves and, in the
end, confirms; a payment and a shipping service stand between, on the same machine. All architectures meet the same failures.
"""

from __future__ import annotations

from dataclasses import dataclass

from simlib.architectures.parameters import Parameters
from simlib.architectures.sides import Side, side
from simlib.domain import CONFIRM, DONE_BY, GIVEN_UP, PAY, RESERVE, SHIP
from simlib.flow import (
    RESULT,
    Flow,
    Steps,
    Table,
    apply,
    branch,
    by_attempt,
    call,
    fail,
    reject,
    reply,
    rescue,
    undo,
)
from simlib.scenario import HANDLER_WORK, STEP_REFUSED, STEP_UNHEARD, UNDOING_FAILED, Scenario


@dataclass(frozen=True)
class Task:
    """A step of an order, at the service that does it, by the scenario's chances."""

    step: str
    side: Side
    stock: Table
    scenario: Scenario

    @property
    def work(self) -> str:
        """The shared stream of the handler's work."""
        return HANDLER_WORK if self.step == RESERVE else f"{HANDLER_WORK}.{self.step}"

    def done(self, then: Steps = ()) -> Steps:
        """What the step does, where it is not refused; and then more, in the same transaction."""
        effect, store = DONE_BY[self.step]
        if self.step == RESERVE:
            return self.unless_refused([self.stock.take([apply(effect, store, sign=-1), *then], otherwise=[reject()])])
        return self.unless_refused([apply(effect, store), *then])

    def unless_refused(self, steps: Steps) -> Steps:
        """The steps, where the service does not refuse."""
        refused, stream = self.scenario.step_refused, f"{STEP_REFUSED}.{self.step}"
        return [by_attempt([branch(refused, [reject()], otherwise=steps, stream=stream)])] if refused else steps

    def undone(self) -> Steps:
        """What takes that back."""
        effect, store = DONE_BY[self.step]
        if self.step == RESERVE:
            return [self.stock.add(), undo(effect, store, sign=1)]
        return [undo(effect, store)]

    def unheard(self) -> Steps:
        """The result becomes timed_out where the step was done and nobody is to hear of that."""
        chance = _by_chance(self.scenario.step_timed_out, f"{STEP_UNHEARD}.{self.step}")
        return [branch(RESULT.equals("ok"), [rescue(chance, otherwise=[])])] if chance else []

    def undoing(self) -> Steps:
        """The work of undoing the step, which may fail."""
        work = self.side.handle(self.scenario, f"{self.work}.undo")
        return [*work, *_by_chance(self.scenario.undoing_failed, f"{UNDOING_FAILED}.{self.step}")]


def _by_chance(probability: float, stream: str) -> Steps:
    """A failure by (message, attempt)."""
    return [by_attempt([branch(probability, [fail("timed_out")], stream=stream)])] if probability else []


def tasks(flow: Flow, scenario: Scenario, accounting: Side, stock: Table) -> list[Task]:
    """The steps of an order in their order, with the further services that they need."""
    places = {RESERVE: accounting, CONFIRM: accounting}
    for step, name in ((PAY, "payment"), (SHIP, "shipping")):
        if step in scenario.steps:
            places[step] = side(flow, name, accounting.machine, accounting.parameters)
    return [Task(step, places[step], stock, scenario) for step in scenario.steps]


def called(flow: Flow, p: Parameters, here: Side, others: list[Task]) -> Steps:
    """Further steps, of which a side calls one after the other, once each, as long as each is done."""
    if not others:
        return []
    task, there = others[0], others[0].side
    if there.database is here.database:  # another process of the same service
        there = here
    done = [*there.handle(task.scenario, task.work), *there.commit(f"{task.step}.{there.part.name}"), *task.done()]
    if there is not here:
        name = f"{here.part.name}-{there.part.name}"
        link = flow.links.get(name) or flow.link(here.part, there.part, p.network)
        way = f"{task.step}.network"
        answer = [*there.answer(f"{task.step}.server"), link.send(stream=f"{way}.back"), reply()]
        refusal = [*there.answer(f"{task.step}.failed"), link.send(stream=f"{way}.failed"), reply("failed")]
        heard = [*task.unheard(), branch(RESULT.differs("timed_out"), answer)]
        server = [link.send(stream=f"{way}.there"), *there.receive(f"{task.step}.server")]
        done = [
            *here.post(task.step),
            call([*server, rescue([*done, *heard], otherwise=refusal)], timeout=GIVEN_UP),
            *here.work(p.http_client, f"{task.step}.client.took"),
        ]
    return [rescue(done, otherwise=[]), branch(RESULT.equals("ok"), called(flow, p, here, others[1:]))]
