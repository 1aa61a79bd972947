"""A Redis that speaks TLS itself: Debian's build, which is in its redis-tools under another name.
The Redis that the tests have besides was built without."""

import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import redis

from dev.stack.processes import LOOPBACK, free_port
from tests.machine import REDIS_WITH_TLS
from tests.tls import Signer
from tests.waiting import wait_until

PASSWORD = "let-me-in"


@contextmanager
def redis_with_tls(place: Path, signer: Signer) -> Generator[str]:
    """Its URL. The certificate is for its address."""
    assert REDIS_WITH_TLS
    server, port, certificate = (
        place / "redis-server",
        free_port(),
        signer.certificate(LOOPBACK),
    )
    url = f"rediss://default:{PASSWORD}@{LOOPBACK}:{port}/0"
    server.symlink_to(REDIS_WITH_TLS)  # one program, which does what it is called
    options = {
        "bind": LOOPBACK,
        "port": "0",
        "tls-port": str(port),
        "tls-cert-file": str(certificate),
        "tls-key-file": str(certificate),
        "tls-ca-cert-file": str(signer.ca),
        "tls-auth-clients": "no",
        "requirepass": PASSWORD,
        "dir": str(place),
        "save": "",
    }
    pairs = [word for name, value in options.items() for word in (f"--{name}", value)]
    with (place / "redis.log").open("wb") as log:
        running = subprocess.Popen([server, *pairs], stdout=log, stderr=log)
        try:
            wait_until(lambda: _answers(url), description="Redis to answer")
            yield url
        finally:
            running.terminate()
            running.wait()


def _answers(url: str) -> bool:
    try:
        with redis.Redis.from_url(url, ssl_cert_reqs="none") as one:
            return bool(one.ping())
    except redis.ConnectionError:
        return False
