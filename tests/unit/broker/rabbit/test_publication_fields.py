"""Fields of a publication: encoded as pika would encode them."""

from __future__ import annotations

import pika
import pytest

from broker.rabbit.held import CONTENT_TYPE, PublicationFields


@pytest.mark.parametrize("message_id", ["m", "0d2e4d6b-1f0a-4d39-9a7e-0c5f3d1b2a4c", "ü" * 100, "x" * 255])
def test_the_properties_are_encoded_as_pika_would_and_read_back(message_id: str) -> None:
    ours = PublicationFields(message_id)
    fields = {"message_id": message_id, "correlation_id": ours.correlation_id}
    pikas = pika.BasicProperties(delivery_mode=2, content_type=CONTENT_TYPE, **fields)

    encoded = b"".join(ours.encode())
    read = pika.BasicProperties()
    read.decode(encoded)

    assert encoded == b"".join(pikas.encode())
    assert read == pikas
