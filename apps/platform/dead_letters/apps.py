from django.apps import AppConfig


class DeadLettersConfig(AppConfig):
    name = "apps.platform.dead_letters"
    label = "switchyard_dead_letters"
    verbose_name = "Dead letters"
    default_auto_field = "django.db.models.BigAutoField"
