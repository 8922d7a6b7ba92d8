from django.apps import AppConfig


class JobsConfig(AppConfig):
    """App of jobs; registers their bulk acts."""

    name = "switchyard.jobs"
    label = "switchyard_jobs"
    verbose_name = "Jobs"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from switchyard.bulk.kinds import register

        register("job.cancel", "switchyard.jobs.bulk:CANCEL")
        register("job.run_again", "switchyard.jobs.bulk:RUN_AGAIN")
        register("job.cancel_chosen", "switchyard.jobs.bulk:CANCEL_CHOSEN")
        register("job.run_chosen_again", "switchyard.jobs.bulk:RUN_CHOSEN_AGAIN")
