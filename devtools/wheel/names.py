"""Mapping of the repository's packages to their names in the wheel, and the dotted names and paths that exist there."""

from __future__ import annotations

import ast
import re
from functools import cached_property
from pathlib import Path

ROOT_NAME = "switchyard"
# Dotted name in the repository -> dotted name in the wheel.
MOVED = {"apps.platform": ROOT_NAME, "broker": f"{ROOT_NAME}.broker", "middleware": f"{ROOT_NAME}.middleware"}
# Top-level packages of the repository that have no place in the wheel.
LEFT_BEHIND = ("project", "apps", "demo", "devtools", "benchmarks", "tests")
# A host's topology is where its settings say; messages name the repository's file.
REPLACED_TEXT = {"project/topology.py": "the topology"}

_CANDIDATE = re.compile(
    r"""(?<![\w./\-])                                   # a name begins here
        (?P<root>apps[./]platform|broker|middleware)
        (?P<rest>(?:\.[A-Za-z_]\w*)*(?:/[\w.\-]+)*/?)    # .module.Name, or /folder/file.py
        (?![\w\-])""",
    re.VERBOSE,
)
_ROLE_BEFORE = re.compile(r":\w+:`~?$")
_IMPORT_BEFORE, _IMPORT_AFTER = re.compile(r"(?:^|\n)[ \t]*\W{0,4}from $"), re.compile(r" import [\w(]")


def moved(dotted: str) -> str | None:
    """Return the wheel's name of a dotted name of the repository; ``None`` where it is not part of the wheel."""
    for old, new in MOVED.items():
        if dotted == old or dotted.startswith(f"{old}."):
            return new + dotted[len(old) :]
    return None


class Names:
    """The dotted names and paths below a repository that the wheel contains.

    Args:
        repository: Folder with ``broker/``, ``middleware/`` and ``apps/platform/``.
    """

    def __init__(self, repository: Path) -> None:
        self._repository = repository

    def rewrite_text(self, text: str) -> str:
        """Return prose or a literal with each reference to a moved module, object or file rewritten.

        ``apps.platform`` and ``apps/platform`` are always references. ``broker.x`` and ``middleware.x`` may as well be
        an attribute of a variable: they are references where a role (``:mod:``) says so, where they are the whole
        text, where a line of code in the text imports from them, or where everything up to the last name exists in the
        repository.
        """
        text = _CANDIDATE.sub(lambda found: self._replacement(found, text), text)
        text = self._short_command.sub(f"manage.py {ROOT_NAME} ", text)
        for old, new in REPLACED_TEXT.items():
            text = text.replace(f"``{old}``", new).replace(old, new)
        return text

    @cached_property
    def _short_command(self) -> re.Pattern[str]:
        """``manage.py`` before a command that a host calls as ``manage.py switchyard COMMAND``."""
        folder = self._repository / "apps/platform/short_commands/management/commands"
        names = "|".join(sorted(file.stem for file in folder.glob("[a-z]*.py")))
        return re.compile(rf"\bmanage\.py (?=(?:{names})\b)") if names else re.compile(r"(?!)")

    def _replacement(self, found: re.Match[str], text: str) -> str:
        root, rest = found["root"], found["rest"]
        new = MOVED[root.replace("/", ".")]
        if "/" in root or "/" in rest:
            path = f"{root}{rest}".rstrip(".")
            known = root == "apps/platform" or (self._repository / path).exists()
            return f"{new.replace('.', '/')}{rest}" if known else found[0]
        is_reference = (
            root == "apps.platform"
            or _ROLE_BEFORE.search(text, 0, found.start()) is not None
            or _is_import(text, found)
            or (rest != "" and found[0] == text.strip("\"'`"))
            or (rest != "" and self._is_object(f"{root}{rest}"))
        )
        return f"{new}{rest}" if is_reference else found[0]

    def _is_object(self, dotted: str) -> bool:
        """Return whether ``dotted`` names something inside a module, for example ``broker.redis.calls.RedisCalls``."""
        parts = dotted.split(".")
        for length in range(len(parts) - 1, 1, -1):
            if (members := self._modules.get(".".join(parts[:length]))) is not None:
                return parts[length] in members
        return False

    @cached_property
    def _modules(self) -> dict[str, set[str]]:
        modules = {}
        for folder in ("broker", "middleware", "apps/platform"):
            for file in (self._repository / folder).rglob("*.py"):
                path = file.relative_to(self._repository).with_suffix("")
                parts = path.parts[:-1] if path.name == "__init__" else path.parts
                modules[".".join(parts)] = _members(ast.parse(file.read_bytes()))
        return modules


def _is_import(text: str, found: re.Match[str]) -> bool:
    return bool(_IMPORT_BEFORE.search(text, 0, found.start()) and _IMPORT_AFTER.match(text, found.end()))


def _members(module: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in module.body:
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                names.add(name)
            case ast.Assign(targets=targets):
                names.update(target.id for target in targets if isinstance(target, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
            case _:
                pass
    return names
