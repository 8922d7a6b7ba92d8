from django.apps import AppConfig


class ExportsConfig(AppConfig):
    name = "apps.exports"

    def ready(self) -> None:
        from apps.exports.models import Export
        from apps.retention.kinds import register
        from apps.retention.stored_files import kind_of_stored_files

        content = "Exported files"
        register(kind_of_stored_files(Export, name="exports", title="Exports", content=content, age="created_at"))
