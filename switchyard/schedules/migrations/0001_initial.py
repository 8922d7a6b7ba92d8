from django.db import migrations, models


class Migration(migrations.Migration):

    initial = True

    dependencies = [
    ]

    operations = [
        migrations.CreateModel(
            name='ScheduleState',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('actor', models.CharField(max_length=200, unique=True)),
                ('spec', models.CharField(max_length=200, verbose_name='schedule')),
                ('since', models.DateTimeField(help_text='Ticks up to here are done.')),
                ('last_tick', models.DateTimeField(blank=True, help_text='The minute that was due last.', null=True)),
                ('last_job_id', models.CharField(blank=True, max_length=36)),
                ('lateness_ms', models.PositiveBigIntegerField(blank=True, help_text='How late the last tick was sent.', null=True)),
                ('paused_at', models.DateTimeField(blank=True, null=True)),
                ('paused_until', models.DateTimeField(blank=True, help_text='Empty: until it is resumed.', null=True)),
                ('paused_by', models.CharField(blank=True, default='', max_length=150)),
                ('paused_reason', models.CharField(blank=True, default='', max_length=500)),
                ('missed', models.PositiveIntegerField(default=0)),
            ],
            options={
                'ordering': ['actor'],
                'permissions': [('run_schedule', 'Can run a schedule now'), ('pause_schedule', 'Can pause a schedule')],
            },
        ),
        migrations.CreateModel(
            name='ScheduleTick',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('schedule', models.CharField(max_length=200)),
                ('due_at', models.DateTimeField()),
                ('outcome', models.CharField(choices=[('sent', 'Sent'), ('missed', 'Missed: paused'), ('run_now', 'Run now')], max_length=8)),
                ('lateness_ms', models.PositiveBigIntegerField(null=True)),
                ('job_id', models.CharField(blank=True, default='', max_length=36)),
                ('by', models.CharField(blank=True, default='', max_length=150)),
            ],
            options={
                'default_permissions': (),
                'constraints': [models.UniqueConstraint(fields=('schedule', 'due_at', 'outcome'), name='schedule_tick_once')],
            },
        ),
    ]
