"""Folders of templates that put every page of an admin into the room's frame, for ``TEMPLATES["DIRS"]``."""

from __future__ import annotations

from pathlib import Path

import django

# In this order: Django's templates extend admin/base.html, and the first folder has the one with the room's frame.
FOLDERS = (
    Path(__file__).resolve().parents[1] / "frame" / "admin_templates",
    Path(django.__file__).parent / "contrib" / "admin" / "templates",
)
