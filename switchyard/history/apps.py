from django.apps import AppConfig


class HistoryConfig(AppConfig):
    name = "switchyard.history"
    label = "switchyard_history"
    verbose_name = "History"
    default_auto_field = "django.db.models.BigAutoField"

    def run_writer(self) -> int:
        """Run the history writer in this process until a signal stops it; return 0.

        ``runpools`` finds it here: workers do not import the history.
        """
        from switchyard.history.writer import run_until_stopped

        run_until_stopped()
        return 0
