"""The command ``actors`` under its short name."""

from apps.platform.actors.commands.actors import Command as Command
