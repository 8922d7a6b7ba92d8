"""The folder in which the pools of a machine share metrics: which setting places it, and what to do about an error."""

from __future__ import annotations

from collections.abc import Mapping
from errno import EACCES, EPERM
from typing import Any

from switchyard.conf import KEYS, SwitchyardSettings

# Errors that another owner or mode of the folder would mend.
NOT_PERMITTED = (EACCES, EPERM)


def setting_of(library: SwitchyardSettings, declared: Any = None) -> str:
    """Return the setting that places the folder: a variable, or a key of ``SWITCHYARD`` where that is a dict."""
    key = "STATE_DIR" if library.metrics_dir == library.state_dir / "metrics" else "METRICS_DIR"
    if isinstance(declared, Mapping) and declared.get(key) is not None:
        return f'SWITCHYARD["{key}"]'
    return str(KEYS[key])


def remedy_for(error: OSError, library: SwitchyardSettings, declared: Any = None) -> str:
    """Return what to do where the folder cannot be created or written to."""
    name = setting_of(library, declared)
    elsewhere = f"set {name} to another folder" if "[" in name else f"export {name}=DIR for another folder"
    return f"let this user write there, or {elsewhere}" if error.errno in NOT_PERMITTED else elsewhere
