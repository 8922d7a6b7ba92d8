"""One name for every way in which a broker does not answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dramatiq.errors import BrokerConnectionError

from broker.errors import BrokerUnavailable


@contextmanager
def answered(operation: str) -> Iterator[None]:
    """Turn a client's connection errors into ``BrokerUnavailable``.

    Args:
        operation: What is asked of the broker, for the message.

    Raises:
        BrokerUnavailable: what was done inside got no answer.
    """
    try:
        yield
    except BrokerUnavailable:
        raise  # it says all of it already
    except (BrokerConnectionError, OSError) as error:
        raise BrokerUnavailable(operation, str(error) or type(error).__name__) from error
