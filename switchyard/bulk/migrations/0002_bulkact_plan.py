"""Add the plan of a rollout."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("switchyard_bulk", "0001_initial")]

    operations = [
        migrations.AddField(
            model_name="bulkact",
            name="plan",
            field=models.JSONField(
                default=dict, help_text="Of a rollout: items of its canary, share of failures that stops it."
            ),
        ),
    ]
