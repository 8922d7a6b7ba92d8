"""The command ``bulk`` under its short name."""

from switchyard.bulk.commands.bulk import Command as Command
