from django.apps import AppConfig


class ReportsConfig(AppConfig):
    name = "apps.reports"

    def ready(self) -> None:
        from apps.reports.models import Report
        from apps.retention.kinds import register
        from apps.retention.stored_files import kind_of_stored_files

        content = "Statements of customers with their files, by the time at which they were last written"
        register(kind_of_stored_files(Report, name="reports", title="Reports", content=content, age="generated_at"))
