from django.apps import AppConfig


class JobsConfig(AppConfig):
    name = "apps.platform.jobs"
    label = "switchyard_jobs"
    verbose_name = "Jobs"
    default_auto_field = "django.db.models.BigAutoField"
