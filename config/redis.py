"""How Redis is reached: one reading of REDIS_URL for redis-py and for Celery's side.

Left alone the two differ: of `rediss://` without more, redis-py verifies the server's
certificate, while Celery takes any; and each has its own words for the URL's options.
"""

import re
import ssl
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlencode

REQUIRED, OPTIONAL, NONE = "required", "optional", "none"
ADDRESS = re.compile(r"((redis|rediss)://[^/?#]+)(?:/0?)?(?:\?([^#]*))?")
FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
HOW = (
    "must be redis://host:port/0, or rediss://host:port/0 with ssl_cert_reqs,"
    " ssl_check_hostname, ssl_ca_certs, ssl_certfile or ssl_keyfile and no more"
)


@dataclass(frozen=True, slots=True)
class Way:
    """Where Redis is, without a database, and what redis-py's connections take for TLS."""

    address: str
    tls: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def verified(self) -> bool:
        """Whether somebody between us and Redis would be noticed."""
        return bool(self.tls) and self.tls["ssl_cert_reqs"] != NONE

    @property
    def for_celery(self) -> str:
        """The broker's URL with all that any Celery needs to verify as we do."""
        said = {name: str(value) for name, value in self.tls.items() if value is not True}
        if said:
            said["ssl_cert_reqs"] = f"CERT_{said['ssl_cert_reqs'].upper()}"
        return f"{self.address}/0" + (f"?{urlencode(said, safe='/')}" if said else "")


def way(url: str, ca: str = "") -> Way:
    """Read the URL; `ca` is a file of certificates that sign the server's, where the URL
    names none. Raises ValueError with the rest of a sentence."""
    found = ADDRESS.fullmatch(url)
    if not found:
        raise ValueError(HOW)
    given = dict(parse_qsl(found[3] or "", keep_blank_values=True))
    if found[2] == "redis":
        if given:
            raise ValueError(HOW)
        return Way(found[1])
    verify = given.pop("ssl_cert_reqs", REQUIRED).lower().removeprefix("cert_")
    check = given.pop("ssl_check_hostname", "true").lower()
    if set(given) - set(FILES) or verify not in (REQUIRED, OPTIONAL, NONE):
        raise ValueError(HOW)
    if check not in ("true", "false"):
        raise ValueError("has an ssl_check_hostname that is neither true nor false")
    if ca:
        given.setdefault("ssl_ca_certs", ca)
    tls: dict[str, Any] = {"ssl_cert_reqs": verify, **given}
    tls["ssl_check_hostname"] = check == "true" and verify != NONE
    _read(tls)
    return Way(found[1], tls)


def _read(tls: dict[str, Any]) -> None:
    """Raises ValueError when a file that is named cannot be read as what it is to be."""
    try:
        context = ssl.create_default_context(cafile=tls.get("ssl_ca_certs"))
        if certificate := tls.get("ssl_certfile"):
            context.load_cert_chain(certificate, tls.get("ssl_keyfile"))
    except OSError as exc:
        raise ValueError(
            f"names a file that holds no certificate or key ({exc.strerror or exc})"
        ) from exc
