"""The command ``status`` under its short name."""

from switchyard.operations.commands.status import Command as Command
