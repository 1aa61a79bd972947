"""Hosts as they are named in BATON_EGRESS and in requests to the proxy: one strict reading of both.

    pypi.org            port 443
    mirror.corp:8080    10.0.0.7:5432    [fd00::7]:443

What one program takes for a name and the next for an address is how a list is got round. So a
name has the letters of a name, an address is written in full, and all else is refused: no user,
no dot at the end, no zone, no `0x7f.1`, no character that is not printable ASCII.
"""

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass

HTTPS = 443
LONGEST = 253  # characters of a name
LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")  # an address ends so, and no name does
PORT = re.compile(r"[1-9][0-9]{0,4}")
HOW = "must be hosts with commas between them, such as pypi.org, mirror.corp:8080 or [fd00::7]:443"

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class BadHost(ValueError):
    """It names no host and port that we would go by."""


@dataclass(frozen=True, slots=True, order=True)
class Target:
    """A host, in lower case, and a port. An address is in its shortest form, without brackets."""

    host: str
    port: int

    @property
    def address(self) -> Address | None:
        """The address, where the host is one."""
        return _address(self.host)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def read(text: str, *, port: int | None = None) -> Target:
    """The target that is named `host:port`, or with `port` also `host`. Raises BadHost."""
    if not text.isascii():
        raise BadHost("it has characters that no name has")
    host, told = _split(text)
    if told is None and port is None:
        raise BadHost("it names no port")
    number = port if told is None else _port(told)
    assert number is not None
    if host.startswith("["):
        return Target(str(_v6(host)), number)
    return Target(_name(host.lower()), number)


def read_all(text: str) -> Iterator[Target]:
    """The targets of a list with commas, as BATON_EGRESS is. Raises BadHost."""
    for each in text.split(","):
        if each.strip():
            yield read(each.strip(), port=HTTPS)


def _split(text: str) -> tuple[str, str | None]:
    if text.startswith("["):
        host, closed, rest = text.partition("]")
        if not closed or (rest and not rest.startswith(":")):
            raise BadHost("its brackets are not closed")
        return host + closed, rest[1:] if rest else None
    host, colon, port = text.partition(":")
    return host, port if colon else None


def _port(text: str) -> int:
    if not PORT.fullmatch(text) or int(text) > 65_535:
        raise BadHost("its port is none")
    return int(text)


def _v6(text: str) -> ipaddress.IPv6Address:
    found = None if "%" in text else _address(text[1:-1])
    if not isinstance(found, ipaddress.IPv6Address):
        raise BadHost("what is in brackets is no IPv6 address")
    return found


def _name(text: str) -> str:
    labels = text.split(".")
    if NUMBER.fullmatch(labels[-1]):
        if not isinstance(_address(text), ipaddress.IPv4Address):
            raise BadHost("it ends like an address, and is none in full")
        return text
    if len(text) > LONGEST or not all(map(LABEL.fullmatch, labels)):
        raise BadHost("it is not written as a name")
    return text


def _address(text: str) -> Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
