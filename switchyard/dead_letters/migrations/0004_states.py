from django.db import migrations, models

from switchyard.online_migrations import AddIndexOnline


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("switchyard_dead_letters", "0003_requeued"),
    ]

    operations = [
        AddIndexOnline(
            model_name="deadletter",
            index=models.Index(fields=["state", "died_at", "id"], name="dead_letter_states"),
        ),
    ]
