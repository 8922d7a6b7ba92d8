from django.db import migrations, models


class Migration(migrations.Migration):

    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name='DeadLetter',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('message_id', models.CharField(max_length=200, unique=True, verbose_name='job')),
                ('queue', models.CharField(max_length=64)),
                ('actor', models.CharField(max_length=255)),
                ('reason', models.CharField(max_length=32)),
                ('exception', models.CharField(max_length=255)),
                ('error', models.TextField()),
                ('traceback', models.TextField()),
                ('attempts', models.PositiveIntegerField()),
                ('deaths', models.PositiveIntegerField(default=1)),
                ('payload', models.JSONField()),
                ('fingerprint', models.CharField(max_length=64)),
                ('enqueued_at', models.DateTimeField()),
                ('died_at', models.DateTimeField(db_index=True)),
                ('duration_ms', models.PositiveBigIntegerField()),
                ('state', models.CharField(choices=[('new', 'New'), ('acknowledged', 'Acknowledged'), ('requeued', 'Requeued'), ('discarded', 'Discarded'), ('missing', 'Missing in the broker')], default='new', max_length=16)),
                ('is_open', models.GeneratedField(db_persist=True, expression=models.Case(models.When(state__in=('new', 'acknowledged'), then=1), default=0), output_field=models.SmallIntegerField())),
                ('state_at', models.DateTimeField()),
                ('state_by', models.CharField(blank=True, max_length=150)),
                ('history', models.JSONField(default=list)),
                ('kept', models.TextField(blank=True, default='')),
                ('claim_token', models.CharField(blank=True, default='', max_length=32)),
                ('claim_act', models.CharField(blank=True, default='', max_length=16)),
                ('claim_by', models.CharField(blank=True, default='', max_length=150)),
                ('claim_note', models.CharField(blank=True, default='', max_length=500)),
                ('claim_at', models.DateTimeField(null=True)),
            ],
            options={
                'ordering': ('-died_at', '-id'),
                'permissions': (('acknowledge_deadletter', 'Can acknowledge dead letters'), ('requeue_deadletter', 'Can requeue dead letters'), ('discard_deadletter', 'Can discard dead letters')),
                'default_permissions': ('view',),
                'indexes': [models.Index(fields=['is_open', 'fingerprint', 'state', 'died_at', 'id'], name='dead_letter_groups'), models.Index(fields=['is_open', 'died_at', 'id'], name='dead_letter_newest'), models.Index(fields=['state', 'died_at', 'id'], name='dead_letter_states')],
            },
        ),
    ]
