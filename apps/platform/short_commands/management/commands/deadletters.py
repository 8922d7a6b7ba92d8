"""The command ``deadletters`` under its short name."""

from apps.platform.dead_letters.commands.deadletters import Command as Command
