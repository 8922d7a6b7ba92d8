"""``manage.py tokens``, for ``manage.py switchyard tokens``."""

from apps.platform.api.commands.tokens import Command as Command
