from django.apps import AppConfig


class AuditConfig(AppConfig):
    name = "apps.platform.audit"
    label = "switchyard_audit"
    verbose_name = "Audit log"
    default_auto_field = "django.db.models.BigAutoField"
