"""What numba keeps of the kernel follows every module that the kernel is made of, and not its own file only."""

import ast
from pathlib import Path

from simlib.engines import compiled, kernel


def test_kept_code_goes_with_what_it_was_made_of(tmp_path: Path) -> None:
    source, kept, other = (tmp_path / name for name in ("draws.py", "kernel.run-1.py311.nbi", "draws.fold-1.py311.nbi"))
    other.touch()

    def stays(content: str) -> bool:
        source.write_text(content)
        kept.touch()
        compiled.forget_stale(tmp_path, [source])
        return kept.exists()

    seen = [stays(content) for content in ("a = 1", "a = 1", "a = 2", "a = 2", "a = 1")]
    assert seen == [False, True, False, True, False]
    assert other.exists()


def test_the_modules_that_the_kernel_is_made_of_are_those_that_it_imports() -> None:
    imported: list[str] = []
    for node in ast.parse(Path(str(kernel.__file__)).read_text()).body:
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("simlib"):
            inside = node.module == "simlib.engines"
            imported += [f"{node.module}.{one.name}" for one in node.names] if inside else [str(node.module)]
    assert sorted(imported) == sorted(module.__name__ for module in compiled.MADE_OF)
