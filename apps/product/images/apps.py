from django.apps import AppConfig


class ImagesConfig(AppConfig):
    name = "apps.product.images"
    label = "images"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from apps.platform.retention.kinds import register
        from apps.product.images.retention import KIND

        register(KIND)
