from django.apps import AppConfig


class ActorsConfig(AppConfig):
    name = "apps.platform.actors"
    label = "switchyard_actors"
    verbose_name = "Actors"
