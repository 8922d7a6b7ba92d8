"""The command ``status`` under its short name."""

from switchyard.commands.status import Command as Command
