"""Health check of a container: ``python ops/probe.py PORT PATH`` exits 0 when that answers 200 on loopback."""

import http.client
import os
import pathlib
import sys


def main(port: int, path: str) -> int:
    """Send one request, for at most 4 s, with a host of DJANGO_ALLOWED_HOSTS and the metrics token if set."""
    hosts = os.environ.get("DJANGO_ALLOWED_HOSTS", "").replace(",", " ").split()
    headers = {"Host": hosts[0].lstrip(".") if hosts else "localhost"}
    token_file = os.environ.get("SWITCHYARD_METRICS_TOKEN_FILE")
    token = pathlib.Path(token_file).read_text().strip() if token_file else os.environ.get("SWITCHYARD_METRICS_TOKEN")
    if token:
        headers["Authorization"] = f"Bearer {token}"
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=4)
    try:
        connection.request("GET", path, headers=headers)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        sys.stderr.write(f"127.0.0.1:{port}{path} did not answer: {error}\n")
        return 1
    if status != http.client.OK:
        sys.stderr.write(f"127.0.0.1:{port}{path} answered {status}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2]))
