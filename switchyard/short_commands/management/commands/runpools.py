"""The command ``runpools`` under its short name."""

from switchyard.workers.commands.runpools import Command as Command
