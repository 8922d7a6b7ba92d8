from django.apps import AppConfig


class OperationsConfig(AppConfig):
    name = "switchyard.operations"
    label = "switchyard_operations"
    verbose_name = "Operations room"
    default_auto_field = "django.db.models.BigAutoField"

    def stand_in(self) -> int:
        """Examine the yard and send its alerts in this process until a signal stops it; return 0.

        Supervisors find it here: workers do not import the operations.
        """
        from switchyard.operations.stand_in import run

        return run()
