"""The load generator: sends requests at times drawn ahead, never waiting for answers, and stamps sends and answers.

A process of its own, so that nobody else's work or garbage collection delays a send; run by its path, it imports
nothing of the package. Its HTTP client does what the load needs and no more: its CPU time is taken from the services
under test.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import os
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import httptools

PATIENCE = 30.0
"""How long after the last send the driver waits for answers, s."""
_SLOWEST = 0.05
"""Time for each message that a run with a window may take, s."""
LEAD = 50_000_000
"""Time between the start and the first intended send, ns."""


class _TimeSpec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _TimerSpec(ctypes.Structure):
    _fields_ = (("interval", _TimeSpec), ("value", _TimeSpec))


class Timer:
    """Calls back at absolute monotonic times, to some tens of microseconds: asyncio's own timers round up to 1 ms.

    Linux's `timerfd` through ctypes (`os.timerfd_create` is there from Python 3.13 only). Elsewhere asyncio's timers
    wake a little early and the rest is spun away: as precise, at the cost of up to 1.5 ms of CPU for each send.
    """

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback, self.loop = callback, asyncio.get_running_loop()
        self.fd = -1
        if sys.platform == "linux":
            self.libc = ctypes.CDLL(None, use_errno=True)
            self.fd = self.libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
            self.loop.add_reader(self.fd, self._fired)

    def set(self, at: int) -> None:
        """Call back at this time, in ns."""
        if self.fd >= 0:
            spec = _TimerSpec(_TimeSpec(0, 0), _TimeSpec(*divmod(max(at, 1), 1_000_000_000)))
            self.libc.timerfd_settime(self.fd, 1, ctypes.byref(spec), None)
        else:
            self.loop.call_later(max(0.0, (at - time.monotonic_ns()) / 1e9 - 1.5e-3), self._spin, at)

    def close(self) -> None:
        """Call back no more."""
        if self.fd >= 0:
            self.loop.remove_reader(self.fd)
            os.close(self.fd)

    def _fired(self) -> None:
        os.read(self.fd, 8)
        self.callback()

    def _spin(self, at: int) -> None:
        while time.monotonic_ns() < at:
            pass
        self.callback()


class Connection(asyncio.Protocol):
    """A keep-alive connection with at most one request under way."""

    transport: asyncio.Transport

    def __init__(self, driver: Driver, port: int) -> None:
        self.driver, self.port, self.index = driver, port, -1
        self.body = b""
        self.parser = httptools.HttpResponseParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def send(self, index: int, request: bytes) -> None:
        """Send the request of the message `index`."""
        self.index, self.body = index, b""
        self.driver.sent[index] = time.monotonic_ns()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        index, self.index = self.index, -1
        self.driver.answered(index, self.parser.get_status_code(), self.body)
        self.parser = httptools.HttpResponseParser(self)
        self.driver.idle[self.port].append(self)

    def connection_lost(self, error: Exception | None) -> None:
        if self.index >= 0:
            self.driver.answered(self.index, HUNG_UP, b"")
        elif self in self.driver.idle[self.port]:
            self.driver.idle[self.port].remove(self)


REFUSED, HUNG_UP = -1, -2
"""In place of a status: nobody listens there; the connection was lost before the answer."""


class Driver:
    """Sends the requests of a plan: `requests` is a list of [time in s, port, path, body]."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self.requests = [(port, _encode(port, path, body)) for _, port, path, body in plan["requests"]]
        self.times = [at for at, *_ in plan["requests"]]
        n = len(self.requests)
        self.window: int | None = plan.get("window")
        self.told = set(plan.get("told", []))
        self.first: int = plan.get("first", 0)
        self.sent, self.responded, self.status, self.bodies = [0] * n, [0] * n, [0] * n, [""] * n
        self.completed = [0] * n
        self.left = n
        self.idle: dict[int, deque[Connection]] = {port: deque() for port, _ in self.requests}
        self.next = 0

    async def run(self, start: Callable[[], None], udp: socket.socket | None) -> None:
        """Open connections, call `start`, then send until all is answered or patience is over."""
        self.loop = asyncio.get_running_loop()
        self.done = self.loop.create_future()
        for port in self.idle:
            for _ in range(16):
                self.idle[port].append(await self._open(port))
        if udp:
            self.loop.add_reader(udp, self._told, udp)
        start()
        self.origin = time.monotonic_ns() + LEAD
        if self.window:
            for _ in range(min(self.window, len(self.requests))):
                self._fire()
        else:
            self.timer = Timer(self._due)
            self.timer.set(self._at(0))
        last = len(self.requests) * _SLOWEST if self.window else self.times[-1]
        try:
            await asyncio.wait_for(self.done, last + PATIENCE + LEAD / 1e9)
        except TimeoutError:
            pass

    def answered(self, index: int, status: int, body: bytes) -> None:
        """Stamp an answer; the last one ends the run."""
        self.responded[index], self.status[index], self.bodies[index] = time.monotonic_ns(), status, body.decode()
        if index not in self.told or self.completed[index] or status != 200:
            self._complete()

    def _at(self, index: int) -> int:
        return self.origin + round(self.times[index] * 1e9)

    def _due(self) -> None:
        n = len(self.requests)
        while self.next < n and self._at(self.next) <= time.monotonic_ns():
            self._fire()
        if self.next < n:
            self.timer.set(self._at(self.next))
        else:
            self.timer.close()

    def _fire(self) -> None:
        index = self.next
        self.next += 1
        port, request = self.requests[index]
        idle = self.idle[port]
        if idle:
            idle.pop().send(index, request)
        else:
            self.loop.create_task(self._connect(index, port, request))

    async def _connect(self, index: int, port: int, request: bytes) -> None:
        self.sent[index] = time.monotonic_ns()
        try:
            connection = await self._open(port)
        except OSError:
            self.answered(index, REFUSED, b"")
        else:
            connection.send(index, request)

    async def _open(self, port: int) -> Connection:
        return (await self.loop.create_connection(lambda: Connection(self, port), "127.0.0.1", port))[1]

    def _told(self, udp: socket.socket) -> None:
        index = int.from_bytes(udp.recv(4), "little", signed=True) - self.first
        if 0 <= index < len(self.completed) and not self.completed[index]:
            self.completed[index] = time.monotonic_ns()
            if index in self.told and self.status[index] == 200:
                self._complete()

    def _complete(self) -> None:
        self.left -= 1
        if self.window and self.next < len(self.requests):
            self._fire()
        if self.left == 0 and not self.done.done():
            self.done.set_result(None)


def _encode(port: int, path: str, body: str) -> bytes:
    content = body.encode()
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content


def prefer() -> bool:
    """Let sends go before the work of the services on the same cores, as if they came from another machine; whether
    that is granted: an ordinary user's sends can be late by a slice of the scheduler."""
    if sys.platform != "linux":
        return False
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        return False
    return True


def main() -> None:
    """Run the plan in the file of the first argument when standard input says so; the stamps go to the second file."""
    import uvloop

    plan = json.loads(Path(sys.argv[1]).read_text())
    driver = Driver(plan)
    preferred = prefer()
    udp = None
    if plan.get("completions"):
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        udp.bind(("127.0.0.1", plan["completions"]))
        udp.setblocking(False)

    def start() -> None:
        gc.collect()
        gc.freeze()
        gc.disable()
        print("ready", flush=True)
        sys.stdin.readline()

    uvloop.run(driver.run(start, udp))
    print("done", flush=True)
    stamps = {name: getattr(driver, name) for name in ("origin", "sent", "responded", "status", "bodies", "completed")}
    Path(sys.argv[2]).write_text(json.dumps({**stamps, "preferred": preferred}))
    sys.stdin.readline()


if __name__ == "__main__":
    main()
