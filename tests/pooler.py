"""A PgBouncer before the test's Postgres, in transaction mode: whoever asks gets whatever
connection is free, for one transaction."""

import os
import signal
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg

from dev.stack import processes
from dev.stack.processes import LOOPBACK, free_port
from tests.machine import SYSTEM
from tests.waiting import wait_until

CONFIGURATION = """
[databases]
* = host={host} port={server_port} user={user} password={password}
[pgbouncer]
listen_addr = {loopback}
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {size}
log_connections = 0
log_disconnections = 0
"""


@contextmanager
def pgbouncer(dsn: str, place: Path, *, size: int = 3) -> Generator[str]:
    """The URL of the database through a PgBouncer with `size` connections to Postgres."""
    parts, port = urlsplit(dsn), free_port()
    file = place / "pgbouncer.ini"
    file.write_text(
        CONFIGURATION.format(
            host=parts.hostname,
            server_port=parts.port,
            user=parts.username,
            password=parts.password,
            loopback=LOOPBACK,
            port=port,
            size=size,
        )
    )
    somebody = [] if os.geteuid() else ["unshare", "--user", "--map-user=65534"]  # refuses root
    command = processes.bound([*somebody, "pgbouncer", "--quiet", str(file)], signal.SIGTERM)
    with (place / "pgbouncer.log").open("wb") as log:
        running = subprocess.Popen(
            command, env={**os.environ, "PATH": SYSTEM}, stdout=log, stderr=log
        )
    url = parts._replace(netloc=f"{parts.username}@{LOOPBACK}:{port}").geturl()
    try:
        wait_until(lambda: _answers(url), description="PgBouncer to answer")
        yield url
    finally:
        running.kill()
        running.wait()


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True
