"""Words of the sample shop. Invented; addresses end in .example, which receives no mail."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Country:
    """Names of people and companies of one country, and their currency."""

    code: str
    currency: str
    first_names: tuple[str, ...]
    last_names: tuple[str, ...]
    company_forms: tuple[str, ...]


COUNTRIES = (
    Country(
        "DE",
        "EUR",
        ("Anna", "Jonas", "Lena", "Felix", "Miriam", "Tobias", "Katrin", "Henrik", "Ayşe", "Paul"),
        ("Brandt", "Hansen", "Vogel", "Keller", "Yılmaz", "Lorenz", "Seidel", "Busch", "Winter", "Kraft"),
        ("{} GmbH", "{} & Partner", "{} Logistik AG"),
    ),
    Country(
        "FR",
        "EUR",
        ("Camille", "Hugo", "Inès", "Louis", "Chloé", "Mathieu", "Zoé", "Karim", "Élise", "Bastien"),
        ("Moreau", "Lefèvre", "Girard", "Benali", "Rousseau", "Fontaine", "Mercier", "Blanchard", "Roux", "Caron"),
        ("{} SARL", "Ateliers {}", "{} et Fils"),
    ),
    Country(
        "GB",
        "GBP",
        ("Emily", "Oliver", "Priya", "Harry", "Grace", "Samuel", "Isla", "Daniel", "Amara", "Owen"),
        ("Whitfield", "Patel", "Hughes", "Okafor", "Barker", "Sinclair", "Reid", "Holloway", "Marsh", "Doyle"),
        ("{} Ltd", "{} & Sons", "{} Trading"),
    ),
    Country(
        "US",
        "USD",
        ("Ashley", "Marcus", "Elena", "Tyler", "Naomi", "Victor", "Hannah", "Jamal", "Sofia", "Caleb"),
        ("Carter", "Nguyen", "Ramirez", "Sullivan", "Brooks", "Kim", "Foster", "Delgado", "Hayes", "Lindgren"),
        ("{} Inc.", "{} Supply Co.", "{} Group LLC"),
    ),
    Country(
        "CH",
        "CHF",
        ("Laura", "Reto", "Nina", "Urs", "Giulia", "Beat", "Selina", "Luca", "Sandra", "Marco"),
        ("Meier", "Bianchi", "Frei", "Zürcher", "Gerber", "Rossi", "Ammann", "Steiner", "Favre", "Keller"),
        ("{} AG", "{} Sàrl", "{} Holding"),
    ),
)

# Description, lowest and highest unit price in whole units of currency, highest quantity.
CATALOGUE = (
    ("Platform subscription, monthly", 49, 399, 1),
    ("Additional seats", 9, 19, 25),
    ("Storage, 100 GB", 4, 8, 40),
    ("Priority support", 120, 350, 1),
    ("On-site training, day", 780, 1_150, 3),
    ("Data migration, hour", 95, 140, 16),
    ("Custom report template", 180, 420, 4),
    ("API calls, 10,000", 3, 6, 120),
    ("Thermal printer", 210, 330, 6),
    ("Barcode scanner", 85, 160, 12),
    ("Shipping labels, box", 14, 22, 30),
    ("Consulting, hour", 130, 190, 12),
)

STRAY_REFERENCES = ("Thank you", "advance payment", "see mail", "collective transfer October", "")
