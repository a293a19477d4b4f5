"""The guard of a folder: run by its path, it waits until its standard input ends, as that does when whoever started it is
gone, however that came. Then it ends the processes that work in the folder, and removes it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress

import psutil

STOPS_WITHIN = 5.0
"""How long a process may take to stop before it is killed, s."""


def main(folder: str) -> None:
    """Guard the folder."""
    sys.stdin.read()
    found = list(working_in(folder))
    ids = {process.pid for process in found}
    for process in found:
        with suppress(psutil.NoSuchProcess):
            if process.ppid() not in ids:  # who started the others stops them in order
                process.resume()
                process.terminate()
    _, alive = psutil.wait_procs(found, STOPS_WITHIN)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, STOPS_WITHIN)
    shutil.rmtree(folder, ignore_errors=True)


def working_in(folder: str) -> Iterator[psutil.Process]:
    """Processes that name the folder on their command line, in their environment or as their place."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            words = [*process.cmdline(), *process.environ().values(), process.cwd()]
            if process.pid != os.getpid() and any(folder in word for word in words):
                yield process


if __name__ == "__main__":
    main(sys.argv[1])
