from django.apps import AppConfig
from django.core.checks import register


class OperationsConfig(AppConfig):
    name = "switchyard.operations"
    label = "switchyard_operations"
    verbose_name = "Operations room"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from switchyard.operations.checks import check_rule_names

        register(check_rule_names, "switchyard")

    def stand_in(self) -> int:
        """Examine the yard and send its alerts in this process until a signal stops it; return 0.

        Supervisors find it here: workers do not import the operations.
        """
        from switchyard.operations.stand_in import run

        return run()
