import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):

    initial = True

    dependencies = [
    ]

    operations = [
        migrations.CreateModel(
            name='Silence',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('fingerprint', models.CharField(blank=True, help_text='Empty: every alert.', max_length=128)),
                ('until', models.DateTimeField(db_index=True)),
                ('reason', models.CharField(max_length=500)),
                ('created_by', models.CharField(max_length=150)),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now)),
                ('ended_by', models.CharField(blank=True, max_length=150)),
                ('ended_at', models.DateTimeField(null=True)),
            ],
            options={
                'ordering': ('until', 'id'),
                'default_permissions': (),
            },
        ),
        migrations.CreateModel(
            name='Alert',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('fingerprint', models.CharField(max_length=128)),
                ('kind', models.CharField(max_length=64)),
                ('title', models.CharField(max_length=300)),
                ('severity', models.CharField(choices=[('critical', 'Critical'), ('warning', 'Warning')], max_length=16)),
                ('sample', models.TextField()),
                ('queue', models.CharField(blank=True, max_length=64)),
                ('actor', models.CharField(blank=True, max_length=255)),
                ('link', models.CharField(blank=True, max_length=500)),
                ('count', models.PositiveIntegerField()),
                ('first_at', models.DateTimeField()),
                ('last_at', models.DateTimeField(db_index=True)),
                ('state', models.CharField(choices=[('open', 'Open'), ('acknowledged', 'Acknowledged'), ('resolved', 'Resolved')], default='open', max_length=16)),
                ('acknowledged_by', models.CharField(blank=True, max_length=150)),
                ('acknowledged_at', models.DateTimeField(null=True)),
                ('resolved_by', models.CharField(blank=True, help_text='Empty: its cause has ended.', max_length=150)),
                ('resolved_at', models.DateTimeField(null=True)),
            ],
            options={
                'ordering': ('-last_at', '-id'),
                'permissions': (('acknowledge_alert', 'Can acknowledge and resolve alerts'), ('silence_alert', 'Can silence alerts')),
                'default_permissions': ('view',),
                'indexes': [models.Index(fields=['state', 'kind', 'fingerprint'], name='alert_unresolved')],
                'constraints': [models.UniqueConstraint(fields=('fingerprint', 'first_at'), name='one_alert_a_group')],
            },
        ),
        migrations.CreateModel(
            name='Delivery',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('channel', models.CharField(max_length=200)),
                ('reported', models.PositiveIntegerField()),
                ('count', models.PositiveIntegerField()),
                ('state', models.CharField(choices=[('pending', 'Pending'), ('sent', 'Sent'), ('given_up', 'Given up'), ('silenced', 'Silenced')], default='pending', max_length=16)),
                ('tries', models.PositiveSmallIntegerField(default=0)),
                ('next_try_at', models.DateTimeField()),
                ('sent_at', models.DateTimeField(null=True)),
                ('error', models.CharField(blank=True, max_length=300)),
                ('alert', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='deliveries', to='switchyard_alerts.alert')),
            ],
            options={
                'verbose_name_plural': 'deliveries',
                'ordering': ('id',),
                'default_permissions': (),
                'indexes': [models.Index(fields=['state', 'next_try_at'], name='alert_delivery_due')],
                'constraints': [models.UniqueConstraint(fields=('alert', 'channel', 'reported'), name='one_delivery_a_channel_and_message')],
            },
        ),
    ]
