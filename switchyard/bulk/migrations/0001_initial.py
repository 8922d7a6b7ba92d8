from django.db import migrations, models


class Migration(migrations.Migration):

    initial = True

    dependencies = [
    ]

    operations = [
        migrations.CreateModel(
            name='BulkAct',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('kind', models.CharField(help_text='Name of a kind, such as letter.requeue.', max_length=40)),
                ('filter', models.JSONField(default=dict)),
                ('state', models.CharField(choices=[('waiting', 'Waiting'), ('running', 'Running'), ('stopped', 'Stopped'), ('done', 'Done'), ('failed', 'Failed')], default='waiting', max_length=16)),
                ('rate', models.PositiveIntegerField(help_text='Items a second at most; empty for as fast as it goes.', null=True)),
                ('reason', models.CharField(blank=True, max_length=500)),
                ('who', models.CharField(max_length=150)),
                ('via', models.CharField(max_length=16)),
                ('form_id', models.CharField(help_text='Of the form that started it: sent twice, it starts one act.', max_length=36, null=True, unique=True)),
                ('audit_id', models.BigIntegerField(help_text='Row of the audit log.', null=True)),
                ('total', models.PositiveBigIntegerField(default=0, help_text='Items that matched at the start.')),
                ('done', models.PositiveBigIntegerField(default=0)),
                ('skipped', models.PositiveBigIntegerField(default=0)),
                ('skips', models.JSONField(default=dict, help_text='Number of skipped items by reason.')),
                ('error', models.CharField(blank=True, max_length=500)),
                ('cursor', models.JSONField(default=dict)),
                ('hand', models.JSONField(default=list, help_text='Items of the step that has begun.')),
                ('step', models.PositiveBigIntegerField(default=0)),
                ('run', models.PositiveIntegerField(default=0, help_text='Number of the job that may continue; earlier ones end.')),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('started_at', models.DateTimeField(null=True)),
                ('touched_at', models.DateTimeField(db_index=True, help_text='When its last step began or ended.')),
                ('stop_asked_at', models.DateTimeField(null=True)),
                ('stop_by', models.CharField(blank=True, max_length=150)),
                ('ended_at', models.DateTimeField(null=True)),
            ],
            options={
                'verbose_name': 'bulk act',
                'ordering': ('-id',),
                'permissions': (('stop_bulkact', 'Can stop bulk acts'),),
                'default_permissions': ('view',),
                'indexes': [models.Index(fields=['state', 'touched_at'], name='bulk_act_unfinished')],
            },
        ),
    ]
