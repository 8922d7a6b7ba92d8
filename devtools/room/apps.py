from django.apps import AppConfig


class RoomConfig(AppConfig):
    """Actors of the yard to look at."""

    name = "devtools.room"
    label = "devtools_room"
