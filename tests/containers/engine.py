"""Buildah and podman of Debian, as root and without a daemon, with images and containers in a folder of their own."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BASE, IMAGE = "localhost/base:bookworm", "localhost/switchyard"
# A base such as Python's slim image, which is in no registry that tests reach; neither has manuals and package lists.
INCLUDE = "python3,python3-venv,python-is-python3,ca-certificates"
WITHOUT = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*")
CLEAN = 'rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/* "$1"/usr/share/perl "$1"/usr/lib/*/gconv'
# Of an older Python than that which downloads: pip would leave out what only it needs.
MARKER = re.compile(r" ; python_full_version[^\\\n]*")


@dataclass
class Engine:
    """Builds images and runs containers; :meth:`remove` takes all of them away.

    Args:
        folder: For images, containers and wheels.
    """

    folder: Path
    names: list[str] = field(default_factory=list)

    @property
    def storage(self) -> tuple[str, ...]:
        return ("--root", f"{self.folder}/images", "--runroot", f"{self.folder}/run", "--storage-driver", "overlay")

    def podman(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        # crun needs a control group that this may not be; runc runs in both kinds.
        own = ("--runtime", "runc", "--cgroup-manager", "cgroupfs")
        command = ["podman", *self.storage, *own, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0 or not check, f"{arguments}: {done.stderr[-2_000:]}"
        return done

    def make_base(self) -> None:
        """Make the base image of Debian's packages."""
        base = self.folder / "base.tar"
        excluded = [f"--dpkgopt=path-exclude={path}" for path in WITHOUT]
        command = ["mmdebstrap", "--variant=minbase", f"--include={INCLUDE}", *excluded, f"--customize-hook={CLEAN}"]
        subprocess.run([*command, "bookworm", str(base)], capture_output=True, check=True, timeout=600)
        self.podman("import", str(base), BASE)
        base.unlink()

    def fetch_wheels(self, *extras: str) -> None:
        """Download what the locks name, for the base's own Python."""
        wheels = self.folder / "wheels"
        wheels.mkdir(exist_ok=True)
        lock = self.folder / "lock.txt"
        lock.write_text(MARKER.sub("", (ROOT / "requirements.txt").read_text()))
        files = [lock, *(ROOT / f"ops/requirements-{extra}.txt" for extra in extras)]
        command = ["python3", "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        named = [part for file in files for part in ("-r", str(file))]
        subprocess.run([*command, "--python-version", "3.11", "-d", str(wheels), *named], check=True, timeout=600)
        (self.folder / "pip.conf").write_text("[global]\nno-index = true\nfind-links = /wheels\n")

    def build(self, release: str, extras: str = "s3") -> None:
        """Build the image of a release from ``ops/Dockerfile`` as it is, without a network."""
        arguments = {"BASE": BASE, "SWITCHYARD_RELEASE": release, "EXTRAS": extras}
        given = [part for name, value in arguments.items() for part in ("--build-arg", f"{name}={value}")]
        mounted = [f"{self.folder}/wheels:/wheels:ro", f"{self.folder}/pip.conf:/etc/pip.conf:ro"]
        command = [
            *("buildah", *self.storage, "build", "--isolation", "chroot", "--format", "docker", "--layers"),
            *(part for each in mounted for part in ("-v", each)),
            *given,
            *("-f", "ops/Dockerfile", "-t", f"{IMAGE}:{release}", "."),
        ]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
        assert done.returncode == 0, done.stdout[-2_000:] + done.stderr[-4_000:]

    def size_bytes(self, release: str) -> int:
        [found] = json.loads(self.podman("image", "inspect", f"{IMAGE}:{release}").stdout)
        return int(found["Size"])

    def run(self, name: str, release: str, options: list[str], command: list[str], *, wait: bool = False) -> str:
        """Run a container, confined as compose does, on this machine's network; return its output if waited for."""
        self.podman("rm", "--force", name, check=False)
        self.names.append(name)
        confined = [
            *("--name", name, "--network", "host", "--no-healthcheck", "--init", "--read-only", "--cap-drop", "ALL"),
            *("--security-opt", "no-new-privileges", "--ulimit", "nofile=10000:20000", "--ulimit", "nproc=4096:4096"),
        ]
        detached = [] if wait else ["--detach"]
        return self.podman("run", *detached, *confined, *options, f"{IMAGE}:{release}", *command).stdout

    def logs(self, name: str) -> str:
        """Return what a container printed."""
        done = self.podman("logs", name, check=False)
        return done.stdout + done.stderr

    def state(self, name: str) -> tuple[bool, int]:
        """Return whether a container runs, and its exit code."""
        [found] = json.loads(self.podman("inspect", name).stdout)
        return bool(found["State"]["Running"]), int(found["State"]["ExitCode"])

    def remove(self) -> None:
        """Take containers and images away."""
        for name in dict.fromkeys(self.names):
            self.podman("rm", "--force", "--time", "5", name, check=False)
        self.podman("volume", "rm", "--all", "--force", check=False)
        shutil.rmtree(self.folder, ignore_errors=True)
