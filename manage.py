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

    from switchyard.commands import COMMANDS

    if sys.argv[1:2] and sys.argv[1] in COMMANDS:
        sys.argv.insert(1, "switchyard")  # "manage.py doctor" is "manage.py switchyard doctor"
    try:
        execute_from_command_line(sys.argv)
    except ModuleNotFoundError as error:
        if not hasattr(error, "__notes__") and (remedy := _remedy(error.name or "")):
            error.add_note(remedy)
        raise


def _remedy(module: str) -> str:
    """Return what to do about a module that does not exist, else ""."""
    package, named = module.partition(".")[0], _named_by_a_setting(module)
    advice = f"{named}; correct it, and look for a comma that is missing" if named else ""
    if not package or find_spec(package) is not None:
        return advice
    advice = (
        advice or f"no folder of this project and no package in {sys.prefix} is called {package!r}; correct the name"
    )
    return f"{advice}, or, after a pull, run bin/demo, which installs requirements.txt again when it has changed"


def _named_by_a_setting(module: str) -> str:
    """Return the words for the setting that names a module which does not exist, or something in it; else ""."""
    from django.conf import settings
    from django.core.exceptions import ImproperlyConfigured

    if not module or not settings.configured:
        return ""
    for name in filter(str.isupper, dir(settings)):
        try:
            value = getattr(settings, name)
        except ImproperlyConfigured:  # an empty SECRET_KEY: not what is wrong here, or not alone
            continue
        for text in _texts(value):
            if f"{text}.".startswith(f"{module}."):
                return f"{name} in {os.environ['DJANGO_SETTINGS_MODULE']} names {text!r}"
    return ""


def _texts(value: object) -> list[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [text for each in value for text in _texts(each)]
    return [value] if isinstance(value, str) else []


if __name__ == "__main__":
    main()
