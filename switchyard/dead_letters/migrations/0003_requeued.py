from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('switchyard_dead_letters', '0002_kept'),
    ]

    operations = [
        migrations.AlterField(
            model_name='deadletter',
            name='state',
            field=models.CharField(choices=[('new', 'New'), ('acknowledged', 'Acknowledged'), ('replayed', 'Requeued'), ('discarded', 'Discarded'), ('missing', 'Missing in the broker')], default='new', max_length=16),
        ),
    ]
