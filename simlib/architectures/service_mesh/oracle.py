"""A service mesh as a textbook would write it in SimPy: direct REST's story, whose calls pass a sidecar on each side.

It tells the story of `model.py` on the oracle of direct REST, and shares nothing with the flow's blocks and their engine, so
that each checks the other: the happy path, and the pattern's signature fault, retries of the sidecar inside those of the
application; ejection, limits, a budget, configurations from the control plane. A scenario's faults (loss, crash, poison) are
left out. Numbers are drawn from the model's streams at the model's places, so that equal stories give equal times.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import simpy

from simlib import draws
from simlib.architectures.ground import FAILED, TIMED_OUT, Side, Story
from simlib.architectures.rest import oracle as rest
from simlib.architectures.rest.oracle import Answer, Caller, Serve
from simlib.scenario import Scenario

if TYPE_CHECKING:
    from simlib.architectures.service_mesh.model import ServiceMesh

CONFIGURED = 60.0
"""For so long after the last arrival configurations come, s."""


class Sidecar(Caller):
    """Beside a process: its threads, and what it knows of the other side's processes."""

    def __init__(self, env: simpy.Environment, name: str, p: ServiceMesh, processes: list[Side]) -> None:
        ejection = p.ejection, p.ejection_lasts, p.policy.max_ejected
        super().__init__(env, processes, p.proxy_connections, p.policy.budget, *ejection, balancing=p.balancing)
        self.name = f"{name}.sidecar"
        self.cpu = simpy.Resource(env, p.workers)


class Simulation(rest.Simulation):
    """One run."""

    p: ServiceMesh

    def __init__(self, p: ServiceMesh, scenario: Scenario, seed: int, messages: int) -> None:
        super().__init__(p, scenario, seed, messages)
        ways = ((self.accounting, self.shop), (self.shop, self.accounting))
        self.sidecars = {
            process: Sidecar(self.env, process.name, p, self.processes[there])
            for here, there in ways
            for process in self.processes[here]
        }
        for number, sidecar in enumerate(self.sidecars.values()):
            for turn in range(int((self.issued[-1] + CONFIGURED) / p.policy.push_interval)):
                self.env.process(self.configure(sidecar, number, turn))

    def known(self, there: Side) -> list[Side]:
        """A process knows its sidecar, which stands for all of the other side."""
        return [there]

    def configure(self, sidecar: Sidecar, number: int, turn: int) -> Story:
        """What the control plane sends."""
        yield self.env.timeout((turn + 1) * self.p.policy.push_interval)
        place = draws.fold(draws.fold(0, -1 - number), turn)
        with sidecar.cpu.request() as thread:
            yield thread
            yield from self.on_a_core(self.p.policy.push, f"{sidecar.name}.push", place)

    def passed(self, sidecar: Sidecar, label: str, place: int) -> Story:
        """A message passes a sidecar, on one side of which it is encrypted."""
        with sidecar.cpu.request() as thread:
            yield thread
            yield from self.on_a_core(self.p.hop, f"{label}.hop", place)
            if self.p.mtls:
                yield from self.on_a_core(self.p.tls, f"{label}.tls", place)

    def loop(self, label: str, name: str, place: int) -> simpy.Event:
        """Between a process and its sidecar."""
        return self.time(self.p.loopback, f"{label}.from.{name}", place)

    def ask(self, label: str, here: Side, there: Side, place: int, attempt: int, serve: Serve) -> Story:
        """Ask the sidecar, which goes on when nobody waits for it any more; services that have none are asked directly."""
        if there not in self.sidecars:
            return (yield from super().ask(label, here, there, place, attempt, serve))
        answered = self.env.event()
        self.env.process(self.proxy(label, here, place, attempt, serve, answered))
        return (yield answered)

    def proxy(self, label: str, here: Side, place: int, attempt: int, serve: Serve, answered: simpy.Event) -> Story:
        sidecar = self.sidecars[here]
        yield self.loop(f"{label}.out", here.name, place)
        yield from self.passed(sidecar, f"{label}.out", place)
        answer = yield from self.tries(label, sidecar, place, attempt, serve)
        yield from self.passed(sidecar, f"{label}.home", place)
        yield self.loop(f"{label}.home", sidecar.name, place)
        answered.succeed(answer)

    def tries(self, label: str, sidecar: Sidecar, place: int, attempt: int, serve: Serve) -> Story:
        """One try after the other; each has a number of its own among those of all the application's attempts."""
        p, unheard = self.p, False
        first = (attempt - 1) * (p.proxy_retries + 1) + 1
        sidecar.pays_in()
        for turn in range(p.proxy_retries + 1):
            at = draws.fold(place, turn) if p.proxy_retries else place
            answer = yield from self.once(label, sidecar, at, first + turn, serve)
            if answer.response not in (FAILED, TIMED_OUT):
                return answer
            unheard = unheard or answer.response == TIMED_OUT
            if turn == p.proxy_retries or not sidecar.affords(p.proxy_retries):
                break
            wait = min(p.policy.backoff * 2.0**turn, 60.0)
            yield self.env.timeout(wait * self.uniform(f"{label}.sidecar.backoff", at))
        return Answer(TIMED_OUT if unheard else FAILED)

    def once(self, label: str, sidecar: Sidecar, place: int, number: int, serve: Serve) -> Story:
        """One try: a process that is not left out, a connection to it, an answer in time."""
        peer = self.choose(sidecar, f"{label}.upstream.select", place)
        if peer is None:
            return Answer(FAILED)
        waiting, connected = len(peer.connections.queue), peer.connections.count
        if waiting >= self.p.proxy_pending and connected == self.p.proxy_connections:
            return Answer(FAILED)
        with peer.connections.request() as connection:
            yield connection
            answered = self.env.event()
            self.env.process(self.far(label, sidecar, peer.process, place, number, serve, answered))
            yield answered | self.env.timeout(self.p.proxy_timeout)
        answer: Any = answered.value if answered.triggered else Answer(TIMED_OUT)
        sidecar.hears(peer, answer.response in (FAILED, TIMED_OUT))
        return answer

    def far(
        self, label: str, sidecar: Sidecar, there: Side, place: int, number: int, serve: Serve, answered: simpy.Event
    ) -> Story:
        """The other side's sidecar and process."""
        other = self.sidecars[there]
        yield self.time(self.p.network, f"{label}.network.there.from.{sidecar.name}", place)
        yield from self.passed(other, f"{label}.in", place)
        yield self.loop(f"{label}.in", other.name, place)
        answer = yield from self.serve(label, there, place, number, serve)
        yield self.loop(f"{label}.back", there.name, place)
        yield from self.passed(other, f"{label}.back", place)
        way = "failed" if answer.response == FAILED else "back"
        yield self.time(self.p.network, f"{label}.network.{way}.from.{other.name}", place)
        answered.succeed(answer)


def run(parameters: ServiceMesh, scenario: Scenario, seed: int, messages: int) -> dict[str, np.ndarray]:
    """One run, to the time when nothing is under way any more: the same arrays as of direct REST's oracle."""
    return Simulation(parameters, scenario, seed, messages).run("attempts")
