"""Files that hold secrets: for their owner only, and whole or not there."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def write_private(path: Path, content: dict[str, Any]) -> None:
    """Replace ``path`` by JSON that only its owner may read. A crash leaves the old file or the new one."""
    text = json.dumps(content, indent=2) + "\n"
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def read_private(path: Path) -> dict[str, Any]:
    """Return what :func:`write_private` wrote; empty when there is no such file, or none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
