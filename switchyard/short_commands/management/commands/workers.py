"""The command ``workers`` under its short name."""

from switchyard.operations.commands.workers import Command as Command
