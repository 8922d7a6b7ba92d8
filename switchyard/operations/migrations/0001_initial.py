from django.db import migrations, models


class Migration(migrations.Migration):

    initial = True

    dependencies = [
    ]

    operations = [
        migrations.CreateModel(
            name='OperationsRoom',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
            ],
            options={
                'verbose_name_plural': 'operations room',
                'permissions': (('view_operations', 'Can see the operations room'), ('dump_stacks', 'Can see where the threads of workers stand'), ('pause_queue', 'Can pause and resume queues, and move waiting messages'), ('purge_queue', 'Can purge queues'), ('instruct_workers', 'Can quiet and stop workers, and let them take work again'), ('change_settings', 'Can change settings')),
                'managed': False,
                'default_permissions': (),
            },
        ),
    ]
