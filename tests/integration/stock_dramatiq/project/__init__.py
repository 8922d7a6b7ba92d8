"""A project written against stock Dramatiq 2.2: it imports nothing but Dramatiq, and knows no other broker."""
