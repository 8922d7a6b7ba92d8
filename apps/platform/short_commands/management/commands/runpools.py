"""The command ``runpools`` under its short name."""

from apps.platform.workers.commands.runpools import Command as Command
