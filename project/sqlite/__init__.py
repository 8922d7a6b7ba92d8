"""Django's SQLite with a wait for locks that suits threads, greenlets and processes; the settings name it as ENGINE."""
