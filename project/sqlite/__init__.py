"""Django's SQLite, patient in a way that suits many processes. Named as the ENGINE by the settings."""
