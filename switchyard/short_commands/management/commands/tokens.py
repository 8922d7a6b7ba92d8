"""The command ``tokens`` under its short name."""

from switchyard.api.commands.tokens import Command as Command
