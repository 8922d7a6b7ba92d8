"""Writing of the package ``switchyard``: every file of the repository under its new path, rewritten and checked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from devtools.wheel import survivors
from devtools.wheel.names import MOVED, Names
from devtools.wheel.rewrite import AmbiguousRoot, rewrite_module

TEXT = frozenset({".css", ".html", ".js", ".lua", ".svg", ".txt", ".yaml", ".yml"})
BINARY = frozenset({".woff2"})
IGNORED = frozenset({"__pycache__", ".DS_Store"})


class WheelRefused(Exception):
    """The package cannot be made; each line of the message is one reason."""

    def __init__(self, reasons: list[str]) -> None:
        super().__init__("the wheel was not built:\n  " + "\n  ".join(reasons))


def write_package(repository: Path, target: Path) -> None:
    """Write the package's files below ``target``, an empty folder, with ``switchyard`` as the only entry.

    Raises:
        WheelRefused: a file of unknown kind, two files for one path, or a name of the repository that survived.
    """
    names = Names(repository)
    reasons: list[str] = []
    for old, new in MOVED.items():
        folder = repository / old.replace(".", "/")
        for file in _files(folder):
            place = target / new.replace(".", "/") / file.relative_to(folder)
            where = file.relative_to(repository)
            if place.exists():
                reasons.append(f"{where}: another file goes to {place.relative_to(target)}")
                continue
            if file.suffix in BINARY:
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(file.read_bytes())
                continue
            try:
                text, found = _rewritten(file, names)
            except (AmbiguousRoot, ValueError) as error:
                reasons.append(f"{where}: {error}")
                continue
            reasons += [f"{where}: {reason}" for reason in found]
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text, encoding="utf-8")
    if reasons:
        raise WheelRefused(reasons)
    (target / MOVED["apps.platform"] / "py.typed").write_bytes(b"")


def _files(folder: Path) -> Iterator[Path]:
    return (
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not IGNORED.intersection(path.parts) and path.suffix != ".pyc"
    )


def _rewritten(file: Path, names: Names) -> tuple[str, list[str]]:
    source = file.read_text(encoding="utf-8")
    if file.suffix == ".py":
        module = rewrite_module(source, names)
        return module, survivors.in_module(module)
    if file.suffix not in TEXT:
        raise ValueError(f"no rule says whether a {file.suffix or 'file without suffix'} belongs into the wheel")
    text = names.rewrite_text(source)
    return text, survivors.in_text(text)
