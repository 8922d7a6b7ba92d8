from django.apps import AppConfig


class JobsConfig(AppConfig):
    name = "switchyard.jobs"
    label = "switchyard_jobs"
    verbose_name = "Jobs"
    default_auto_field = "django.db.models.BigAutoField"
