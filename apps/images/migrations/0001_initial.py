import apps.images.models
import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):

    initial = True

    dependencies = [
    ]

    operations = [
        migrations.CreateModel(
            name='Picture',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('owner_key', models.CharField(db_index=True, max_length=64)),
                ('request_id', models.UUIDField(editable=False, help_text='Same for a repeated request.', null=True, unique=True)),
                ('source_url', models.CharField(blank=True, max_length=2048)),
                ('file', models.FileField(blank=True, upload_to=apps.images.models.stored_name)),
                ('sent_name', models.CharField(blank=True, help_text='Claimed, never used as a path.', max_length=255)),
                ('sent_type', models.CharField(blank=True, help_text='What its sender called it; never trusted.', max_length=100)),
                ('format', models.CharField(blank=True, max_length=4)),
                ('width', models.PositiveIntegerField(blank=True, null=True)),
                ('height', models.PositiveIntegerField(blank=True, null=True)),
                ('size_bytes', models.PositiveIntegerField(blank=True, null=True)),
                ('created_at', models.DateTimeField(db_index=True, default=django.utils.timezone.now)),
            ],
            options={
                'ordering': ['-id'],
            },
        ),
        migrations.CreateModel(
            name='Thumbnail',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('width', models.PositiveIntegerField()),
                ('height', models.PositiveIntegerField()),
                ('job_id', models.CharField(db_index=True, max_length=40)),
                ('state', models.CharField(choices=[('waiting', 'Waiting'), ('made', 'Made'), ('refused', 'Refused')], db_index=True, default='waiting', max_length=10)),
                ('refusal', models.CharField(blank=True, max_length=300)),
                ('result', models.JSONField(blank=True, null=True)),
                ('created_at', models.DateTimeField(db_index=True, default=django.utils.timezone.now)),
                ('finished_at', models.DateTimeField(blank=True, null=True)),
                ('picture', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='thumbnails', to='images.picture')),
            ],
            options={
                'ordering': ['-id'],
                'permissions': [('remake_thumbnail', 'Can have a thumbnail made again')],
            },
        ),
    ]
