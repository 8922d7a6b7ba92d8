"""The command ``tokens`` under its short name."""

from apps.platform.api.commands.tokens import Command as Command
