from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('dead_letters', '0002_open_letters_by_index'),
    ]

    operations = [
        migrations.AlterField(
            model_name='deadletter',
            name='message_id',
            field=models.CharField(max_length=200, unique=True, verbose_name='job'),
        ),
    ]
