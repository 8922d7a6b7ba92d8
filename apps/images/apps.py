from django.apps import AppConfig


class ImagesConfig(AppConfig):
    name = "apps.images"

    def ready(self) -> None:
        from apps.images.retention import KIND
        from apps.retention.kinds import register

        register(KIND)
