from django.apps import AppConfig


class ExportsConfig(AppConfig):
    name = "apps.product.exports"
    label = "exports"
    verbose_name = "Exports"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from apps.platform.retention.kinds import register
        from apps.product.exports.retention import KIND

        register(KIND)
