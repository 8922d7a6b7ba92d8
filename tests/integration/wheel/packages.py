"""The installed, pinned packages as wheels again: an index for environments that are made without network."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# Written by the installer, not by the wheel.
OF_THE_INSTALLER = ("INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json")


def write_wheels(requirements: Iterable[str], folder: Path) -> None:
    """Write a wheel of each package that some requirements need, as it is installed here, into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for package in _closure(requirements):
        _write_wheel(package, folder)


def _closure(requirements: Iterable[str]) -> Iterator[Distribution]:
    waiting = [Requirement(requirement) for requirement in requirements]
    seen: set[tuple[str, str]] = set()
    written: set[str] = set()
    while waiting:
        requirement = waiting.pop()
        package = distribution(requirement.name)
        name = canonicalize_name(requirement.name)
        if name not in written:
            written.add(name)
            yield package
        for extra in ("", *requirement.extras):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            for needed in map(Requirement, package.requires or ()):
                if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                    waiting.append(needed)


def _write_wheel(package: Distribution, folder: Path) -> None:
    files = package.files or []
    metadata = next(file for file in files if file.name == "WHEEL" and ".dist-info" in file.parts[0])
    tags = [line.partition(": ")[2] for line in metadata.read_text().splitlines() if line.startswith("Tag: ")]
    parts = [tag.split("-") for tag in tags]
    tag = "-".join(".".join(dict.fromkeys(values)) for values in zip(*parts, strict=True))
    name, version, *_ = metadata.parts[0].removesuffix(".dist-info").split("-")
    kept = [
        file
        for file in files
        if ".." not in file.parts
        and not Path(file).is_absolute()
        and "__pycache__" not in file.parts
        and not (file.parts[0] == metadata.parts[0] and file.name in OF_THE_INSTALLER)
    ]
    with zipfile.ZipFile(folder / f"{name}-{version}-{tag}.whl", "w", zipfile.ZIP_STORED) as wheel:
        for file in kept:
            wheel.write(str(file.locate()), str(file))
