from django.apps import AppConfig
from django.core import checks


class SchedulesConfig(AppConfig):
    name = "switchyard.schedules"
    label = "switchyard_schedules"
    verbose_name = "Schedules"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from switchyard.schedules.registry import check_schedules

        checks.register(check_schedules, "switchyard")
