"""Hatchling's hook for the wheel. pyproject.toml names this file; hatchling loads it by its path."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class SwitchyardPackage(BuildHookInterface[Any]):
    """Build hook that includes the rewritten package in the wheel."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Write the package to a temporary folder and have hatchling include it."""
        if version == "editable":
            raise ValueError("no editable wheel: its modules would have other names; work in the repository itself")
        sys.path.insert(0, self.root)
        try:
            from devtools.wheel.tree import write_package
        finally:
            sys.path.remove(self.root)
        self._folder = tempfile.TemporaryDirectory(prefix="switchyard-wheel-")
        write_package(Path(self.root), Path(self._folder.name))
        build_data["force_include"][f"{self._folder.name}/switchyard"] = "switchyard"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the temporary folder."""
        self._folder.cleanup()
