"""``manage.py deadletters``, for ``manage.py switchyard deadletters``."""

from apps.platform.dead_letters.commands.deadletters import Command as Command
