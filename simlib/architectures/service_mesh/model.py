"""A service mesh: REST through a sidecar beside each process, which balances, retries, ejects and limits in its place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

from pydantic import Field

from simlib.architectures.parameters import Count, PositiveDuration, Retries, Time, Truth
from simlib.architectures.rest.model import Network, Rest, chosen, connected, travel
from simlib.architectures.sides import Side
from simlib.distributions import Distribution
from simlib.flow import (
    RESULT,
    Backoff,
    Breaker,
    Flow,
    Link,
    Part,
    Steps,
    branch,
    call,
    every,
    fail,
    reply,
    rescue,
    retry,
)
from simlib.flow.blocks import Step
from simlib.quantities import Duration, Number, Probability, Whole
from simlib.scenario import Scenario


class ServiceMesh(Rest):
    """Parameters of the service mesh, beside those of direct REST, which are the applications' own."""

    loopback: Time = Field("0.02 ms", validate_default=True, description="between a process and its sidecar, each way")
    hop: Time = Field("0.15 ms", validate_default=True, description="CPU of a sidecar for a message that passes it")
    mtls: Truth = Field(True, description="whether what goes between sidecars is encrypted, and each knows the other")
    tls: Time = Field(
        "0.02 ms", validate_default=True, description="CPU of a sidecar to encrypt a message, or to decrypt it"
    )
    workers: Count = Field(2, description="threads of a sidecar")
    proxy_timeout: PositiveDuration = Field(0.5, description="after which a sidecar abandons a try, s")
    proxy_retries: Retries = Field(2, description="further tries of a sidecar after one failed or timed out")
    proxy_backoff: Duration = Field(
        0.025, description="before its first retry, doubled each time, drawn up to its length, s"
    )
    proxy_budget: Annotated[Number, Field(ge=0, le=100)] = Field(
        100.0, description="further tries that a call pays for, on average over a sidecar's calls"
    )
    proxy_connections: Count = Field(1024, description="connections of a sidecar to each process of the other side")
    proxy_pending: Annotated[Whole, Field(ge=0, le=100_000)] = Field(
        1024, description="calls that wait for one; more fail at once"
    )
    ejection: Retries = Field(
        5, description="failures in a row after which a sidecar leaves a process out; 0: it never does"
    )
    ejection_lasts: PositiveDuration = Field(5.0, description="for how long it does so, s")
    max_ejected: Probability = Field(0.5, description="share of the processes that it leaves out at most")
    push_interval: PositiveDuration = Field(10.0, description="between two configurations from the control plane, s")
    push: Time = Field("5 ms", validate_default=True, description="CPU of a sidecar to take in a configuration")


def build(p: ServiceMesh, scenario: Scenario) -> Flow:
    """The flow of the service mesh."""
    flow = Flow("service_mesh")
    return connected(flow, p, scenario, Mesh(flow, p))


class Mesh(Network):
    """The network between sidecars: a process knows its own alone, and that knows the processes of the other side."""

    p: ServiceMesh

    def __init__(self, flow: Flow, p: ServiceMesh) -> None:
        self.sidecars: dict[Part, Part] = {}
        self.loopback: dict[Part, Link] = {}
        super().__init__(flow, p)
        self.upstream = {
            part: sidecar.pool(
                "upstream", capacity=p.proxy_connections, queue_limit=p.proxy_pending, members=p.processes, select=p.balancing,
                breaker=Breaker(p.ejection, p.ejection_lasts, p.max_ejected) if p.ejection else None,
            ) for part, sidecar in self.sidecars.items()
        }  # fmt: skip
        budgeted = p.proxy_budget < p.proxy_retries
        self.proxy_budgets = {
            part: flow.budget(f"{sidecar.name}.retries", p.proxy_budget)
            for part, sidecar in self.sidecars.items()
            if budgeted
        }
        if p.push.mean_value:
            for sidecar in self.sidecars.values():
                configured = self.work(sidecar, {f"{sidecar.name}.push": p.push})
                flow.actor(f"{sidecar.name}.push", sidecar, [every(p.push_interval), *configured])

    @property
    def known(self) -> int:
        return 1

    def join(self) -> dict[tuple[Part, Part], Link]:
        for side in (*self.accounting, *self.shop):
            part = side.part
            self.sidecars[part] = sidecar = self.flow.part(f"{part.name}.sidecar", cores=self.p.workers)
            self.loopback[part] = self.flow.link(part, sidecar, self.p.loopback)
        return super().join()

    def link(self, one: Part, other: Part) -> Link:
        return self.flow.link(self.sidecars[one], self.sidecars[other], self.p.network, name=f"{one.name}-{other.name}")

    def ask(self, label: str, here: Side, there: Sequence[Side], served: Callable[[Side], Steps]) -> Steps:
        """Ask the sidecar, which asks one of the processes, again where that fails, and tells what came of it."""
        p, part = self.p, here.part
        sidecar, loopback, upstream = self.sidecars[part], self.loopback[part], self.upstream[part]
        ways = [
            [call(travel(label, self.links[part, side.part], self.receive(label, side, served(side))),
                  timeout=p.proxy_timeout)]
            for side in there
        ]  # fmt: skip
        tried: Steps = [upstream.seize(stream=f"{label}.upstream"), *chosen(ways), upstream.release()]
        if p.proxy_retries:
            policy = Backoff(p.proxy_retries, p.proxy_backoff, jitter=True, budget=self.proxy_budgets.get(part))
            asked: Step = retry(policy, tried, stream=f"{label}.sidecar.backoff", goes_on=True)
        else:
            asked = rescue(tried, otherwise=[])
        proxied = [
            loopback.send(stream=f"{label}.out"), *self.passed(sidecar, f"{label}.out"), asked,
            *self.passed(sidecar, f"{label}.home"), loopback.send(stream=f"{label}.home"), reply(),
        ]  # fmt: skip
        return [call(proxied), branch(RESULT.equals("timed_out"), [fail("timed_out")])]

    def receive(self, label: str, there: Side, served: Steps) -> Steps:
        """What is sent to a process comes to its sidecar first, and leaves through it."""
        sidecar, loopback = self.sidecars[there.part], self.loopback[there.part]
        return [
            *self.passed(sidecar, f"{label}.in"), loopback.send(stream=f"{label}.in"), *served,
            loopback.send(stream=f"{label}.back"), *self.passed(sidecar, f"{label}.back"),
        ]  # fmt: skip

    def passed(self, sidecar: Part, label: str) -> Steps:
        """A message passes a sidecar, on one side of which it is encrypted."""
        return self.work(sidecar, {f"{label}.hop": self.p.hop, **({f"{label}.tls": self.p.tls} if self.p.mtls else {})})

    def work(self, sidecar: Part, times: dict[str, Distribution]) -> Steps:
        """A sidecar's processor work, on a core of the machine, by its streams; what takes no time waits for none."""
        served = [self.machine.cores.serve(time, stream=stream) for stream, time in times.items() if time.mean_value]
        return [sidecar.cpu.seize(), *served, sidecar.cpu.release()] if served else []
