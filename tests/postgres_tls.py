"""A Postgres that speaks TLS itself: the system's, for the embedded one has none."""

import os
import shutil
import signal
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from dev.stack import processes
from dev.stack.embedded import NOBODY
from dev.stack.processes import LOOPBACK, free_port
from tests.waiting import wait_until

SYSTEMS = "/usr/lib/postgresql"


def programs() -> Path | None:
    """Where the newest of the system's lies that has TLS."""
    found = [Path(each).parent for each in Path(SYSTEMS).glob("*/bin/postgres")]
    on_path = shutil.which("postgres")
    found += [Path(on_path).resolve().parent] if on_path else []
    return next((each for each in sorted(found, reverse=True) if _has_tls(each)), None)


def _has_tls(place: Path) -> bool:
    told = subprocess.run(
        [place / "pg_config", "--configure"], capture_output=True, text=True, check=False
    )
    return "openssl" in told.stdout and (place / "initdb").exists()


@contextmanager
def postgres_with_tls(place: Path, certificate: Path) -> Generator[str]:
    """`user:password@host:port/database` of one that takes connections by TLS alone."""
    there, data, port = programs(), place / "tls-data", free_port()
    assert there
    somebody = (
        []
        if os.geteuid()
        else ["unshare", "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}"]
    )
    (password := place / "tls-password").write_text("pw")
    certificate.chmod(0o600)
    subprocess.run(
        [*somebody, there / "initdb", "-D", data, "-U", "baton", f"--pwfile={password}",
         "--auth=scram-sha-256", "--no-sync", "--encoding=UTF8", "--locale=C"],
        check=True, capture_output=True, cwd=place,
    )  # fmt: skip
    (data / "pg_hba.conf").write_text(f"hostssl all all {LOOPBACK}/32 scram-sha-256\n")
    options = {
        "listen_addresses": LOOPBACK,
        "port": str(port),
        "unix_socket_directories": "",
        "fsync": "off",
        "ssl": "on",
        "ssl_cert_file": str(certificate),
        "ssl_key_file": str(certificate),
    }
    pairs = [f"--{name}={value}" for name, value in options.items()]
    command = processes.bound([str(there / "postgres"), "-D", str(data), *pairs], signal.SIGINT)
    with (place / "tls.log").open("wb") as log:
        running = subprocess.Popen([*somebody, *command], stdout=log, stderr=log, cwd=place)
    address = f"baton:pw@{LOOPBACK}:{port}/postgres"
    try:
        wait_until(lambda: _answers(address), timeout=20, description="Postgres to answer")
        yield address
    finally:
        running.send_signal(signal.SIGINT)
        running.wait()


def _answers(address: str) -> bool:
    try:
        psycopg.connect(f"postgresql://{address}?sslmode=require", connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True
