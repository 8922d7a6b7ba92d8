"""Stored statements."""

from django.db import models
from django.utils import timezone

from apps.retention.stored_files import StoredFile, kind_of_stored_files
from apps.shop.models import Customer


class Report(StoredFile):
    """A customer's statement of one month, as last written.

    ``checksum`` covers content and design. A run that finds the same checksum writes nothing and returns the stored
    file.
    """

    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, related_name="+")
    month = models.CharField(max_length=7, help_text="YYYY-MM")
    checksum = models.CharField("checksum of the content", max_length=64)
    generated_at = models.DateTimeField(default=timezone.now, db_index=True, help_text="When the file was written.")

    class Meta:
        ordering = ["-generated_at", "-id"]
        constraints = [models.UniqueConstraint(fields=["customer", "month"], name="reports_one_per_month")]
        permissions = [("generate_report", "Can generate a report")]

    def __str__(self) -> str:
        return f"{self.month} for {self.customer}"


CONTENT = "Statements of customers with their files, by the time at which they were last written"
RETENTION = kind_of_stored_files(Report, name="reports", title="Reports", content=CONTENT, age="generated_at")
