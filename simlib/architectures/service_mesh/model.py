"""A service mesh: REST through a sidecar beside each process, which balances, retries, ejects and limits in its place."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from simlib.architectures.parameters import Count, Parameters, PositiveDuration, Retries, Time, Truth
from simlib.architectures.rest.model import Network, Rest, chosen, connected, travel
from simlib.architectures.sides import Side
from simlib.distributions import Constant, Distribution
from simlib.errors import unknown
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


class Policy(NamedTuple):
    """What a proxy does where tries fail, and how it is configured, in the words of the flow."""

    backoff: float
    budget: float
    max_ejected: float
    push_interval: float
    push: Distribution


class ServiceMesh(Rest):
    """Parameters of the service mesh on every proxy, beside those of direct REST, which are the applications' own."""

    proxy: str = Field("envoy", description="the program that a sidecar is, and whose times it has")
    loopback: Time = Field("0.02 ms", validate_default=True, description="between a process and its sidecar, each way")
    hop: Time = Field("0.15 ms", validate_default=True, description="CPU of a sidecar for a message that passes it")
    mtls: Truth = Field(True, description="whether what goes between sidecars is encrypted, and each knows the other")
    tls: Time = Field(
        "0.02 ms", validate_default=True, description="CPU of a sidecar to encrypt a message, or to decrypt it"
    )
    workers: Count = Field(2, description="threads of a sidecar")
    proxy_timeout: PositiveDuration = Field(0.5, description="after which a sidecar abandons a try, s")
    proxy_retries: Retries = Field(2, description="further tries of a sidecar after one failed or timed out")
    proxy_connections: Count = Field(1024, description="connections of a sidecar to each process of the other side")
    proxy_pending: Annotated[Whole, Field(ge=0, le=100_000)] = Field(
        1024, description="calls that wait for one; more fail at once"
    )
    ejection: Retries = Field(
        5, description="failures in a row after which a sidecar leaves a process out; 0: it never does"
    )
    ejection_lasts: PositiveDuration = Field(5.0, description="for how long it does so, s")

    @classmethod
    def variants(cls) -> tuple[type[Parameters], ...]:
        return OnEnvoy, OnHaproxy

    @classmethod
    def variant(cls, values: Mapping[str, Any]) -> type[Parameters]:
        known = {str(one.stands_on()): one for one in cls.variants()}
        proxy = str(values.get("proxy", "envoy"))
        if proxy not in known:
            raise unknown("proxy", proxy, known)
        return known[proxy]

    @property
    def policy(self) -> Policy:
        """What the proxy does."""
        raise NotImplementedError


class OnEnvoy(ServiceMesh):
    """Sidecars that are Envoy (envoyproxy.io, "Outlier detection", "Circuit breaking"), configured by a control plane."""

    proxy: Literal["envoy"] = Field("envoy", description="the program that a sidecar is, and whose times it has")
    proxy_backoff: Duration = Field(
        0.025, description="before its first retry, doubled each time, drawn up to its length, s"
    )
    proxy_budget: Annotated[Number, Field(ge=0, le=100)] = Field(
        100.0, description="further tries that a call pays for, on average over a sidecar's calls"
    )
    max_ejected: Probability = Field(0.5, description="share of the processes that it leaves out at most")
    push_interval: PositiveDuration = Field(10.0, description="between two configurations from the control plane, s")
    push: Time = Field("5 ms", validate_default=True, description="CPU of a sidecar to take in a configuration")

    @property
    def policy(self) -> Policy:
        return Policy(self.proxy_backoff, self.proxy_budget, self.max_ejected, self.push_interval, self.push)


class OnHaproxy(ServiceMesh):
    """Sidecars that are HAProxy (haproxy.org, configuration manual 2.8: `retry-on`, `observe`, `on-error`): it tries again at once
    and as often as it may, leaves out whoever fails, and has the configuration that it began with."""

    proxy: Literal["haproxy"] = Field("haproxy", description="the program that a sidecar is, and whose times it has")

    @property
    def policy(self) -> Policy:
        return Policy(backoff=0.0, budget=100.0, max_ejected=1.0, push_interval=math.inf, push=Constant(value=0.0))


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
                breaker=Breaker(p.ejection, p.ejection_lasts, p.policy.max_ejected) if p.ejection else None,
            ) for part, sidecar in self.sidecars.items()
        }  # fmt: skip
        budgeted = p.policy.budget < p.proxy_retries
        self.proxy_budgets = {
            part: flow.budget(f"{sidecar.name}.retries", p.policy.budget)
            for part, sidecar in self.sidecars.items()
            if budgeted
        }
        if p.policy.push.mean_value:
            for sidecar in self.sidecars.values():
                configured = self.work(sidecar, {f"{sidecar.name}.push": p.policy.push})
                flow.actor(f"{sidecar.name}.push", sidecar, [every(p.policy.push_interval), *configured])

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
            policy = Backoff(p.proxy_retries, p.policy.backoff, jitter=True, budget=self.proxy_budgets.get(part))
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
