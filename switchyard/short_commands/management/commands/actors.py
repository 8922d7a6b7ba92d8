"""The command ``actors`` under its short name."""

from switchyard.actors.commands.actors import Command as Command
