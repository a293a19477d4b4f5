"""Notebooks as programs: their parameters are checked, then papermill runs them on this Python, several at once."""

from __future__ import annotations

import ast
import json
import warnings
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simlib.errors import BadInput, unknown

TICK = 0.5
"""How often progress is looked at, s."""


@dataclass(frozen=True)
class Job:
    """A notebook to run: its source, where the executed one goes, and its parameters."""

    source: Path
    output: Path
    parameters: Mapping[str, Any]


def source(path: Path) -> str:
    """The code of a notebook, without its outputs and texts: what its results depend on."""
    return "\0".join("".join(cell["source"]) for cell in _cells(path) if cell["cell_type"] == "code")


def declared(path: Path) -> dict[str, Any]:
    """The parameters of a notebook and their defaults.

    Raises BadInput unless one cell is tagged `parameters` and holds nothing but names and literals.
    """
    cells = [cell for cell in _cells(path) if "parameters" in cell["metadata"].get("tags", [])]
    if len(cells) != 1:
        raise BadInput(f"{path} must have one cell tagged 'parameters', it has {len(cells)}: tag the one")
    found = {}
    for statement in ast.parse("".join(cells[0]["source"])).body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                try:
                    found[name] = ast.literal_eval(value)
                    continue
                except ValueError:
                    pass
        line = ast.unparse(statement).splitlines()[0]
        raise BadInput(f"{path}: the parameters cell may hold only names and literals, got '{line}': move it")
    return found


def check(jobs: Iterable[Job]) -> None:
    """Raise BadInput for a parameter that its notebook does not declare."""
    for job in jobs:
        known = declared(job.source)
        for name in job.parameters:
            if name not in known:
                raise unknown(f"parameter of {job.source.name}", name, known)


def run_all(jobs: Iterable[Job], workers: int, tick: Callable[[], None] = lambda: None) -> list[str | None]:
    """Run notebooks, `workers` at once; why each failed, None where it did not. `tick` is called meanwhile.

    An executed notebook is written in any case, with its traceback where it failed. An interrupt ends the notebooks
    too. Raises BadInput, before any runs, for a parameter that its notebook does not declare.
    """
    jobs = list(jobs)
    check(jobs)
    pool = ThreadPoolExecutor(max(1, min(workers, len(jobs))))
    try:
        pending: set[Future[str | None]]
        futures = [pool.submit(_run, job) for job in jobs]
        pending = set(futures)
        while pending:
            _, pending = wait(pending, TICK, FIRST_COMPLETED)
            tick()
        return [future.result() for future in futures]
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        _end_kernels()
        raise
    finally:
        pool.shutdown()


def _cells(path: Path) -> list[dict[str, Any]]:
    """The cells of a notebook, as its file has them."""
    try:
        cells: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path} is not a notebook: {' '.join(str(error).split())[:150]}") from None
    return cells


def _run(job: Job) -> str | None:
    """Run one notebook; in one line why it failed, or None."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tools' own making; a notebook's warnings stand in its output
        import papermill
        from nbclient.exceptions import DeadKernelError
        from papermill.exceptions import PapermillExecutionError
        from traitlets.config import Config

        from simlib.experiments.kernel import Kernel

        job.output.parent.mkdir(parents=True, exist_ok=True)
        connection = str(job.output.with_suffix(".json"))  # which the next run finds, where this one is killed
        try:
            papermill.execute_notebook(
                str(job.source),
                str(job.output),
                dict(job.parameters),
                kernel_name="python3",
                progress_bar=False,
                kernel_manager_class=Kernel,
                config=Config(Kernel={"connection_file": connection}),
            )
        except PapermillExecutionError as error:
            return f"{error.ename}: {error.evalue}".splitlines()[0]
        except DeadKernelError:
            return "the notebook's process died: is there memory enough?"
    return None


def _end_kernels() -> None:
    """End the processes of notebooks under way."""
    import psutil

    for child in psutil.Process().children():
        if "ipykernel_launcher" in child.cmdline():
            child.kill()
