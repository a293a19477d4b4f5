"""pyproject.toml, requirements.lock and environment.yml agree, and the package holds all of its files."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.markers import Marker, default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
ENVIRONMENT = (ROOT / "environment.yml").read_text(encoding="utf-8")

PYTHONS = ("3.11.0", "3.11.14", "3.12.0", "3.13.0", "3.13.9")
PLATFORMS = {
    "linux x86_64": ("linux", "posix", "Linux", "x86_64"),
    "linux aarch64": ("linux", "posix", "Linux", "aarch64"),
    "macOS arm64": ("darwin", "posix", "Darwin", "arm64"),
    "Windows": ("win32", "nt", "Windows", "AMD64"),
}


def environment_of(python: str, platform: str) -> dict[str, str]:
    """The marker variables of a CPython on a platform."""
    sys_platform, os_name, system, machine = PLATFORMS[platform]
    return default_environment() | {
        "python_version": ".".join(python.split(".")[:2]),
        "python_full_version": python,
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "sys_platform": sys_platform,
        "os_name": os_name,
        "platform_system": system,
        "platform_machine": machine,
    }


def logical_lines(lock: str) -> list[str]:
    """The requirements of a lock, continuation lines joined, comments left out."""
    lines = lock.replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def requirements(lines: list[str]) -> list[Requirement]:
    return [Requirement(line.split(" --hash", 1)[0].strip()) for line in lines]


def installed(pins: list[Requirement], python: str, platform: str) -> dict[str, list[Version]]:
    """What the pins install there: for each name its version; more than one version is a mistake."""
    environment = environment_of(python, platform)
    versions: dict[str, list[Version]] = {}
    for pin in pins:
        if pin.marker is None or pin.marker.evaluate(environment):
            versions.setdefault(canonicalize_name(pin.name), []).append(Version(str(pin.specifier)[2:]))
    return versions


def declared() -> list[Requirement]:
    dev = PROJECT["optional-dependencies"]["dev"]
    build = PYPROJECT["build-system"]["requires"]
    return [Requirement(text) for text in [*PROJECT["dependencies"], *dev, *build]]


def load_tool(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("platform", PLATFORMS)
def test_every_declared_dependency_is_locked_once_at_a_version_that_satisfies_it(python, platform):
    pins = installed(requirements(logical_lines(LOCK)), python, platform)
    environment = environment_of(python, platform)
    for requirement in declared():
        if requirement.marker is None or requirement.marker.evaluate(environment):
            name = canonicalize_name(requirement.name)
            assert name in pins, f"{name} is not in requirements.lock for Python {python} on {platform}: make lock"
            assert pins[name][0] in requirement.specifier, (
                f"{requirement} against the pinned {pins[name][0]}: make lock"
            )
    twice = {name: versions for name, versions in pins.items() if len(versions) > 1}
    assert not twice


def test_a_pin_has_all_the_extras_that_the_locked_packages_ask_for():
    """Or older versions of pip take another version for the name with extras, which has no hash."""
    pins: dict[str, set[str]] = {}
    for pin in requirements(logical_lines(LOCK)):
        pins.setdefault(canonicalize_name(pin.name), set()).update(pin.extras)
    asked: dict[str, set[str]] = {}
    for name in pins:
        with suppress(PackageNotFoundError):  # of another platform
            for asking in map(Requirement, distribution(name).requires or []):
                if asking.extras and (asking.marker is None or asking.marker.evaluate({"extra": ""})):
                    asked.setdefault(canonicalize_name(asking.name), set()).update(asking.extras)
    assert asked["confluent-kafka"]
    assert {name: extras - pins[name] for name, extras in asked.items() if extras - pins[name]} == {}


def test_every_python_gets_the_same_versions():
    pins = requirements(logical_lines(LOCK))
    versions: dict[str, set[str]] = {}
    for pin in pins:
        versions.setdefault(canonicalize_name(pin.name), set()).add(str(pin.specifier))
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}


def test_every_pin_is_exact_and_has_a_hash():
    for line in logical_lines(LOCK):
        [specifier] = requirements([line])[0].specifier
        assert specifier.operator == "==" and "*" not in specifier.version, line[:80]
        assert re.search(r" --hash=sha256:[0-9a-f]{64}(\s|$)", line), f"no hash: {line[:80]}"


def test_the_lock_names_no_host_and_no_folder():
    assert not re.search(r"https?:|file:|--index-url|--extra-index-url|--find-links|--trusted-host", LOCK)
    comments = [line for line in LOCK.splitlines() if line.lstrip().startswith("#")]
    assert not [line for line in comments if re.search(r"(?<![\w.])/\w", line)]


def test_uvloop_is_not_asked_for_on_windows():
    [pin] = [pin for pin in requirements(logical_lines(LOCK)) if pin.name == "uvloop"]
    assert isinstance(pin.marker, Marker)
    assert pin.marker.evaluate(environment_of("3.11.9", "linux x86_64"))
    assert not pin.marker.evaluate(environment_of("3.11.9", "Windows"))


def test_environment_yml_is_what_the_tool_makes_from_the_lock():
    assert load_tool("environment").environment(LOCK) == ENVIRONMENT, "run `python tools/environment.py`"


def test_environment_yml_holds_the_locked_versions_and_a_python_that_the_project_supports():
    environment = YAML(typ="safe").load(ENVIRONMENT)
    assert environment["name"] == PROJECT["name"]
    assert environment["channels"] == ["conda-forge", "nodefaults"]
    python, pip, section = environment["dependencies"]
    name, _, version = python.partition("=")
    assert (name, pip) == ("python", "pip")
    assert Version(version) in SpecifierSet(PROJECT["requires-python"])
    *pinned, project = section["pip"]
    assert project == "-e ."
    assert requirements(pinned) == requirements(logical_lines(LOCK))


def test_the_tool_notices_a_changed_environment_yml(tmp_path):
    (tmp_path / "tools").mkdir()
    tool = shutil.copy(ROOT / "tools" / "environment.py", tmp_path / "tools")
    (tmp_path / "requirements.lock").write_text(
        "# made\nsimpy==4.1.1 \\\n    --hash=sha256:00\n"
        "colorama==0.4.6 ; sys_platform == 'win32' \\\n    --hash=sha256:11\n"
    )

    def run(*arguments: str) -> int:
        return subprocess.run([sys.executable, tool, *arguments], capture_output=True).returncode

    assert run("--check") == 1
    assert run() == 0
    assert run("--check") == 0
    made = tmp_path / "environment.yml"
    assert made.read_text().splitlines()[-3:] == [
        "      - simpy==4.1.1",
        "      - colorama==0.4.6 ; sys_platform == 'win32'",
        "      - -e .",
    ]
    made.write_text(made.read_text().replace("4.1.1", "4.1.0"))
    assert run("--check") == 1


def test_the_version_is_the_same_everywhere():
    citation = YAML(typ="safe").load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    found = re.search(r'^__version__ = "(.+)"', (ROOT / "simlib" / "__init__.py").read_text(encoding="utf-8"), re.M)
    assert found is None or found[1] == PROJECT["version"]


def test_the_wheel_holds_every_file_of_the_package(tmp_path):
    """Scenarios, templates and configurations lie beside the code, and are read from there."""
    package = ROOT / "simlib"
    ignored = shutil.ignore_patterns("__pycache__", ".*")
    source = tmp_path / "source"
    shutil.copytree(package, source / "simlib", ignore=ignored)
    for name in ("pyproject.toml", "LICENSE", "README.md"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, source)
    # Two that are there whatever else the package holds by now.
    (source / "simlib" / "added" / "deeper").mkdir(parents=True)
    (source / "simlib" / "added" / "deeper" / "settings.yaml").write_text("a: 1\n")
    expected = {path.relative_to(source).as_posix() for path in source.rglob("simlib/**/*") if path.is_file()}
    (source / "simlib" / "__pycache__").mkdir()
    (source / "simlib" / "__pycache__" / "compiled.nbi").write_bytes(b"")

    build = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    result = subprocess.run(
        [sys.executable, "-c", build, str(tmp_path)],
        cwd=source,
        env={**os.environ, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    [wheel] = tmp_path.glob("simlib-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("simlib/")}
        [entry_points] = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
        assert "simlib = simlib.cli:main" in archive.read(entry_points).decode()
    assert packed == expected
