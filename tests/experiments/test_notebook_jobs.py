"""Notebooks as programs: parameters that they do not declare, cells that hold more than literals, and failures."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from simlib.errors import BadInput
from simlib.experiments import notebooks
from simlib.experiments.notebooks import Job


def notebook(folder, parameters="a = 1\nb = [2.0]", code="print(a)", tags=("parameters",)):
    cells = [new_code_cell(parameters, metadata={"tags": list(tags)}), new_code_cell(code)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    file = folder / "one.ipynb"
    nbformat.write(new_notebook(cells=cells, metadata=kernel), file)
    return file


def test_declared_parameters_are_the_literals_of_the_tagged_cell(tmp_path):
    assert notebooks.declared(notebook(tmp_path)) == {"a": 1, "b": [2.0]}


@pytest.mark.parametrize("parameters", ["a = 1\nb = a + 1", "import os", "a = b = 1", "a: int = 1", "print(1)"])
def test_a_parameters_cell_with_more_than_literals_is_refused(tmp_path, parameters):
    with pytest.raises(BadInput, match="only names and literals"):
        notebooks.declared(notebook(tmp_path, parameters))


def test_a_parameter_that_the_notebook_does_not_declare_is_refused_before_anything_runs(tmp_path):
    job = Job(notebook(tmp_path, "alpha = 1"), tmp_path / "out.ipynb", {"alpa": 2})
    with pytest.raises(BadInput, match=r"unknown parameter of one\.ipynb 'alpa': did you mean 'alpha'"):
        notebooks.run_all([job], 1)
    assert not job.output.exists()


def test_a_notebooks_source_is_its_code_alone(tmp_path):
    before = notebooks.source(notebook(tmp_path))
    document = nbformat.read(tmp_path / "one.ipynb", as_version=4)
    document.cells[1].outputs = [nbformat.v4.new_output("stream", text="1\n")]
    document.cells.insert(0, nbformat.v4.new_markdown_cell("words"))
    nbformat.write(document, tmp_path / "one.ipynb")
    assert notebooks.source(tmp_path / "one.ipynb") == before


def test_a_failing_notebook_is_kept_with_its_traceback_and_does_not_stop_the_others(tmp_path):
    ticks = []
    source = notebook(tmp_path, code="assert a == 1, 'a is not one'\nprint('a is', a)")
    jobs = [Job(source, tmp_path / "out" / f"{a}.ipynb", {"a": a}) for a in (1, 2)]
    errors = notebooks.run_all(jobs, 2, lambda: ticks.append(1))
    assert errors == [None, "AssertionError: a is not one"]
    good, bad = (job.output.read_text() for job in jobs)
    assert "a is 1" in good
    assert "Traceback" in bad and "a is not one" in bad
    assert ticks
