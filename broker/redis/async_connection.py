"""The connection of :mod:`broker.redis.server_connection` for asyncio."""

from __future__ import annotations

from typing import Any

from redis.asyncio import Connection

from broker.redis.server_connection import refuse_itself


class AsyncServerConnection(Connection):
    """A connection that is refused where its two ends are one. With TLS the handshake with itself fails anyway."""

    async def _connect(self) -> None:
        await super()._connect()
        writer: Any = self._writer
        try:
            refuse_itself(writer.get_extra_info("sockname"), writer.get_extra_info("peername"))
        except ConnectionRefusedError:
            await self.disconnect(nowait=True)
            raise
