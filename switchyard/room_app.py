"""Configuration of the library's apps."""

from django.apps import AppConfig


def room_app(name: str, title: str) -> type[AppConfig]:
    """Return the configuration of the app of a room: its label is its name with underscores."""
    values = {"name": name, "label": name.replace(".", "_"), "verbose_name": title}
    return type("RoomApp", (AppConfig,), values | {"default_auto_field": "django.db.models.BigAutoField"})
