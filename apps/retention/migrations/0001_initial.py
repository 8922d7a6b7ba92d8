from django.db import migrations, models


class Migration(migrations.Migration):

    initial = True

    dependencies = [
    ]

    operations = [
        migrations.CreateModel(
            name='FileRemoval',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(help_text='Name in the storage.', max_length=1024, unique=True)),
            ],
            options={
                'default_permissions': (),
            },
        ),
        migrations.CreateModel(
            name='KindState',
            fields=[
                ('name', models.CharField(max_length=40, primary_key=True, serialize=False)),
                ('count', models.PositiveBigIntegerField(default=0, help_text='Rows, or files, that are kept.')),
                ('size_bytes', models.PositiveBigIntegerField(help_text='Of their files; empty for rows without files.', null=True)),
                ('oldest_at', models.DateTimeField(null=True)),
                ('removed', models.PositiveBigIntegerField(default=0, help_text='Rows and files that the last run removed.')),
                ('ended_at', models.DateTimeField(help_text='End of the last run that came to an end.', null=True)),
                ('error', models.CharField(blank=True, help_text='Why the last run did not come to an end.', max_length=300)),
                ('run', models.BigIntegerField(default=0, help_text='Number of the last run; an earlier one ends when it sees that.')),
                ('done', models.BooleanField(default=False, help_text='The last run has come to an end.')),
                ('cursor', models.CharField(blank=True, help_text='Last file that the run has looked at.', max_length=1024)),
                ('walked', models.JSONField(default=dict, help_text='Figures of the files up to the cursor.')),
            ],
            options={
                'default_permissions': (),
            },
        ),
    ]
