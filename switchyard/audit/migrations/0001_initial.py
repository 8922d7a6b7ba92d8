import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):

    initial = True

    # The groups of the roles are made as soon as the table of granted rights is there.
    dependencies = [
        ('auth', '0012_alter_user_first_name_max_length'),
        ('contenttypes', '0002_remove_content_type_name'),
    ]

    operations = [
        migrations.CreateModel(
            name='AuditEntry',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('at', models.DateTimeField(db_index=True, default=django.utils.timezone.now)),
                ('act', models.CharField(help_text='Thing and verb, such as queue.pause.', max_length=40)),
                ('target', models.CharField(blank=True, help_text='Name or id of the thing; empty for several.', max_length=255)),
                ('who', models.CharField(max_length=150)),
                ('via', models.CharField(choices=[('page', 'Page'), ('api', 'API'), ('command', 'Command')], max_length=16)),
                ('token', models.CharField(blank=True, help_text='Public part of the API token.', max_length=12)),
                ('reason', models.CharField(blank=True, max_length=500)),
                ('detail', models.JSONField(default=dict)),
                ('count', models.PositiveBigIntegerField(help_text='Things that the act changed.', null=True)),
                ('outcome', models.CharField(choices=[('begun', 'Begun'), ('done', 'Done'), ('failed', 'Failed')], default='begun', max_length=8)),
                ('error', models.CharField(blank=True, max_length=300)),
                ('ended_at', models.DateTimeField(null=True)),
            ],
            options={
                'verbose_name': 'audit entry',
                'verbose_name_plural': 'audit log',
                'ordering': ('-id',),
                'default_permissions': ('view',),
                'indexes': [models.Index(fields=['act', 'id'], name='audit_by_act'), models.Index(fields=['who', 'id'], name='audit_by_who'), models.Index(fields=['target', 'id'], name='audit_by_target')],
            },
        ),
        migrations.CreateModel(
            name='GrantedRight',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('role', models.CharField(max_length=64)),
                ('right', models.CharField(max_length=200)),
            ],
            options={
                'default_permissions': (),
                'constraints': [models.UniqueConstraint(fields=('role', 'right'), name='one_grant_a_role_and_right')],
            },
        ),
    ]
