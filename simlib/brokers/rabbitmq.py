"""RabbitMQ: found or started as one node without plugins. A quorum queue flushes a message to disk before its confirm."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pamqp import commands, exceptions, frame, header

from simlib.brokers import Part, Server, address, answers, processes, version_at
from simlib.errors import MissingPart

URL = "SIMLIB_RABBITMQ_URL"
INSTALL = f"apt-get install rabbitmq-server, put 'rabbitmq-server' on the PATH, or set {URL}"
"""What to do where it is missing."""
SCHEMES = ("amqp",)
OLDEST = (3, 10)
"""The first whose quorum queues dead-letter at least once (release notes of 3.10.0)."""
_BEHIND_WRAPPER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
"""Debian's program itself: the one on the PATH lets only root and its own user in, and keeps to the system's folders."""


def found() -> Part | None:
    """The server that `rabbitmq()` would use, None if there is none; raises BadInput where the named one is of no use."""
    if url := os.environ.get(URL):
        return Part("rabbitmq", version(url), URL)
    program = _program()
    if program is None:
        return None
    application = next((program.parents[1] / "plugins").glob("rabbit-[0-9]*"), None)
    installed = application.name.removeprefix("rabbit-").removesuffix(".ez") if application else "unknown"
    return Part("rabbitmq", installed, str(shutil.which("rabbitmq-server")))


def version(url: str, named: str = URL) -> str:
    """Version of the server at a URL; raises BadInput, which says what `named` it, where it is of no use."""
    return version_at(named, url, SCHEMES, "RabbitMQ server", _greet, OLDEST)


@contextmanager
def rabbitmq() -> Iterator[Server]:
    """A running server: the one that the environment names, else one of our own for as long as the block lasts.

    Raises MissingPart where there is none, and BadInput where it cannot be used or started.
    """
    part = found()
    if part is None:
        raise MissingPart(f"RabbitMQ is not on this machine: {INSTALL}")
    if url := os.environ.get(URL):
        yield Server(part, url)
        return
    program = _program()
    assert program
    user = processes.unprivileged()
    with processes.folder(user) as folder:
        password, port = secrets.token_hex(16), processes.free_port()
        log = folder / "server.log"
        config = folder / "rabbitmq.conf"
        config.write_text(_config(port, password))
        config.chmod(0o644)  # the server's user must read it; the folder keeps the others out
        url = f"amqp://simlib:{password}@127.0.0.1:{port}/"
        environment = _environment(folder, port)
        node = processes.Program(
            "RabbitMQ", [str(program)], log, lambda: answers(url, _greet), cwd=folder, env=environment, **user
        )
        with node:  # the folder's guard ends Erlang's port mapper, which outlives the node that started it
            yield Server(part, url, node)


def _config(port: int, password: str) -> str:
    settings = {
        "listeners.tcp.default": f"127.0.0.1:{port}",
        "default_user": "simlib",
        "default_pass": password,
        "log.console": "true",
        "log.console.level": "error",
        "log.file": "false",
        "vm_memory_high_watermark.absolute": "512MB",
        "disk_free_limit.absolute": "50MB",
    }
    return "".join(f"{name} = {value}\n" for name, value in settings.items())


def _environment(folder: Path, port: int) -> dict[str, str]:
    """What keeps a node to its folder and to loopback, beside any other node of the machine."""
    files = {
        "HOME": folder,  # where the Erlang cookie is made
        "RABBITMQ_CONF_ENV_FILE": folder / "none",
        "RABBITMQ_CONFIG_FILE": folder / "rabbitmq.conf",
        "RABBITMQ_ADVANCED_CONFIG_FILE": folder / "none.config",
        "RABBITMQ_ENABLED_PLUGINS_FILE": folder / "no_plugins",
        "RABBITMQ_MNESIA_BASE": folder / "data",
        "RABBITMQ_LOG_BASE": folder / "log",
        "RABBITMQ_PID_FILE": folder / "pid",
    }
    own = {name: str(path) for name, path in files.items()}
    others = {name: value for name, value in os.environ.items() if not name.startswith(("RABBITMQ_", "ERL_"))}
    return others | own | {
        "RABBITMQ_NODENAME": f"simlib-{port}@localhost",
        "RABBITMQ_DIST_PORT": str(processes.free_port()),
        "ERL_EPMD_PORT": str(processes.free_port()),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_ALLOW_INPUT": "1",  # the node in place of the script that starts it, so that it has the script's id
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-noinput -kernel inet_dist_use_interface {127,0,0,1}",
    }  # fmt: skip


def _program() -> Path | None:
    """The program that starts a node as any user."""
    on_path = shutil.which("rabbitmq-server")
    candidates = [Path(on_path), _BEHIND_WRAPPER] if on_path else []
    programs = (path.resolve() for path in candidates)
    return next((path for path in programs if path.name == "rabbitmq-server" and _beside(path).exists()), None)


def _beside(program: Path) -> Path:
    """What a wrapper has not beside it."""
    return program.with_name("rabbitmq-env")


def _greet(url: str) -> str:
    """Log in as a client does, and leave; the server's version. Raises OSError or ValueError where no RabbitMQ lets us in."""
    parts = urlsplit(url)
    user, password = unquote(parts.username or "guest"), unquote(parts.password or "guest")
    with socket.create_connection(address(url), timeout=5) as connection:
        stream = connection.makefile("rb")

        def said(kind: type[Any]) -> Any:
            start = stream.read(7)
            size = int.from_bytes(start[3:7], "big") + 1
            if len(start) < 7 or start[:4] == b"AMQP" or size > 131072:
                raise ValueError("it does not speak AMQP 0-9-1" if start else "it hung up")
            try:
                _, _, method = frame.unmarshal(start + stream.read(size))
            except exceptions.PAMQPException:
                raise ValueError("it does not speak AMQP 0-9-1") from None
            if isinstance(method, commands.Connection.Close):
                raise ValueError(method.reply_text)
            if not isinstance(method, kind):
                raise ValueError(f"it said {getattr(method, 'name', 'something else')}")
            return method

        def say(method: Any) -> None:
            connection.sendall(frame.marshal(method, 0))

        connection.sendall(header.ProtocolHeader().marshal())
        about: Mapping[str, Any] = said(commands.Connection.Start).server_properties or {}
        capable: dict[str, Any] = {"capabilities": {"authentication_failure_close": True}}
        say(commands.Connection.StartOk(capable, "PLAIN", f"\0{user}\0{password}", "en_US"))
        tune = said(commands.Connection.Tune)
        say(commands.Connection.TuneOk(tune.channel_max, tune.frame_max, tune.heartbeat))
        say(commands.Connection.Open(unquote(parts.path[1:]) or "/"))
        said(commands.Connection.OpenOk)
        say(commands.Connection.Close(200, "", 0, 0))
        said_version = about.get("version", "unknown")
        return said_version.decode() if isinstance(said_version, bytes) else str(said_version)
