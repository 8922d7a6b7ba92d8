"""The command ``broker`` under its short name."""

from apps.platform.operations.commands.broker import Command as Command
