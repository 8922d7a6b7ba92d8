"""A TCP connection with TLS that loads no more authorities than the address names."""

from __future__ import annotations

import ssl
from typing import Any

from redis.connection import SSLConnection

from broker.redis.server_connection import ServerConnection


class TlsConnection(SSLConnection, ServerConnection):
    """A connection over TLS that trusts the authorities of ``ssl_ca_certs`` alone, where the address names some.

    redis-py loads the system's authorities as well, for each connection: 40 ms of processor time, once a second.
    The files are read anew each time, because certificates are renewed.
    """

    def _wrap_socket_with_ssl(self, sock: Any) -> Any:
        named = self.ca_certs or self.ca_path or self.ca_data
        rules = (
            self.ssl_include_verify_flags or self.ssl_exclude_verify_flags or self.ssl_ciphers or self.ssl_min_version
        )
        if not named or rules or self.ssl_validate_ocsp or self.ssl_validate_ocsp_stapled:
            return super()._wrap_socket_with_ssl(sock)
        context = ssl.create_default_context(cafile=self.ca_certs, capath=self.ca_path, cadata=self.ca_data)
        context.check_hostname = self.check_hostname
        context.verify_mode = self.cert_reqs
        if self.certfile or self.keyfile:
            context.load_cert_chain(self.certfile, self.keyfile, self.certificate_password)
        return context.wrap_socket(sock, server_hostname=self.host)
