"""The command ``check_backlog`` under its short name."""

from apps.platform.operations.commands.check_backlog import Command as Command
