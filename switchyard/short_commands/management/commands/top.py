"""The command ``top`` under its short name."""

from switchyard.top.commands.top import Command as Command
