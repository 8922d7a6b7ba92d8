from django.apps import AppConfig


class ImagesConfig(AppConfig):
    name = "apps.images"

    def ready(self) -> None:
        from apps.images.models import RETENTION
        from apps.retention.kinds import register

        register(RETENTION)
