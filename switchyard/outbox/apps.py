from django.apps import AppConfig


class OutboxConfig(AppConfig):
    name = "switchyard.outbox"
    label = "switchyard_outbox"
    verbose_name = "Outbox"
    default_auto_field = "django.db.models.BigAutoField"
