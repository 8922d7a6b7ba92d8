from django.db import migrations, models


class Migration(migrations.Migration):

    initial = True

    dependencies = [
    ]

    operations = [
        migrations.CreateModel(
            name='AttemptRow',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('job_id', models.CharField(max_length=200, verbose_name='job')),
                ('generation', models.PositiveIntegerField()),
                ('attempt', models.PositiveIntegerField()),
                ('state', models.CharField(max_length=16)),
                ('reason', models.CharField(blank=True, max_length=32)),
                ('lane', models.CharField(max_length=80)),
                ('pool', models.CharField(blank=True, max_length=64)),
                ('worker', models.CharField(blank=True, max_length=255)),
                ('release', models.CharField(blank=True, max_length=64)),
                ('started_at', models.BigIntegerField(null=True)),
                ('finished_at', models.BigIntegerField()),
                ('error_type', models.CharField(blank=True, max_length=255)),
                ('error_message', models.CharField(blank=True, max_length=500)),
                ('fingerprint', models.CharField(blank=True, max_length=64)),
                ('logs', models.TextField(blank=True)),
            ],
            options={
                'ordering': ('generation', 'attempt'),
                'default_permissions': (),
                'constraints': [models.UniqueConstraint(fields=('job_id', 'generation', 'attempt'), name='history_one_row_an_attempt')],
            },
        ),
        migrations.CreateModel(
            name='JobRow',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('job_id', models.CharField(max_length=200, unique=True, verbose_name='job')),
                ('sequence', models.BigIntegerField()),
                ('state', models.CharField(max_length=16)),
                ('reason', models.CharField(blank=True, max_length=32)),
                ('actor', models.CharField(max_length=255)),
                ('queue', models.CharField(max_length=64)),
                ('lane', models.CharField(max_length=80)),
                ('pool', models.CharField(blank=True, max_length=64)),
                ('worker', models.CharField(blank=True, max_length=255)),
                ('release', models.CharField(blank=True, max_length=64)),
                ('owner', models.CharField(blank=True, max_length=200, null=True)),
                ('attempts', models.PositiveIntegerField()),
                ('generation', models.PositiveIntegerField()),
                ('enqueued_at', models.BigIntegerField(null=True)),
                ('started_at', models.BigIntegerField(null=True)),
                ('finished_at', models.BigIntegerField()),
                ('not_succeeded_at', models.BigIntegerField(null=True)),
                ('wait_ms', models.BigIntegerField(null=True)),
                ('run_ms', models.BigIntegerField(null=True)),
                ('failed_at', models.BigIntegerField(null=True)),
                ('error_type', models.CharField(blank=True, max_length=255)),
                ('error_message', models.CharField(blank=True, max_length=500)),
                ('fingerprint', models.CharField(blank=True, max_length=64, null=True)),
                ('parent', models.CharField(blank=True, max_length=200, null=True)),
                ('request_id', models.CharField(blank=True, max_length=200)),
                ('user', models.CharField(blank=True, max_length=200)),
                ('schedule', models.CharField(blank=True, max_length=255)),
                ('tags', models.JSONField(default=list)),
                ('arguments', models.TextField(blank=True)),
                ('result', models.TextField(blank=True)),
                ('kept_in', models.CharField(blank=True, max_length=255, null=True)),
            ],
            options={
                'ordering': ('-finished_at', '-id'),
                'default_permissions': (),
                'indexes': [models.Index(fields=['finished_at', 'id'], name='history_finished'), models.Index(fields=['actor', 'finished_at', 'id'], name='history_actor'), models.Index(fields=['queue', 'finished_at', 'id'], name='history_queue'), models.Index(fields=['release', 'finished_at', 'id'], name='history_release'), models.Index(condition=models.Q(('not_succeeded_at__isnull', False)), fields=['not_succeeded_at', 'id'], name='history_not_succeeded'), models.Index(condition=models.Q(('owner__isnull', False)), fields=['owner', 'finished_at', 'id'], name='history_owner'), models.Index(condition=models.Q(('parent__isnull', False)), fields=['parent', 'finished_at', 'id'], name='history_parent'), models.Index(condition=models.Q(('failed_at__isnull', False)), fields=['failed_at', 'id'], name='history_failed'), models.Index(condition=models.Q(('fingerprint__isnull', False)), fields=['fingerprint', 'failed_at', 'id'], name='history_fingerprint')],
            },
        ),
        migrations.CreateModel(
            name='SearchValue',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(max_length=100)),
                ('value', models.CharField(max_length=200)),
                ('job_id', models.CharField(max_length=200)),
                ('finished_at', models.BigIntegerField()),
            ],
            options={
                'default_permissions': (),
                'indexes': [models.Index(fields=['name', 'value', 'finished_at', 'job_id'], name='history_value')],
                'constraints': [models.UniqueConstraint(fields=('job_id', 'name', 'value'), name='history_one_row_a_value')],
            },
        ),
    ]
