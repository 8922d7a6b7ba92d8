"""Sample data of a shop, equal for the same day."""

import copy
import datetime
import random
from decimal import Decimal

from django.db import transaction
from django.utils.text import slugify

from apps.shop import months, settlement
from apps.shop.models import CENT, Customer, Invoice, InvoiceLine, InvoiceStatus, Payment, PaymentMethod

# Code of the country, its currency, first names, last names, names of companies. Invented; addresses end in .example,
# which receives no mail.
COUNTRIES = tuple(
    (code, currency, first_names.split(), last_names.split(), companies.split(", "))
    for code, currency, first_names, last_names, companies in (
        ("DE", "EUR", "Anna Jonas Lena Felix Miriam Tobias Katrin Henrik Ayşe Paul",
         "Brandt Hansen Vogel Keller Yılmaz Lorenz Seidel Busch Winter Kraft",
         "{} GmbH, {} & Partner, {} Logistik AG"),
        ("FR", "EUR", "Camille Hugo Inès Louis Chloé Mathieu Zoé Karim Élise Bastien",
         "Moreau Lefèvre Girard Benali Rousseau Fontaine Mercier Blanchard Roux Caron",
         "{} SARL, Ateliers {}, {} et Fils"),
        ("GB", "GBP", "Emily Oliver Priya Harry Grace Samuel Isla Daniel Amara Owen",
         "Whitfield Patel Hughes Okafor Barker Sinclair Reid Holloway Marsh Doyle",
         "{} Ltd, {} & Sons, {} Trading"),
        ("US", "USD", "Ashley Marcus Elena Tyler Naomi Victor Hannah Jamal Sofia Caleb",
         "Carter Nguyen Ramirez Sullivan Brooks Kim Foster Delgado Hayes Lindgren",
         "{} Inc., {} Supply Co., {} Group LLC"),
        ("CH", "CHF", "Laura Reto Nina Urs Giulia Beat Selina Luca Sandra Marco",
         "Meier Bianchi Frei Zürcher Gerber Rossi Ammann Steiner Favre Keller",
         "{} AG, {} Sàrl, {} Holding"),
    )
)  # fmt: skip

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

FULL_MONTHS = 12
BATCH_ROWS = 1_000
CURRENCIES = {code: currency for code, currency, *_ in COUNTRIES}


@transaction.atomic
def create(*, customers: int = 300, until: datetime.date) -> bool:
    """Fill an empty shop with customers, and their invoices and payments of twelve full months and the running one.

    Each customer gets about thirteen invoices; most are paid in full, some too little, too much, twice, without a
    readable reference, or never; the status of a few contradicts their payments.

    Args:
        until: Last day with invoices or payments; an equal day makes an equal shop.

    Returns:
        Whether the shop was filled; one that has customers is left unchanged.
    """
    if Customer.objects.exists():
        return False
    rng = random.Random(1)  # noqa: S311 (sample data, no secret)
    people = Customer.objects.bulk_create(_customers(rng, customers, until), batch_size=BATCH_ROWS)
    drafts = _drafts(rng, people, until)
    invoices = Invoice.objects.bulk_create([invoice for invoice, _ in drafts], batch_size=BATCH_ROWS)
    lines = [line for _, lines in drafts for line in lines]
    InvoiceLine.objects.bulk_create(lines, batch_size=BATCH_ROWS)
    payments = [payment for invoice in invoices for payment in _payments(rng, invoice, until)]
    payments += _stray_payments(rng, people, until)
    payments.sort(key=lambda payment: payment.received_at)
    for serial, payment in enumerate(payments, start=1):
        payment.external_id = f"pay_{serial:08d}"
    Payment.objects.bulk_create(payments, batch_size=BATCH_ROWS)
    _settle(rng, invoices, payments)
    Invoice.objects.bulk_update(invoices, ["status"], batch_size=BATCH_ROWS)
    return True


def _customers(rng: random.Random, count: int, until: datetime.date) -> list[Customer]:
    made = []
    for serial in range(1, count + 1):
        country, _, first_names, last_names, companies = rng.choices(COUNTRIES, weights=(40, 18, 16, 16, 10))[0]
        first, last = rng.choice(first_names), rng.choice(last_names)
        company = rng.choice(companies).format(rng.choice(last_names)) if rng.random() < 0.8 else ""
        host = _ascii(company.replace("&", "and")) or "mail"
        joined = until - datetime.timedelta(days=rng.randint(400, 1_500))
        made.append(
            Customer(
                name=f"{first} {last}",
                email=f"{_ascii(first)}.{_ascii(last)}.{serial}@{host}.example",
                company=company,
                country=country,
                created_at=_moment(rng, joined),
            )
        )
    return made


def _drafts(
    rng: random.Random, people: list[Customer], until: datetime.date
) -> list[tuple[Invoice, list[InvoiceLine]]]:
    running = until.replace(day=1)
    days = []
    for position in range(len(people)):
        # The first customer buys a lot, so that a statement of several pages is easy to find.
        weights = (0, 0, 0, 0, 1, 1, 1) if position == 0 else (30, 53, 11, 0, 2, 2, 2)
        for back in range(FULL_MONTHS, -1, -1):
            first = months.later(running, -back)
            for _ in range(rng.choices(range(7), weights)[0]):
                day = first + datetime.timedelta(days=rng.randrange(28))
                if day <= until:
                    days.append((day, position))
    days.sort()
    return [
        _draft(rng, people[position], f"INV-{day.year:04d}-{serial:06d}", day)
        for serial, (day, position) in enumerate(days, start=1)
    ]


def _draft(
    rng: random.Random, customer: Customer, number: str, day: datetime.date
) -> tuple[Invoice, list[InvoiceLine]]:
    invoice = Invoice(
        number=number,
        customer=customer,
        issued_on=day,
        due_on=day + datetime.timedelta(days=rng.choice((14, 30))),
        currency=CURRENCIES[customer.country],
    )
    lines = []
    for description, least, most, quantity in rng.sample(CATALOGUE, rng.choice((1, 1, 2, 2, 3, 4, 5))):
        price = Decimal(rng.randint(least * 100, most * 100)) / 100
        lines.append(
            InvoiceLine(invoice=invoice, description=description, quantity=rng.randint(1, quantity), unit_price=price)
        )
    invoice.total = sum((line.amount for line in lines), settlement.ZERO)
    invoice.status = InvoiceStatus.VOID if rng.random() < 0.01 else InvoiceStatus.OPEN
    return invoice, lines


def _payments(rng: random.Random, invoice: Invoice, until: datetime.date) -> list[Payment]:
    if invoice.status == InvoiceStatus.VOID:
        return []
    first = Payment(
        customer=invoice.customer,
        invoice=invoice,
        reference=invoice.number,
        amount=invoice.total,
        currency=invoice.currency,
        method=rng.choices(list(PaymentMethod), weights=(6, 3, 2))[0],
        received_at=_moment(rng, invoice.issued_on + datetime.timedelta(days=rng.choice((1, 2, 3, 5, 8, 12, 21, 30)))),
    )
    made = [first]
    match rng.choices(("full", "short", "over", "split", "twice", "unlinked", "never"), (80, 3, 2, 3, 1, 4, 7))[0]:
        case "never":
            return []
        case "short":
            first.amount = (first.amount * 3 / 4).quantize(CENT)
        case "over":
            first.amount += rng.randint(1, 40)
        case "unlinked":
            first.invoice = None
            written = first.reference.lower().replace("-", rng.choice(("-", " ", "")))
            first.reference = rng.choice(("{}", "Rg. {}", "payment for {} thanks")).format(written)
        case "split" | "twice" as story:
            second = copy.copy(first)
            second.received_at += datetime.timedelta(days=rng.randint(1, 9))
            if story == "split":
                first.amount = (first.amount / 2).quantize(CENT)
                second.amount -= first.amount
            made.append(second)
    return [payment for payment in made if payment.received_at.date() <= until]


def _stray_payments(rng: random.Random, people: list[Customer], until: datetime.date) -> list[Payment]:
    return [
        Payment(
            customer=customer,
            reference=rng.choice(STRAY_REFERENCES),
            amount=Decimal(rng.randint(1_000, 90_000)) / 100,
            currency=CURRENCIES[customer.country],
            received_at=_moment(rng, until - datetime.timedelta(days=rng.randrange(365))),
        )
        for customer in rng.sample(people, len(people) // 12)
    ]


def _settle(rng: random.Random, invoices: list[Invoice], payments: list[Payment]) -> None:
    paid = settlement.paid_amounts(invoices, payments)
    for invoice in invoices:
        if invoice.status == InvoiceStatus.VOID:
            continue
        invoice.status = settlement.status_for(invoice.total, paid[invoice.pk])
        if rng.random() < 0.03:
            paid_by_hand = invoice.status != InvoiceStatus.PAID
            invoice.status = InvoiceStatus.PAID if paid_by_hand else InvoiceStatus.OPEN


def _moment(rng: random.Random, day: datetime.date) -> datetime.datetime:
    clock = datetime.time(rng.randint(6, 21), rng.randrange(60), rng.randrange(60))
    return datetime.datetime.combine(day, clock, tzinfo=datetime.UTC)


def _ascii(words: str) -> str:
    return slugify(words.replace("ı", "i")).replace("-", "").replace("_", "")
