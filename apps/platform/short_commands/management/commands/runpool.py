"""``manage.py runpool``, for ``manage.py switchyard runpool``."""

from apps.platform.workers.commands.runpool import Command as Command
