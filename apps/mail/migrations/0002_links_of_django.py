"""Links for a new password are Django's. The column of their use goes with the next release."""

from django.db import migrations


class Migration(migrations.Migration):

    dependencies = [
        ('mail', '0001_initial'),
    ]

    operations = [
        migrations.SeparateDatabaseAndState(
            state_operations=[migrations.RemoveField(model_name='sentmail', name='link_used_at')],
        ),
    ]
