"""The command ``deadletters`` under its short name."""

from switchyard.dead_letters.commands.deadletters import Command as Command
