"""App of ``manage.py switchyard``."""

from switchyard.room_app import room_app

CommandsConfig = room_app("switchyard.commands", "Commands")
