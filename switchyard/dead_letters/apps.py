from django.apps import AppConfig


class DeadLettersConfig(AppConfig):
    name = "switchyard.dead_letters"
    label = "switchyard_dead_letters"
    verbose_name = "Dead letters"
    default_auto_field = "django.db.models.BigAutoField"
