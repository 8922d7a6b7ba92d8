"""Cookies of the frame, which remember a person's choices without a script."""

from __future__ import annotations

from typing import Final

THEME_COOKIE: Final = "switchyard_theme"
THEMES: Final = ("light", "dark")
KEYS_COOKIE: Final = "switchyard_keys"
