"""Exported files."""

from django.db import models
from django.utils import timezone

from apps.retention.stored_files import StoredFile, kind_of_stored_files


class Dataset(models.TextChoices):
    """Datasets that can be exported."""

    INVOICES = "invoices", "Invoices"
    PAYMENTS = "payments", "Payments"
    CUSTOMERS = "customers", "Customers"


class Format(models.TextChoices):
    """File formats."""

    CSV = "csv", "CSV"
    XLSX = "xlsx", "Excel (XLSX)"


class Export(StoredFile):
    """One completed export. A repeated job finds its row and writes no second file."""

    job_id = models.CharField(max_length=40, unique=True)
    dataset = models.CharField(max_length=20, choices=Dataset)
    format = models.CharField(max_length=4, choices=Format)
    row_count = models.PositiveBigIntegerField("rows")
    created_at = models.DateTimeField(default=timezone.now, db_index=True)

    class Meta:
        ordering = ["-created_at", "-id"]
        permissions = [("run_export", "Can export again")]

    def __str__(self) -> str:
        return self.filename


RETENTION = kind_of_stored_files(Export, name="exports", title="Exports", content="Exported files", age="created_at")
