from django.apps import AppConfig


class JobsConfig(AppConfig):
    """App of jobs; registers their bulk acts."""

    name = "switchyard.jobs"
    label = "switchyard_jobs"
    verbose_name = "Jobs"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from switchyard.bulk.kinds import register

        for name in ("cancel", "run_again", "cancel_chosen", "run_chosen_again"):
            register(f"job.{name}", f"switchyard.jobs.bulk:{name.upper()}")
