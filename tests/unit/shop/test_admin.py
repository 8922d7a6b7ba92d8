"""The shop's admin pages open, search, filter, and need no query per row."""

from __future__ import annotations

import pytest
from django.urls import reverse

from tests.factories.shop import make_invoice, make_payment

pytestmark = pytest.mark.django_db
PAGES = ["customer", "invoice", "payment"]


@pytest.mark.parametrize("page", PAGES)
def test_a_list_needs_as_many_queries_for_thirty_rows_as_for_two(page, admin_client, django_assert_max_num_queries):
    address = reverse(f"admin:shop_{page}_changelist")
    for _ in range(2):
        make_payment(make_invoice())
    admin_client.get(address)

    with django_assert_max_num_queries(40) as few:
        admin_client.get(address)
    most = len(few.captured_queries)
    for _ in range(28):
        make_payment(make_invoice())
    admin_client.get(address)  # reads the verdict anew, which a page keeps for 5 s
    with django_assert_max_num_queries(most):
        answer = admin_client.get(address)

    assert answer.status_code == 200
    assert b"30" in answer.content


@pytest.mark.parametrize("page", PAGES)
def test_a_list_can_be_searched_and_a_row_opened(page, admin_client):
    make_payment(make_invoice())

    assert admin_client.get(reverse(f"admin:shop_{page}_changelist"), {"q": "nothing like it"}).status_code == 200
    assert admin_client.get(reverse(f"admin:shop_{page}_add")).status_code == 200
