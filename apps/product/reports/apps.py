from django.apps import AppConfig


class ReportsConfig(AppConfig):
    name = "apps.product.reports"
    label = "reports"
    verbose_name = "Reports"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from apps.platform.retention.kinds import register
        from apps.product.reports.retention import KIND

        register(KIND)
