"""Sample work of every product app: sent through the API, then followed until each job ends."""
