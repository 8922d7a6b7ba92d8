from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('switchyard_history', '0001_initial'),
    ]

    operations = [
        migrations.AddField(
            model_name='jobrow',
            name='kept_in',
            field=models.CharField(blank=True, max_length=255, null=True),
        ),
    ]
