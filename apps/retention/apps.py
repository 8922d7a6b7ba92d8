from django.apps import AppConfig
from django.core import checks


class RetentionConfig(AppConfig):
    """App of the retention; registers result files, which every project has."""

    name = "apps.retention"
    label = "switchyard_retention"
    verbose_name = "Retention"
    room_pages = (("Retention", "switchyard-retention", "archive", "", "switchyard_operations.view_operations"),)

    def ready(self) -> None:
        from apps.retention.checks import check_retention_days
        from apps.retention.kinds import RetentionKind, register
        from switchyard.jobs.results import FOLDER

        register(
            RetentionKind(
                name="results",
                title="Result files",
                content="Files of jobs' results that no row below names, and large results",
                folder=FOLDER,
            )
        )
        checks.register(check_retention_days, "switchyard")
