"""The command ``check_backlog`` under its short name."""

from switchyard.operations.commands.check_backlog import Command as Command
