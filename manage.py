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
        package = (error.name or "").partition(".")[0]
        if package and find_spec(package) is None and not hasattr(error, "__notes__"):
            error.add_note("after a pull, run bin/demo, which installs requirements.txt again when it has changed")
        raise


if __name__ == "__main__":
    main()
