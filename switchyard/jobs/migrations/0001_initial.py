from django.db import migrations, models


class Migration(migrations.Migration):

    initial = True

    dependencies = [
    ]

    operations = [
        migrations.CreateModel(
            name='Job',
            fields=[
                ('id', models.CharField(max_length=36, primary_key=True, serialize=False)),
            ],
            options={
                'permissions': [('cancel_job', 'Can cancel job'), ('run_job', 'Can run a job again'), ('view_arguments', 'Can view the arguments of jobs')],
                'managed': False,
                'default_permissions': ('view',),
            },
        ),
        migrations.CreateModel(
            name='StoredResult',
            fields=[
                ('job_id', models.CharField(max_length=200, primary_key=True, serialize=False)),
                ('text', models.TextField()),
                ('expires_at', models.DateTimeField(db_index=True)),
            ],
            options={
                'default_permissions': (),
            },
        ),
        migrations.CreateModel(
            name='DoneOnce',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('key', models.CharField(max_length=200)),
                ('job_id', models.CharField(blank=True, max_length=200)),
                ('token', models.BigIntegerField(null=True)),
                ('created_at', models.DateTimeField(db_index=True)),
            ],
            options={
                'default_permissions': (),
                'constraints': [models.UniqueConstraint(fields=('key',), name='one_row_per_key')],
            },
        ),
    ]
