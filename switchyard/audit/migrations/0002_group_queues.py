"""Add the queues of groups."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("auth", "0012_alter_user_first_name_max_length"),
        ("switchyard_audit", "0001_initial"),
    ]

    operations = [
        migrations.CreateModel(
            name="GroupQueues",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "queues",
                    models.JSONField(
                        default=list, help_text="A queue that is added to the topology is not among them."
                    ),
                ),
                (
                    "group",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE, related_name="+", to="auth.group"
                    ),
                ),
            ],
            options={"verbose_name": "queues of a group", "verbose_name_plural": "queues of a group"},
        ),
    ]
