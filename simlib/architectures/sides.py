"""The two sides that every architecture connects, as parts of a flow: what a visit to their HTTP service or database costs."""

from __future__ import annotations

from dataclasses import dataclass

from simlib.architectures.parameters import Parameters
from simlib.flow import KIND, POISONED, Flow, Part, Pool, Steps, branch, by_attempt, delay, fail, respond
from simlib.domain import ORDER, STOCK_UPDATE
from simlib.scenario import HANDLER_FAILURE, HANDLER_WORK, Scenario

ANNOUNCEMENT_WORK = "announcement_work"
"""Shared stream: the shop's handling of the change of stock that an order made."""


@dataclass(frozen=True)
class Side:
    """A side: one process with one event loop, and its database. `label` in the methods tells visits apart in the draws."""

    part: Part
    database: Pool
    parameters: Parameters

    def receive(self, label: str) -> Steps:
        """Take in an HTTP request."""
        return [self.part.cpu.serve(self.parameters.http_server, stream=f"{label}.receive")]

    def answer(self, label: str) -> Steps:
        """Answer an HTTP request."""
        return [self.part.cpu.serve(self.parameters.http_server, stream=f"{label}.answer")]

    def commit(self, label: str) -> Steps:
        """A writing transaction, with the CPU that it costs here before and after."""
        return self._database(label, "commit")

    def read(self, label: str) -> Steps:
        """A read, with the CPU that it costs here before and after."""
        return self._database(label, "read")

    def _database(self, label: str, what: str) -> Steps:
        cpu = self.parameters.database_client
        return [
            self.database.seize(),
            self.part.cpu.serve(cpu, stream=f"{label}.{what}.ask"),
            delay(getattr(self.parameters, what), stream=f"{label}.{what}"),
            self.part.cpu.serve(cpu, stream=f"{label}.{what}.took"),
            self.database.release(),
        ]

    def handle(self, scenario: Scenario, stream: str = HANDLER_WORK) -> Steps:
        """The handler's work, which may fail, and fails for poison."""
        steps = [
            self.part.cpu.serve(scenario.handler_work, stream=stream),
            branch(scenario.handler_failure, [fail()], stream=f"{HANDLER_FAILURE}.{stream}"),
            branch(POISONED.equals(1), [fail()]),
        ]
        return [by_attempt(steps)]


def side(flow: Flow, name: str, parameters: Parameters) -> Side:
    """A side of the given name in the flow."""
    part = flow.part(name)
    return Side(part, part.pool("database", capacity=parameters.database_connections), parameters)


def arrive(parameters: Parameters, label: str) -> Steps:
    """From the caller to the side it calls."""
    return [delay(parameters.edge, stream=f"{label}.edge.there")]


def leave(parameters: Parameters, label: str, answer_from: str = "") -> Steps:
    """From the side back to the caller, who then knows."""
    return [delay(parameters.edge, stream=f"{label}.edge.back"), respond(answer_from=answer_from)]


IS_ORDER, IS_UPDATE = KIND.equals(ORDER), KIND.equals(STOCK_UPDATE)
