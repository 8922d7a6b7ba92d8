"""The tests of broker and middleware as they run against the wheel: copied."""

from __future__ import annotations

import ast
import shutil
from dataclasses import dataclass
from pathlib import Path

FOLDERS = ("tests/integration/broker/conformance", "tests/integration/middleware", "tests/unit/middleware")
# Packages that a host project lacks: a test that imports one of them does not test the wheel.
NOT_IN_A_HOST = ("project", "apps", "demo", "devtools", "benchmarks")
SHARED = ("tests/__init__.py", "tests/conftest.py", "tests/environment.py", "tests/unit/conftest.py")


@dataclass(frozen=True)
class Suite:
    """A copied suite.

    Args:
        files: Copied test modules.
        left_out: Test modules that are not copied, each with the imports that are the reason.
    """

    files: tuple[str, ...]
    left_out: dict[str, tuple[str, ...]]


def copy_suite(repository: Path, target: Path) -> Suite:
    """Copy the tests and every helper they import into ``target/tests``."""
    copied: list[str] = []
    left_out: dict[str, tuple[str, ...]] = {}
    needed: set[str] = set()
    for file in (*SHARED, *(_tests(repository))):
        modules = _reachable(repository, file)
        foreign = sorted({name for module in modules for name in _foreign_imports(repository / module)})
        if foreign and file in SHARED:
            raise AssertionError(f"{file} imports {', '.join(foreign)}, which no host has")
        if foreign:
            left_out[file] = tuple(foreign)
            continue
        copied.append(file)
        needed |= modules
    for module in sorted(needed | {_package(file) for file in needed}):
        place = target / module
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(repository / module, place)
    return Suite(tuple(file for file in copied if Path(file).name.startswith("test_")), left_out)


def _tests(repository: Path) -> list[str]:
    return sorted(
        str(file.relative_to(repository)) for folder in FOLDERS for file in (repository / folder).rglob("*.py")
    )


def _package(file: str) -> str:
    return str(Path(file).parent / "__init__.py")


def _reachable(repository: Path, file: str) -> set[str]:
    """Return a file, every module of the tests that it imports, and theirs."""
    found: set[str] = set()
    waiting = [file]
    while waiting:
        module = waiting.pop()
        if module in found or not (repository / module).is_file():
            continue
        found.add(module)
        waiting += [
            f"{name.replace('.', '/')}.py" for name in _imports(repository / module) if name.startswith("tests.")
        ]
        folder = Path(module).parent
        while folder != Path():
            waiting += [str(folder / "__init__.py"), str(folder / "conftest.py")]
            folder = folder.parent
    return found


def _imports(file: Path) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(file.read_text())):
        match node:
            case ast.Import(names=aliases):
                names += [alias.name for alias in aliases]
            case ast.ImportFrom(module=str(module), names=aliases):
                names += [module, *(f"{module}.{alias.name}" for alias in aliases)]
            case _:
                pass
    return names


def _foreign_imports(file: Path) -> list[str]:
    return [name for name in _imports(file) if any(name == f or name.startswith(f"{f}.") for f in NOT_IN_A_HOST)]
