from django.apps import AppConfig


class JobsConfig(AppConfig):
    """App of jobs; registers their bulk acts."""

    name = "apps.platform.jobs"
    label = "switchyard_jobs"
    verbose_name = "Jobs"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the bulk acts on jobs."""
        from apps.platform.bulk.kinds import register
        from apps.platform.jobs.bulk.again import BulkRunAgain
        from apps.platform.jobs.bulk.cancel import BulkCancel
        from apps.platform.jobs.bulk.run_now import BulkRunNow

        register("job.cancel", BulkCancel())
        register("job.run_now", BulkRunNow())
        register("job.run_again", BulkRunAgain())
