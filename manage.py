#!/usr/bin/env python
"""Django's command line for this project."""

import os
import sys
from importlib.util import find_spec


def main() -> None:
    """Run a command. A package that is missing is answered with what installs it."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
    if find_spec("django") is None:
        sys.exit(
            f"manage.py: Python at {sys.executable} has no Django; write .venv/bin/python manage.py, "
            "after bin/demo has installed everything into .venv"
        )
    from django.core.management import execute_from_command_line

    try:
        execute_from_command_line(sys.argv)
    except ModuleNotFoundError as error:
        module = error.name or ""
        package = module.partition(".")[0]
        named = _named_by_a_setting(module)
        if package and find_spec(package) is None and not hasattr(error, "__notes__"):
            where = named or f"no folder of this project and no package in {sys.prefix} is called {package!r}"
            remedy = "correct it, and look for a comma that is missing" if named else "correct the name"
            error.add_note(
                f"{where}; {remedy}, or, after a pull, run bin/demo, which installs requirements.txt again when it has "
                "changed"
            )
        elif named:
            error.add_note(f"{named}; correct it, and look for a comma that is missing")
        raise


def _named_by_a_setting(module: str) -> str:
    """Return the words for the setting that names a module which does not exist, or something in it; else ""."""
    from django.conf import settings

    if not module or not settings.configured:
        return ""
    for name in filter(str.isupper, dir(settings)):
        for text in _texts(getattr(settings, name)):
            if f"{text}.".startswith(f"{module}."):
                return f"{name} in {os.environ['DJANGO_SETTINGS_MODULE']} names {text!r}"
    return ""


def _texts(value: object) -> list[str]:
    """Return the texts in the value of a setting."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [text for each in value for text in _texts(each)]
    return [value] if isinstance(value, str) else []


if __name__ == "__main__":
    main()
