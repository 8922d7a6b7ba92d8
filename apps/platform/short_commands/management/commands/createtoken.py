"""``manage.py createtoken``, for ``manage.py switchyard createtoken``."""

from apps.platform.api.commands.createtoken import Command as Command
