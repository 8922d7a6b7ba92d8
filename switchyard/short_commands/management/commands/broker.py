"""The command ``broker`` under its short name."""

from switchyard.operations.commands.broker import Command as Command
