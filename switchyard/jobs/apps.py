from django.apps import AppConfig


class JobsConfig(AppConfig):
    """App of jobs; registers their bulk acts."""

    name = "switchyard.jobs"
    label = "switchyard_jobs"
    verbose_name = "Jobs"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from switchyard.bulk.kinds import register
        from switchyard.jobs.bulk.again import BulkRunAgain
        from switchyard.jobs.bulk.cancel import BulkCancel
        from switchyard.jobs.bulk.run_now import BulkRunNow

        register("job.cancel", BulkCancel())
        register("job.run_now", BulkRunNow())
        register("job.run_again", BulkRunAgain())
