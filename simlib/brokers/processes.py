"""Start and stop the processes of a live run: on free loopback ports, in folders of their own, by their process id."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from simlib.errors import BadInput

GUARD = Path(__file__).with_name("guard.py")
PORTS = range(16384, 32768)
"""Of which no system gives one to a connection that asks for none: Linux has those from 32768 on for that, macOS from 49152."""
STARTS_WITHIN = 30.0
"""How long a part may take to answer after its start, s."""
ASKED_EVERY = 0.005
"""How long a part that was not ready is left alone until it is asked again, s."""
STOPS_WITHIN = 10.0
"""How long a part may take to stop before it is killed, s."""


def free_port() -> int:
    """A TCP port that nobody listens on at 127.0.0.1, and that no connection has before its program listens there."""
    while True:
        port = secrets.choice(PORTS)
        with socket.socket() as s, suppress(OSError):
            s.bind(("127.0.0.1", port))
            return port


def listens(port: int) -> bool:
    """Whether somebody listens on a TCP port at 127.0.0.1."""
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


def unprivileged() -> dict[str, Any]:
    """Arguments of `subprocess.Popen` that make root start a program as the user `nobody`; none for other users."""
    if os.name != "posix" or os.geteuid() != 0:
        return {}
    import pwd

    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


@contextmanager
def folder(owner: Mapping[str, Any], within: str | None = None) -> Iterator[Path]:
    """A new temporary folder of the user in `owner` (see `unprivileged`), removed at the end with all that is in it; `within` that
    for temporary files if None.

    A guard does that, which also ends the processes that still work there: when the block ends, or this process is killed.
    """
    path = Path(tempfile.mkdtemp(prefix="simlib-", dir=within))
    guard = subprocess.Popen([sys.executable, str(GUARD), str(path)], stdin=subprocess.PIPE, start_new_session=True)
    try:
        if owner:
            os.chown(path, owner["user"], owner["group"])
        yield path
    finally:
        guard.communicate()


def start(command: Sequence[str], log: Path, **options: Any) -> subprocess.Popen[bytes]:
    """Start a program that Ctrl-C in the terminal does not reach; its output goes to the file `log`."""
    with log.open("ab") as out:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True, **options
        )


def stop(process: subprocess.Popen[bytes], by: signal.Signals = signal.SIGTERM) -> None:
    """End a process by its id: politely, then, where it does not listen, by force."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGCONT)
    process.send_signal(by)
    try:
        process.wait(STOPS_WITHIN)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Program:
    """A server's program, running for as long as a `with` block lasts; it can be killed in it, and started again.

    Raises BadInput where it ends before it is `ready`, or takes too long; `by` is the signal that ends it politely.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        ready: Callable[[], bool],
        by: signal.Signals = signal.SIGTERM,
        **options: Any,
    ) -> None:
        self.name, self.command, self.log, self.ready, self.by, self.options = name, command, log, ready, by, options

    def __enter__(self) -> Program:
        self.launch()
        try:
            self.wait()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *raised: object) -> None:
        self.stop()

    def start(self) -> tuple[int, int]:
        """Start it, and wait until it is ready; see `wait`."""
        self.launch()
        return self.wait()

    def launch(self) -> None:
        """Start it."""
        self.killed = False
        self.process = start(self.command, self.log, **self.options)

    def wait(self) -> tuple[int, int]:
        """Wait until it is ready: when it was last found not to be, and when it was asked and said so (monotonic, ns)."""
        return wait_until(self.ready, self.process, self.name, self.log)

    def stop(self) -> None:
        """End it politely, then by force."""
        stop(self.process, self.by)

    def kill(self) -> tuple[int, int]:
        """End it at once, as SIGKILL does; between which times it ended (monotonic, ns)."""
        before = time.monotonic_ns()
        self.killed = True
        self.process.kill()
        self.process.wait()
        return before, time.monotonic_ns()

    def ended(self) -> int | None:
        """The status with which it ended by itself; None where it runs, or was killed."""
        return None if self.killed else self.process.poll()


def last_words(log: Path) -> str:
    """The last line that a program wrote, for an error message of one line."""
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.exists() else []
    return next((" ".join(line.split())[:200] for line in reversed(lines) if line.strip()), "it said nothing")


def wait_until(ready: Callable[[], bool], process: subprocess.Popen[bytes], name: str, log: Path) -> tuple[int, int]:
    """Wait until a started program is `ready`: when it was last found not to be, and when it was asked and said so (monotonic,
    ns): its answer may take a while.

    Raises BadInput where it ends before or takes too long.
    """
    deadline = time.monotonic() + STARTS_WITHIN
    before = asked = time.monotonic_ns()
    while not ready():
        if process.poll() is not None:
            raise BadInput(f"{name} must run, but ended with status {process.returncode}: {last_words(log)}")
        if time.monotonic() > deadline:
            raise BadInput(
                f"{name} must answer within {STARTS_WITHIN:g} s of its start, but did not: {last_words(log)}"
            )
        time.sleep(ASKED_EVERY)
        before, asked = asked, time.monotonic_ns()
    return before, asked


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does, so that what it started is stopped (in the main thread only)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
