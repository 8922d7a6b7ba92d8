"""Endpoints keep one secret. The columns of the one before go with the next release: those of the release before use them."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('webhooks', '0002_in_order'),
    ]

    operations = [
        migrations.AlterModelOptions(
            name='endpoint',
            options={'ordering': ['-created_at'], 'permissions': [('operate_endpoint', 'Can enable and disable')]},
        ),
        migrations.AlterField(
            model_name='endpoint',
            name='previous_secret',
            field=models.CharField(blank=True, db_default='', max_length=80),
        ),
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.RemoveField(model_name='endpoint', name='previous_secret'),
                migrations.RemoveField(model_name='endpoint', name='previous_secret_until'),
            ],
        ),
    ]
