"""Redis with TLS alone, certificates of an authority of the test's own, and users of each role."""

import datetime
import ipaddress
import signal
import subprocess
from pathlib import Path

import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from switchyard.embedded.server import free_port
from switchyard.workers.shared.fork import die_with_parent
from tests.waiting import wait_for

DAY = datetime.timedelta(days=1)


class Authority:
    """An authority that signs certificates for 127.0.0.1; its files lie in a folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority of a test")])
        self.file = self._write("ca", self._key, self._signed(self._name, self._key, authority=True))

    def issue(self, name: str, *, address: str = "127.0.0.1", days: int = 1) -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        file = self._write(name, key, self._signed(subject, key, address=address, days=days))
        return file, file.with_suffix(".key")

    def directives(self, port: int) -> dict[str, str]:
        """Return directives of a server or sentinel that listens with TLS as well, and replicates with TLS alone."""
        file, key = self.issue(f"server{port}")
        return {
            "tls-cert-file": str(file), "tls-key-file": str(key), "tls-ca-cert-file": str(self.file),
            "tls-auth-clients": "no", "tls-replication": "yes", "tls-port": str(port),
        }  # fmt: skip

    def _signed(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, authority: bool = False,
        address: str = "127.0.0.1", days: int = 1,
    ) -> x509.Certificate:  # fmt: skip
        ends = datetime.datetime.now(datetime.UTC) + days * DAY
        place = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(ends - 3 * DAY)
            .not_valid_after(ends)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(place, critical=False)
            .sign(self._key, hashes.SHA256())
        )

    def _write(self, name: str, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> Path:
        file = self.folder / f"{name}.pem"
        file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        file.with_suffix(".key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return file


class GuardedServer:
    """A server with users of an ACL file, and with TLS where an authority is given.

    Args:
        users: Lines of the ACL file.
        clients: Ask clients for a certificate.
    """

    def __init__(
        self, folder: Path, binary: Path, users: str, *, authority: Authority | None = None,
        certificate: tuple[Path, Path] | None = None, clients: bool = False,
    ) -> None:  # fmt: skip
        folder.mkdir()
        self.port, self._secure = free_port(), authority is not None
        (folder / "users.acl").write_text(f"user default on nopass ~* &* +@all\n{users}")
        lines = [
            "bind 127.0.0.1", f"dir {folder}", f"aclfile {folder}/users.acl", f"logfile {folder}/log", "appendonly yes",
        ]  # fmt: skip
        if authority is None:
            lines += [f"port {self.port}"]
        else:
            file, key = certificate or authority.issue("server")
            lines += [
                "port 0", f"tls-port {self.port}", f"tls-cert-file {file}", f"tls-key-file {key}",
                f"tls-ca-cert-file {authority.file}", f"tls-auth-clients {'yes' if clients else 'no'}",
            ]  # fmt: skip
        (folder / "redis.conf").write_text("\n".join(lines) + "\n")
        self.log = folder / "log"
        self._process = subprocess.Popen(
            [str(binary), str(folder / "redis.conf")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            preexec_fn=die_with_parent(signal.SIGTERM),
        )  # fmt: skip
        wait_for(self._listens, what="the server listens")

    def url(self, user: str = "", query: str = "") -> str:
        """Return the address for a user, whose password is its name."""
        login = f"{user}:{user}@" if user else ""
        return f"{'rediss' if self._secure else 'redis'}://{login}127.0.0.1:{self.port}/0{query}"

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def _listens(self) -> bool:
        assert self._process.poll() is None, self.log.read_text() if self.log.exists() else "it ended"
        client = redis.Redis(port=self.port, socket_timeout=1, socket_connect_timeout=1, retry=None)
        try:
            return bool(client.ping())
        except redis.ConnectionError as error:
            return "refused" not in str(error)
        finally:
            client.close()
