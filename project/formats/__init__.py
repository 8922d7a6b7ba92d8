"""How this project writes dates: formats for each language."""
