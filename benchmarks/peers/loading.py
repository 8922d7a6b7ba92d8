"""Adapters by name."""

import importlib
from typing import Any


def load(name: str) -> Any:
    """Return the adapter: the object ``adapter`` of its module, or the module itself."""
    module = importlib.import_module(f"benchmarks.peers.{name}")
    return getattr(module, "adapter", module)
