"""The live engine: real services on real parts under the scenario's load, and what happened as a history.

It paces, stamps and supervises; what the services do stands in `architectures/*/live.py`. Linux is what it is made for;
elsewhere sends are paced by a spin and CPU times are coarser.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, cast

import numpy as np
import psutil
import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo
from pydantic import BaseModel

from simlib import draws
from simlib.brokers import Server, own, processes
from simlib.brokers.kafka import kafka
from simlib.brokers.nats import nats
from simlib.brokers.postgres import postgres
from simlib.brokers.rabbitmq import rabbitmq
from simlib.distributions import Constant
from simlib.domain import (
    ANNOUNCED,
    COPIED,
    COPY,
    COUNTED,
    DONE_AT,
    DONE_BY,
    ISSUED,
    KINDS,
    ORDER,
    RESERVE,
    RESPONSES,
    RESTOCKED,
    STOCK,
    STOCK_QUERY,
    STOCK_UPDATE,
    TAKEN,
    WINDOWS,
    undone,
)
from simlib.engines import machine
from simlib.engines.driver import LEAD
from simlib.engines.records import ANSWERED, BINS, DEAD_LETTERED, REJECTED, SUPERSEDED, Records
from simlib.errors import BadInput, RunFailed
from simlib.history import History
from simlib.metrics import middle_rate
from simlib.scenario import (
    HANDLER_FAILURE,
    HANDLER_WORK,
    POISON,
    STEP_REFUSED,
    STEP_UNHEARD,
    UNDOING_FAILED,
    Arrivals,
    Crash,
    Poison,
    Scenario,
)

STARTS: dict[str, Callable[[], AbstractContextManager[Server]]] = {
    "postgres": postgres,
    "nats": nats,
    "rabbitmq": rabbitmq,
    "kafka": kafka,
}
"""How each real part is found or started."""
DRAINS_WITHIN = 30.0
"""How long after the last answer a run waits until all is quiet, s (or the scenario's horizon, if that is shorter)."""
READABLE = "/var/tmp"
"""Where servers beside the processes have their files: Envoy reads none in /dev/shm, where temporary ones may be."""
LOOKED_AFTER = 0.5
"""How often it is seen during a run whether all services stand, s."""
UNDER_WAY = 64
"""Messages that are always under way where saturation is measured."""
ATTEMPTS = 8
"""Attempts whose handler work, failure and refusal are drawn ahead; later ones repeat the last."""
ANNOUNCEMENT_WORK = "announcement_work"
SIDES = ("accounting", "shop")
COUNTING = ("nats", "rabbitmq")
"""Brokers that say how often they have handed out a message."""
_ENTRY = {STOCK_UPDATE: ("accounting", "/updates"), ORDER: ("shop", "/orders"), STOCK_QUERY: ("shop", "/queries")}
_STORE = {ISSUED: STOCK, COPIED: COPY, ANNOUNCED: COPY, RESTOCKED: COPY, COUNTED: WINDOWS}
_STORE |= {name: store for effect, store in DONE_BY.values() for name in (effect, undone(effect))}
_STAGE = {ISSUED: "accounting.change", COPIED: "shop.write", ANNOUNCED: "shop.write", RESTOCKED: "shop.restock"}
_STAGE |= {COUNTED: "windows.count"}
_STAGE |= {effect: f"{DONE_AT[step]}.{step}" for step, (effect, _) in DONE_BY.items()} | {TAKEN: "accounting.take"}
_STAGE |= {undone(effect): f"{DONE_AT[step]}.{step}.undo" for step, (effect, _) in DONE_BY.items()}
_HANDED = ("delivery", "relay", "export")
"""Stages that begin when a queue hands a message out: a broker's, an outbox, what is registered for a file."""
_TRIED = ("call", "publish", "load")
"""Stages that each try of a message begins with at the side that issued it."""
_CALLER = {STOCK_UPDATE: "accounting", ORDER: "shop", STOCK_QUERY: "shop"}
_RESPONSES = {200: "ok", 409: "refused", 504: "timed_out", -2: "timed_out"}


class Twin(Protocol):
    """What the engine needs of an architecture's module `live`, which it runs as the program of both sides.

    It may also have `MEASURED`, the parameters that it is measured with where those are not the defaults; `UNDER_WAY`, how many
    messages keep it busy all the time; `drains_within`, a function of the parameters: see the constants of these names. Where
    some of its programs run with some parameters only, `programs` is a function of them that names those; `FURTHER` are programs
    that run as well where orders go through several steps.

    Where servers stand beside each process of the two sides, `BESIDE` names them as the model's parts are ("sidecar"), and
    `beside(folder, ports, parameters)` is a context in which they run beside the processes on these ports: servers by name
    ("shop.sidecar").
    """

    __name__: str
    PARTS: tuple[str, ...]
    PROGRAMS: tuple[str, ...]
    READ_FROM: str
    SCHEMA: str
    SIMULATED: tuple[str, ...]


@dataclass
class Service:
    """One side's process."""

    program: processes.Program
    port: int

    def get(self, path: str) -> Any:
        """The JSON that the service answers; raises OSError where it does not."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as answer:
            return json.load(answer)


class Bench:
    """The parts and services of one architecture, running, for any number of runs one after another, of orders that go through
    this process.

    Raises MissingPart where a real part is absent, BadInput where one cannot be used.
    """

    def __init__(self, twin: Twin, parameters: BaseModel, process: str = "simple") -> None:
        for name in twin.SIMULATED:
            if getattr(parameters, name) != type(parameters).model_fields[name].default:
                raise BadInput(f"parameter '{name}' is of the model alone: leave it at its default in a live run")
        self.twin, self.parameters, self.process = twin, parameters.model_dump(mode="json"), process
        if "broker" in self.parameters:
            own.require(self.parameters["broker"])
            self.parameters["broker"] = own.kind(self.parameters["broker"])
        self.broker = broker_of(self.parameters)
        self.drains_within: float = getattr(twin, "drains_within", lambda _: DRAINS_WITHIN)(self.parameters)
        self.services: dict[str, Service] = {}
        self.servers: dict[str, Server] = {}
        self.databases: dict[str, str] = {}
        self.gone: dict[str, float] = defaultdict(float)
        """CPU time of the processes that were killed, by name, s."""
        self.quiet = True
        """Whether the last run came to rest."""
        self.numbered = 0
        """Messages so far: numbers are never used twice, so that nothing takes a message for one of an earlier run."""

    def __enter__(self) -> Bench:
        with ExitStack() as stack:
            stack.enter_context(processes.interruptible())
            beside = getattr(self.twin, "beside", None)
            self.folder = stack.enter_context(processes.folder({}, READABLE if beside else None))
            for part in dict.fromkeys([*self.twin.PARTS, *([self.broker] if self.broker else [])]):
                self.servers[part] = stack.enter_context(STARTS[part]())
            prefix = f"simlib_{os.getpid()}_{time.monotonic_ns()}"
            stack.enter_context(self._databases(prefix))
            ports = {name: processes.free_port() for name in running(self.twin, self.parameters, self.process)}
            if beside:
                of_sides = {name: ports[name] for name in running(self.twin, self.parameters)}
                self.servers |= stack.enter_context(beside(self.folder, of_sides, self.parameters))
            self.completions = processes.free_port()
            config = {
                "ports": ports,
                "databases": self.databases,
                "servers": {part: server.url for part, server in self.servers.items()},
                "folder": str(self.folder),
                "prefix": prefix,
                "parameters": self.parameters,
                "completions": self.completions,
            }
            stack.callback(self._stop)
            for name, port in ports.items():
                own = {"side": name.partition(".")[0], "process": name}
                (self.folder / f"{name}.json").write_text(json.dumps({**config, **own}))
                service = self._service(name, port)
                service.program.launch()
                self.services[name] = service
            for service in self.services.values():
                service.program.wait()
            self._same_clock()
            self._warm_up()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._stack.close()
        if isinstance(error, psycopg.OperationalError):
            raise RunFailed(f"postgres must run for as long as the run lasts, but {error}") from None

    def run(
        self, scenario: Scenario, seed: int, messages: int | None = None, meta: Mapping[str, Any] = MappingProxyType({})
    ) -> History:
        """One run of the scenario: pace its arrivals, drain, collect; `meta` goes into the history with what is found.

        Raises BadInput for a fault that cannot be made live.
        """
        _fits(self.twin, scenario)
        crashes = _crashes(scenario, parts(self.twin, self.parameters, self.process))
        for _, crash in crashes:
            self._program(crash.part)
        self._standing()
        arrivals = scenario.draw(seed, messages)
        load = self._load(scenario, arrivals, seed)
        self._reset(scenario.stock())
        run = self._drive({"requests": load}, crashes)
        if not crashes:
            self._standing()
        quiet = self._drain(min(self.drains_within, scenario.horizon))
        if not crashes:
            self._standing()
        stamps = self._stamps()
        records = self._records(scenario, arrivals, run, stamps, quiet)
        self.numbered += len(arrivals)
        ended = max(time.monotonic_ns() - run.origin, 0) / 1e9
        return records.history(ended, {**meta, **self._meta(scenario, seed, arrivals, run, quiet)}, [*DONE_BY.values()])

    def saturation(
        self, scenario: Scenario, seed: int, messages: int, window: int | None = None
    ) -> tuple[float, dict[str, Any]]:
        """Completions a second while always `window` messages are under way (the twin's number if None), by `metrics.middle_rate`,
        and the CPU time that it took (see `Run.usage`).

        Complete is a message that is answered and, where it has an effect, applied. Raises RunFailed if one never is.
        """
        arrivals = scenario.draw(seed, messages)
        load = self._load(scenario, arrivals, seed)
        self._reset(scenario.stock())
        changing = np.flatnonzero(arrivals.kind != KINDS.index(STOCK_QUERY)).tolist()
        plan = {
            "requests": load,
            "window": window or under_way(self.twin),
            "told": changing,
            "completions": self.completions,
            "first": self.numbered,
        }
        run = self._drive(plan, [])
        self._drain(self.drains_within)
        self._standing()
        self._stamps()
        self.numbered += len(arrivals)
        answered = np.array(run.status) == 200
        missing = int((run.responded == 0).sum() + (answered[changing] & (run.completed[changing] == 0)).sum())
        if missing:
            raise RunFailed(f"{missing} of {messages} messages were never complete: give longer time-outs")
        return middle_rate(np.maximum(run.responded, run.completed) / 1e9), run.usage

    # What a run is made of.

    def _load(self, scenario: Scenario, arrivals: Arrivals, seed: int) -> list[list[Any]]:
        """The driver's requests: time, port, path, body, with the handler work and failures drawn ahead."""
        handling = self._handling(scenario, seed, HANDLER_WORK)
        announcing = self._handling(scenario, seed, ANNOUNCEMENT_WORK)
        poisoned = _poisoned(scenario, arrivals, seed)
        load = []
        for i, kind in enumerate(arrivals.kind.tolist()):
            side, path = _ENTRY[KINDS[kind]]
            body: dict[str, Any] = {"message": self.numbered + i, "sku": int(arrivals.sku[i])}
            body["handling"], body["session"] = handling(i), int(arrivals.session[i])
            if poisoned[i]:
                body["handling"]["fails"] = [True] * ATTEMPTS
            if KINDS[kind] == STOCK_UPDATE:
                body["change"] = int(arrivals.quantity[i])
            elif KINDS[kind] == ORDER:
                body["quantity"] = int(arrivals.quantity[i])
                body["announcing"] = announcing(i)
                if several(self.twin, self.process):
                    body["steps"] = {step: self._step(scenario, seed, step, i, poisoned[i]) for step in scenario.steps}
            load.append([float(arrivals.issued[i]), self.services[side].port, path, json.dumps(body)])
        return load

    def _handling(self, scenario: Scenario, seed: int, stream: str) -> Callable[[int], dict[str, list[Any]]]:
        """The work and the failures of a handler, by attempt, for a message: drawn where the model draws them."""
        uniforms = draws.stream_key(seed, f"{HANDLER_FAILURE}.{stream}")
        work = _by_attempt(scenario.handler_work.draw(draws.stream_key(seed, stream)))
        failure = _by_attempt(lambda place: draws.uniform(uniforms, place))
        return lambda message: {
            "work": work(message),
            "fails": [u < scenario.handler_failure for u in failure(message)],
        }

    def _step(self, scenario: Scenario, seed: int, step: str, message: int, poisoned: bool) -> dict[str, Any]:
        """What is drawn ahead of a step of an order: its work, whether it is refused, unheard, and undone in vain, by attempt."""

        def happens(probability: float, stream: str) -> list[bool]:
            key = draws.stream_key(seed, f"{stream}.{step}")
            return [u < probability for u in _by_attempt(lambda place: draws.uniform(key, place))(message)]

        work = HANDLER_WORK if step == RESERVE else f"{HANDLER_WORK}.{step}"
        handling, undoing = (self._handling(scenario, seed, stream)(message) for stream in (work, f"{work}.undo"))
        vain = happens(scenario.undoing_failed, UNDOING_FAILED)
        undoing["fails"] = [one or other for one, other in zip(undoing["fails"], vain, strict=True)]
        if poisoned:
            handling["fails"] = undoing["fails"] = [True] * ATTEMPTS
        return {
            "handling": handling,
            "refused": happens(scenario.step_refused, STEP_REFUSED),
            "unheard": happens(scenario.step_timed_out, STEP_UNHEARD),
            "undoing": undoing,
        }

    def _drive(self, plan: Mapping[str, Any], crashes: Sequence[tuple[float, Crash]]) -> Run:
        """Let the driver send a plan's requests, and strike the crashes meanwhile."""
        path, result, log = (self.folder / name for name in ("plan.json", "stamps.json", "driver.log"))
        path.write_text(json.dumps(plan))
        result.unlink(missing_ok=True)
        command = [sys.executable, "-P", str(Path(__file__).with_name("driver.py")), str(path), str(result)]
        with log.open("ab") as errors:
            driver = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True
            )
        try:
            assert driver.stdin and driver.stdout
            if driver.stdout.readline() != "ready\n":
                self._serving()
                raise RunFailed(f"the load generator ended early: {processes.last_words(log)}")
            before = self._cpu(driver.pid)
            driver.stdin.write("start\n")
            driver.stdin.flush()
            started = time.monotonic_ns() + LEAD
            struck = self._strike(crashes, started, driver)
            after = self._cpu(driver.pid)
            driver.stdin.close()
            if driver.wait(processes.STOPS_WITHIN):
                raise RunFailed(f"the load generator failed: {processes.last_words(log)}")
            return Run.read(result, _usage(before, after), struck)
        finally:
            processes.stop(cast("subprocess.Popen[bytes]", driver))

    def _strike(
        self, crashes: Sequence[tuple[float, Crash]], started: int, driver: subprocess.Popen[str]
    ) -> list[Struck]:
        """Kill and restart what the scenario says until the driver is done."""
        done = threading.Event()

        def over(within: float) -> bool:
            """Whether the driver is done within so many seconds, while all services stand."""
            deadline = time.monotonic() + within
            while not done.wait(max(0.0, min(LOOKED_AFTER, deadline - time.monotonic()))):
                self._serving()
                if time.monotonic() >= deadline:
                    return False
            return True

        out = driver.stdout
        assert out

        def listen() -> None:
            out.readline()
            done.set()

        threading.Thread(target=listen, daemon=True).start()
        struck = []
        for at, crash in crashes:
            if over(at - (time.monotonic_ns() - started) / 1e9):
                break
            program = self._program(crash.part)
            for name, those in self._processes().items():
                if program.process.pid in [process.pid for process in those]:
                    self.gone[name] += machine.cpu_seconds(those)
            fell = program.kill()
            over(crash.restart.mean_value)
            struck.append(Struck(crash.part, fell, program.start()))
        over(math.inf)
        return struck

    def last_words(self) -> str:
        """What the services said last, for an error message of one line."""
        said = {name: processes.last_words(service.program.log) for name, service in self.services.items()}
        return ", ".join(f"{name}: {words}" for name, words in said.items())

    def _standing(self) -> None:
        """Raise RunFailed where a part that nobody meant to kill is gone."""
        for name, server in self.servers.items():
            if why := server.gone():
                raise RunFailed(f"{name} must run for as long as the run lasts, but {why}: start it again, and the run")

    def _serving(self) -> None:
        """Raise RunFailed where a service has ended by itself."""
        for name, service in self.services.items():
            if (status := service.program.ended()) is not None:
                said = processes.last_words(service.program.log)
                raise RunFailed(
                    f"the {name} service must run for as long as the run lasts, but ended with status {status}: {said}"
                )

    def _program(self, part: str) -> processes.Program:
        """What runs as a part of the model: a process of the twin, what stands beside one, or the broker."""
        if part in self.services:
            return self.services[part].program
        server = self.servers[self.broker if part == "broker" and self.broker else part]
        if server.program is None:
            raise BadInput(f"the broker is the one that {server.part.where} names, not ours to kill: unset it")
        return server.program

    def _drain(self, limit: float) -> bool:
        """Wait until nothing is at work any more, for at most `limit` s; whether it is quiet."""
        deadline, quiet = time.monotonic() + limit, 0
        while quiet < 2 and time.monotonic() < deadline:
            self._serving()
            quiet = quiet + 1 if all(self._pending(program) == 0 for program in self.services) else 0
            time.sleep(0.01)
        self.quiet = quiet >= 2
        return self.quiet

    def _pending(self, side: str) -> int:
        try:
            return int(self.services[side].get("/pending"))
        except OSError:
            return -1

    def _stamps(self) -> list[tuple[int, str, int, int, int, str]]:
        stamps = []
        for service in self.services.values():
            stamps += service.get("/stamps")
        return [tuple(stamp) for stamp in stamps]

    def _records(
        self,
        scenario: Scenario,
        arrivals: Arrivals,
        run: Run,
        stamps: list[tuple[int, str, int, int, int, str]],
        quiet: bool,
    ) -> Records:
        """What happened, from the driver's stamps, the services' stamps, and the rows in both databases."""
        base, n = self.numbered, len(arrivals)
        width = float(arrivals.issued[-1]) / BINS or 1.0
        records = Records(arrivals, list(KINDS), width)

        def seconds(at: int) -> float:
            return (at - run.origin) / 1e9

        for i, kind in enumerate(arrivals.kind.tolist()):
            if run.sent[i]:
                records.attempt_rows.append((i, "driver", 1, records.issued[i], seconds(run.sent[i]), "ok"))
            if not run.responded[i]:
                continue
            response = _RESPONSES.get(run.status[i], "failed")
            records.respond(i, seconds(run.responded[i]), RESPONSES.index(response))
            records.attempt_rows.append((i, "request", 1, seconds(run.sent[i]), seconds(run.responded[i]), response))
            if KINDS[kind] == STOCK_QUERY and response == "ok":
                shown = json.loads(run.bodies[i])
                records.noted[i] |= ANSWERED
                records.version[i], records.answer[i] = shown["version"], shown["level"]
                records.read_from[i] = self.twin.READ_FROM
        ends: dict[tuple[int, str, int], list[int]] = defaultdict(list)
        handed: dict[tuple[int, str], int] = defaultdict(int)
        for message, block, attempt, start, end, result in stamps:
            i = message - base
            if not 0 <= i < n:
                continue
            side, _, stage = block.partition(".")
            records.attempt_rows.append((i, block, attempt, seconds(start), seconds(end), result))
            ends[i, block, attempt].append(end)
            issuing = _CALLER[KINDS[arrivals.kind[i]]] == side
            if stage in _TRIED and issuing:
                records.attempts[i] = max(records.attempts[i], attempt)
            elif stage in _HANDED:
                handed[i, side] += 1
        self._effects(records, run, ends, handed)
        for (i, _), times in handed.items():
            records.deliveries[i] += times
        for i, told in enumerate(records.response):
            if told == RESPONSES.index("refused") and not records.noted[i]:
                records.noted[i] |= REJECTED  # by the caller's own side, which keeps no record of it
        if not quiet:
            records.alive = [1] * n
        for one in run.struck:
            records.fault_rows.append(("crash", one.part, seconds(one.fell[0]), seconds(one.stood[1]), -1))
        records.attempt_rows.sort(key=lambda row: (row[3], row[0]))
        return records

    def _effects(
        self,
        records: Records,
        run: Run,
        ends: Mapping[tuple[int, str, int], Sequence[int]],
        handed: dict[tuple[int, str], int],
    ) -> None:
        """Note the rows that both databases hold. Their time is that of the commit as its client saw it, or, where that
        stamp died with the client, of the transaction's start. A message was `handed` to a side as often at least as the
        broker says: there too the stamps may be gone."""
        rows: list[tuple[int, int, str, int, int, int, int]] = []
        newest: dict[tuple[str, str, int], int] = defaultdict(int)
        for side, database in self.databases.items():
            with psycopg.connect(database) as connection:
                ours = (self.numbered,)  # and not of an earlier run that was not over
                found = connection.execute("SELECT * FROM effects WHERE message >= %s ORDER BY nth", ours)
                for message, effect, sku, version, change, at, delivery, _ in found:
                    i = message - self.numbered
                    if effect in _STAGE:
                        # A client can hear of its commit after the next one of the same SKU heard of its own.
                        committed = (end for end in ends.get((i, _STAGE[effect], delivery), ()) if end >= at)
                        kept = side, _STORE[effect], sku
                        newest[kept] = at = max(min(committed, default=at), newest[kept])
                        rows.append((at, i, effect, sku, version, change, delivery))
                        if effect != ISSUED and self.broker in COUNTING:
                            handed[i, side] = max(handed[i, side], delivery)
                    else:
                        records.noted[i] |= REJECTED if effect == "rejected" else SUPERSEDED
                for message, effect in connection.execute(
                    "SELECT message, effect FROM parked WHERE message >= %s", ours
                ):
                    if effect != ANNOUNCED:
                        records.noted[message - self.numbered] |= DEAD_LETTERED
        for at, i, effect, sku, version, change, delivery in sorted(rows, key=lambda row: row[0]):
            records.effect(i, effect, _STORE[effect], sku, version, change, (at - run.origin) / 1e9, delivery)
            if effect in (ISSUED, TAKEN) and records.version[i] < 0:
                records.version[i] = version

    def _meta(self, scenario: Scenario, seed: int, arrivals: Arrivals, run: Run, quiet: bool) -> dict[str, Any]:
        lag = (run.sent[run.sent > 0] - run.origin) / 1e9 - arrivals.issued[run.sent > 0]
        return {
            "engine": "live",
            "seed": seed,
            "process": scenario.process,
            "messages": len(arrivals),
            "issuing_ends": float(arrivals.issued[-1]),
            "quiet": quiet,
            "struck": [one.seconds(run.origin) for one in run.struck],
            "machine": machine.describe(),
            "server_versions": {name: server.part.version for name, server in self.servers.items()},
            **run.usage,
            "send_preferred": run.preferred,
            "send_lag_p50": float(np.quantile(lag, 0.5)),
            "send_lag_p99": float(np.quantile(lag, 0.99)),
        }

    # What stands around the runs.

    @contextmanager
    def _databases(self, prefix: str) -> Iterator[None]:
        """A database of its own for each program, dropped at the end."""
        server = self.servers["postgres"].url
        names = {program: f"{prefix}_{program}" for program in programs(self.twin, self.parameters, self.process)}
        try:
            with psycopg.connect(server, autocommit=True) as connection:
                for name in names.values():
                    connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        except psycopg.errors.InsufficientPrivilege:
            raise BadInput(
                "the user of SIMLIB_POSTGRES_URL must be allowed to create databases: grant CREATEDB"
            ) from None
        try:
            for side, name in names.items():
                self.databases[side] = make_conninfo(server, dbname=name)
                with psycopg.connect(self.databases[side]) as connection:
                    connection.execute(self.twin.SCHEMA)
            yield
        finally:
            with suppress(psycopg.OperationalError), psycopg.connect(server, autocommit=True) as connection:
                for name in names.values():
                    connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def _reset(self, stock: np.ndarray) -> None:
        """All know the initial stock, as version 0, and nothing else. Programs that were not quiet begin anew: what a run left
        undone is in their memory, and on its way between them."""
        programs = [] if self.quiet else [service.program for service in self.services.values()]
        if programs:
            self._stop()
        for url in self.databases.values():
            with psycopg.connect(url) as connection:
                connection.execute("SELECT start_over(%s)", (stock.tolist(),))
        for program in programs:
            program.launch()
        for program in programs:
            program.wait()

    def _stop(self) -> None:
        """End all services side by side: each may have something to wait for."""
        with ThreadPoolExecutor() as threads:
            list(threads.map(lambda service: service.program.stop(), self.services.values()))

    def _service(self, side: str, port: int) -> Service:
        """A process of a side, which is ready when it answers, and so does what it stands on."""
        command = [sys.executable, "-m", self.twin.__name__, str(self.folder / f"{side}.json")]
        log = self.folder / f"{side}.log"
        return Service(processes.Program(f"the {side} service", command, log, lambda: self._pending(side) >= 0), port)

    def _same_clock(self) -> None:
        """Raise BadInput where a service stamps by another clock than this process, whose clock the load generator's is."""
        for name, service in self.services.items():
            before, there, after = time.monotonic_ns(), int(service.get("/clock")), time.monotonic_ns()
            if not before <= there <= after:
                off = (there - after) / 1e9
                raise BadInput(
                    f"the monotonic clock of the {name} service must be that of the load generator, but is {off:+.3g} s off: "
                    "run both on one machine, in one time namespace"
                )

    def _warm_up(self) -> None:
        """A few dozen messages of each kind, of which nothing is kept: imports, prepared plans, open connections."""
        from simlib.scenario import load_scenario

        process = "fulfilment" if several(self.twin, self.process) else "simple"
        scenario = load_scenario("steady").with_rate(100.0).model_copy(update={"process": process})
        arrivals = scenario.draw(0, 100)
        self._reset(scenario.stock())
        self._drive({"requests": self._load(scenario, arrivals, 0), "window": 4}, [])
        self._drain(self.drains_within)
        self._stamps()
        self.numbered += len(arrivals)

    def _cpu(self, driver: int) -> Cpu:
        ours = self._processes() | {"driver": [psutil.Process(driver)], "supervisor": [psutil.Process()]}
        busy = machine.Busy.now()
        spent = {name: machine.cpu_seconds(those) + self.gone[name] for name, those in ours.items()}
        return Cpu(time.monotonic(), spent, busy)

    def _processes(self) -> dict[str, list[psutil.Process]]:
        """The processes of each server and service."""
        ours = {name: server.processes() for name, server in self.servers.items()}
        return ours | {name: [psutil.Process(service.program.process.pid)] for name, service in self.services.items()}


@dataclass(frozen=True)
class Cpu:
    """CPU time so far by process and of the machine, s, at a time (monotonic, s)."""

    at: float
    cpu: dict[str, float]
    machine: machine.Busy


def _usage(before: Cpu, after: Cpu) -> dict[str, Any]:
    wall = after.at - before.at
    spent = {name: after.cpu[name] - before.cpu[name] for name in before.cpu}
    work = after.machine.work - before.machine.work
    return {
        "wall": wall,
        "cpu_seconds": spent,
        "foreign_cpu": max(0.0, (work - sum(spent.values())) / wall),
        "steal": (after.machine.steal - before.machine.steal) / wall,
    }


@dataclass(frozen=True)
class Struck:
    """A part that was killed: between which times it ended, and between which it was ready again (monotonic, ns)."""

    part: str
    fell: tuple[int, int]
    stood: tuple[int, int]

    def seconds(self, origin: int) -> dict[str, Any]:
        """The same in seconds of the run."""
        times = {name: [(at - origin) / 1e9 for at in getattr(self, name)] for name in ("fell", "stood")}
        return {"part": self.part, **times}


@dataclass(frozen=True)
class Run:
    """The driver's stamps (ns, 0 where it did not happen; arrays of shape (n,)), statuses and bodies of the answers."""

    origin: int
    preferred: bool
    """Whether the sends went before other work on the same cores (`driver.prefer`)."""
    sent: np.ndarray
    responded: np.ndarray
    completed: np.ndarray
    status: list[int]
    bodies: list[str]
    usage: dict[str, Any]
    """CPU time of each process (`cpu_seconds`, over `wall` s), and in cores, what other processes took (`foreign_cpu`)
    and what the hypervisor gave away (`steal`)."""
    struck: list[Struck]

    @classmethod
    def read(cls, path: Path, usage: dict[str, Any], struck: list[Struck]) -> Run:
        """From the file that the driver wrote."""
        data = json.loads(path.read_text())
        stamps = {name: np.array(data[name], np.int64) for name in ("sent", "responded", "completed")}
        return cls(
            data["origin"],
            data["preferred"],
            **stamps,
            status=data["status"],
            bodies=data["bodies"],
            usage=usage,
            struck=struck,
        )


def perform(
    twin: Twin,
    parameters: BaseModel,
    scenario: Scenario,
    seed: int,
    messages: int | None = None,
    meta: Mapping[str, Any] = MappingProxyType({}),
) -> History:
    """Run a scenario on the real thing: start parts and services, send, drain, collect, stop.

    Raises MissingPart, BadInput (see `Bench`) and RunFailed where the load generator fails.
    """
    _fits(twin, scenario)
    _crashes(scenario, parts(twin, parameters.model_dump(mode="json"), scenario.process))
    with Bench(twin, parameters, scenario.process) as bench:
        return bench.run(scenario, seed, messages, meta)


def _by_attempt(draw: Callable[[int], float]) -> Callable[[int], list[float]]:
    """The draws of a message's attempts, at the places of the flow's `by_attempt`."""
    return lambda message: [float(draw(draws.fold(draws.fold(0, message), k))) for k in range(ATTEMPTS)]


def _poisoned(scenario: Scenario, arrivals: Arrivals, seed: int) -> np.ndarray:
    """Which messages fail at every attempt, shape (n,)."""
    uniforms = draws.uniforms(draws.stream_key(seed, POISON), len(arrivals), 0)
    poisoned = np.zeros(len(arrivals), bool)
    for fault in scenario.faults:
        if isinstance(fault, Poison):
            poisoned |= (arrivals.kind == KINDS.index(fault.kind)) & (uniforms < fault.probability)
    return poisoned


def under_way(twin: Twin) -> int:
    """How many messages are always under way where the twin's saturation is measured."""
    return getattr(twin, "UNDER_WAY", UNDER_WAY)


def further(twin: Twin, process: str) -> tuple[str, ...]:
    """The programs that run as well where orders go through a process."""
    named: tuple[str, ...] = getattr(twin, "FURTHER", ())
    return () if process == "simple" else named


def several(twin: Twin, process: str) -> bool:
    """Whether a twin has then the services for orders of several steps."""
    return set(DONE_AT.values()) <= {*twin.PROGRAMS, *further(twin, process)}


def _fits(twin: Twin, scenario: Scenario) -> None:
    """Raises BadInput where a twin cannot do the scenario's orders."""
    if scenario.process != "simple" and not several(twin, scenario.process):
        raise BadInput(
            f"this twin does orders in one step, scenario '{scenario.name}' has process: {scenario.process}: simulate it"
        )


def programs(twin: Twin, parameters: Mapping[str, Any], process: str = "simple") -> tuple[str, ...]:
    """The programs of a twin that run with these parameters, for orders that go through this process."""
    chosen: Callable[[Mapping[str, Any]], tuple[str, ...]] = getattr(twin, "programs", lambda _: twin.PROGRAMS)
    return chosen(parameters) + further(twin, process)


def running(twin: Twin, parameters: Mapping[str, Any], process: str = "simple") -> list[str]:
    """The processes of a twin, as the model's parts are called: where `processes` is live, a side has several, on one database."""
    count = 1 if "processes" in twin.SIMULATED else parameters.get("processes", 1)
    named = programs(twin, parameters, process)
    return [*named, *(f"{side}.{number}" for side in SIDES for number in range(2, count + 1))]


def broker_of(parameters: Mapping[str, Any]) -> str | None:
    """The real part that is the model's broker, of the kind that the parameters name; None where there is none."""
    return own.kind(parameters["broker"]) if "broker" in parameters else None


def parts(twin: Twin, parameters: Mapping[str, Any], process: str = "simple") -> list[str]:
    """The parts of the model that can be killed live."""
    names = running(twin, parameters, process)
    beside = [f"{name}.{what}" for name in running(twin, parameters) for what in getattr(twin, "BESIDE", ())]
    return [*names, *beside, *(["broker"] if broker_of(parameters) else [])]


def _crashes(scenario: Scenario, parts: Sequence[str]) -> list[tuple[float, Crash]]:
    """When which part is to be killed; raises BadInput for a fault that cannot be made live."""
    crashes = []
    for fault in scenario.faults:
        if isinstance(fault, Poison):
            continue
        timed = isinstance(fault, Crash) and fault.at and isinstance(fault.restart, Constant)
        if not isinstance(fault, Crash) or not timed or fault.part not in parts:
            which = f" of {fault.part}{'' if timed else ' at no given time'}" if isinstance(fault, Crash) else ""
            raise BadInput(
                f"the live engine knows the faults poison and crash (of {' or '.join(parts)}, at given times), "
                f"got a {fault.fault}{which}: take another scenario or --engine simpy"
            )
        crashes += [(at, fault) for at in fault.at]
    return sorted(crashes, key=lambda pair: pair[0])
