"""The command ``runweb`` under its short name."""

from switchyard.serving.commands.runweb import Command as Command
