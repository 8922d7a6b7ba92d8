from django.apps import AppConfig


class HistoryConfig(AppConfig):
    name = "switchyard.history"
    label = "switchyard_history"
    verbose_name = "History"
    default_auto_field = "django.db.models.BigAutoField"
