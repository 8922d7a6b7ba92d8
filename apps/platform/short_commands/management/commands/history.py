"""The command ``history`` under its short name."""

from apps.platform.history.commands.history import Command as Command
