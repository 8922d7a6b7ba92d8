from django.apps import AppConfig
from django.db.models.signals import post_migrate


class AuditConfig(AppConfig):
    name = "switchyard.audit"
    label = "switchyard_audit"
    verbose_name = "Audit and rights"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from switchyard.audit.services import after_migrate, last_app

        post_migrate.connect(after_migrate, sender=last_app(), dispatch_uid="switchyard_audit.roles")
